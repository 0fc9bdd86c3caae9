"""The optimum of hand-made lists by thought, and of small ones by trying every sequence of actions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import environment
from aco_jax.ops import states
from benchmarks import optimum

BINS = states.Config()
CONFIG = environment.Config(BINS, max_steps=6, discount=0.9, step_cost=0.01, token_cost=0.001, rewrite_cost=0.1)
EDGES = states.first_edges(BINS)


def lists(reward: np.ndarray, order: np.ndarray, row: np.ndarray, valid: np.ndarray | None = None):
    """Anchors whose candidates have these rewards, orders and rows, [B, L] each."""
    count, length = reward.shape
    valid = np.ones(reward.shape, bool) if valid is None else valid
    even = jnp.full((count, length, 1), 0.5)
    return environment.Problem(
        anchor=jnp.arange(count),
        query=jnp.arange(count),
        record=jnp.tile(jnp.arange(length), (count, 1)),
        row=jnp.asarray(row, jnp.int32),
        valid=jnp.asarray(valid),
        order=jnp.asarray(order, jnp.float32),
        posterior=even,
        posterior_read=even,
        reverse=jnp.zeros((count, length)),
        validity=jnp.ones((count, length)),
        reading=jnp.zeros((count, length)),
        ready=jnp.ones((count, length), bool),
        pending=jnp.zeros(count, bool),
        tokens=jnp.full((count, length), 10, jnp.int32),
        reward=jnp.asarray(reward, jnp.float32)[..., None],
        spread=jnp.zeros((count, length)),
        shares=jnp.full((count, 2), 0.5),
    )


@pytest.mark.parametrize(
    ("reward", "row", "best"),
    [
        ([-1.0, -2.0], [0, 0], 0.0),  # to stop at once
        ([1.0, -1.0], [0, 0], 0.99),  # to state the first and stop
        ([-1.0, 1.0], [0, 0], -0.01 + 0.9 * 0.99),  # to pass the first by
        ([1.0, 2.0], [0, 0], 0.99 + 0.9 * 1.99),
        ([-1.0, 0.5], [0, 1], -0.01 + 0.9 * (-0.11 + 0.9 * 0.49)),  # to look into the next row
        ([-1.0, 0.1], [0, 1], 0.0),  # which is not worth its price there
    ],
)
def test_the_optimum_of_a_hand_made_list(reward: list[float], row: list[int], best: float) -> None:
    found = optimum.optimum(CONFIG, lists(np.array([reward]), np.array([[1.0, 0.0]]), np.array([row])))
    np.testing.assert_allclose(found, [best], rtol=1e-5, atol=1e-7)


def test_a_list_without_candidates_is_worth_nothing() -> None:
    none = lists(np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2)), np.array([[False, False], [True, False]]))
    np.testing.assert_allclose(optimum.optimum(CONFIG, none), [0.0, 0.99], rtol=1e-5)


@jax.jit
def scripted(problem: environment.Problem, scripts: jax.Array) -> jax.Array:
    """Returns of one list under each script [n, T]; after a walk's end nothing is paid."""

    def one(script: jax.Array) -> jax.Array:
        def step(carry, action):
            state, weight = carry
            moved, reward, discount = environment.step(CONFIG, problem, state, action)
            live = ~environment.over(CONFIG, state)
            gain = jnp.where(live, weight * reward, 0.0)
            moved = jax.tree.map(lambda new, old: jnp.where(live, new, old), moved, state)
            return (moved, jnp.where(live, weight * discount, 0.0)), gain

        start = environment.reset(problem), jnp.ones(())
        return jnp.sum(jax.lax.scan(step, start, script)[1])

    return jax.vmap(one)(scripts)


def test_it_is_the_best_of_all_sequences_of_actions() -> None:
    """Three candidates in two rows: a walk is over after six steps, ended or cut."""
    rng = np.random.default_rng(0)
    count = 8
    row = np.tile([0, 0, 1], (count, 1))
    problem = lists(rng.normal(0.3, 0.6, (count, 3)), rng.normal(size=(count, 3)), row, rng.random((count, 3)) < 0.8)
    scripts = jnp.asarray(list(itertools.product(range(BINS.action_count), repeat=CONFIG.max_steps)), jnp.int32)
    found = optimum.optimum(CONFIG, problem)
    for number in range(count):
        single = jax.tree.map(lambda x, at=number: x[at], problem)
        np.testing.assert_allclose(found[number], float(jnp.max(scripted(single, scripts))), rtol=1e-5, atol=1e-6)


def test_no_policy_of_the_states_is_better_and_what_it_gains_is_its_walks() -> None:
    rng = np.random.default_rng(1)
    problem = lists(rng.normal(size=(16, 4)), rng.normal(size=(16, 4)), np.tile([0, 0, 1, 1], (16, 1)))
    best = optimum.optimum(CONFIG, problem)
    for seed in range(3):
        valid = np.asarray(states.valid_actions(BINS, jnp.arange(BINS.state_count)))
        choice = np.where(valid, np.random.default_rng(seed).random(valid.shape), -1).argmax(axis=1)
        assert np.all(np.asarray(optimum._returns(CONFIG, EDGES, problem, jnp.asarray(choice))) <= best + 1e-5)
    stop = jnp.full(BINS.state_count, BINS.action_count - 1)
    np.testing.assert_array_equal(optimum._returns(CONFIG, EDGES, problem, stop), np.zeros(16))


@pytest.mark.parametrize(("many", "few", "stated"), [(0.02, 0.005, 0.01), (0.005, 0.02, 0.0)])
def test_the_best_policy_of_the_states_states_what_pays_on_average(many: float, few: float, stated: float) -> None:
    """One candidate a list, all of one state: no policy can tell which of them pay, only whether most do."""
    reward = np.array([[many], [many], [many], [few]])  # a statement costs 0.01
    stop = np.full(BINS.state_count, BINS.action_count - 1)
    problem = lists(reward, np.ones((4, 1)), np.zeros((4, 1)))
    choice = jnp.asarray(optimum.best_of_states(CONFIG, EDGES, problem, stop))
    better = lists(np.array([[0.02]]), np.ones((1, 1)), np.zeros((1, 1)))
    np.testing.assert_allclose(optimum._returns(CONFIG, EDGES, better, choice), [stated], rtol=1e-4)


def test_the_best_policy_of_the_states_lies_between_its_start_and_the_optimum() -> None:
    rng = np.random.default_rng(2)
    problem = lists(rng.normal(0.2, 1, (16, 4)), rng.normal(size=(16, 4)), np.tile([0, 0, 1, 1], (16, 1)))
    start = np.full(BINS.state_count, BINS.action_count - 1)
    found, best = optimum.best_of_states(CONFIG, EDGES, problem, start), optimum.optimum(CONFIG, problem)
    before, after = (float(np.mean(optimum._returns(CONFIG, EDGES, problem, jnp.asarray(x)))) for x in (start, found))
    assert before + 0.01 < after <= float(np.mean(best)) + 1e-5
