"""Walks by hand, one for each action; what ends a walk and what cuts it; what padding never changes."""

from __future__ import annotations

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import environment, exploration
from aco_jax.ops import states
from aco_jax.types import UNKNOWN

BINS = states.Config(relations=2, posterior=4, reading=3, reverse=2, reward=1)
CONFIG = environment.Config(
    BINS, max_steps=6, discount=0.9, step_cost=0.01, token_cost=0.001, rewrite_cost=0.1
)
SAME, OTHER, NONE, READ, REWRITE, STOP = range(6)
EDGES = states.first_edges(BINS)
step = jax.jit(partial(environment.step, CONFIG))
observe = jax.jit(partial(environment.observe, CONFIG, EDGES))


def problem(padding: int = 0) -> environment.Problem:
    """Places 0, 1 in row 0 and 2 in row 1, by order 1, 0, 2; then places that hold nothing."""
    posterior = np.array([[0.3, 0.1], [0.2, 0.9], [0.6, 0.1]])

    def padded(values: object, fill: float = 0.0) -> jax.Array:
        values = np.asarray(values)
        widths = [(0, padding)] + [(0, 0)] * (values.ndim - 1)
        return jnp.asarray(np.pad(values, widths, constant_values=values.dtype.type(fill)))

    return environment.Problem(
        anchor=jnp.int32(7),
        query=jnp.int32(70),
        record=padded(np.array([100, 101, 102], np.int32), 99),
        row=padded(np.array([0, 0, 1], np.int32), 1),
        valid=padded(np.array([True, True, True]), False),
        order=padded(np.array([0.5, 2.0, 9.0], np.float32), 99),
        posterior=padded(posterior.astype(np.float32), 0.99),
        posterior_read=padded((posterior / 2).astype(np.float32), 0.99),
        reverse=padded(np.array([1.0, -1.0, 0.5], np.float32), 9),
        validity=padded(np.ones(3, np.float32)),
        reading=padded(np.array([-2.0, 2.0, 0.0], np.float32), 9),
        ready=padded(np.ones(3, bool)),
        tokens=padded(np.array([10, 20, 30], np.int32), 999),
        reward=padded(np.array([[-1.0, -2.0], [0.5, 3.0], [1.5, -1.5]], np.float32), 99),
        spread=padded(np.zeros(3, np.float32)),
        shares=jnp.array([0.5, 0.1], jnp.float32),
    )


def random_problems(seed: int, count: int, rows: int = 3, width: int = 5) -> environment.Problem:
    """Problems of one relation in which few candidates are partners and readings tell more."""
    rng = np.random.default_rng(seed)
    size = (count, rows * width)
    logit = rng.normal(-1.0, 2.0, size)
    partner = rng.random(size) < 1 / (1 + np.exp(-logit))
    read = logit + np.where(partner, 2.0, -2.0) + rng.normal(size=size)
    each = {
        "order": logit + 0.3 * rng.normal(size=size),
        "posterior": 1 / (1 + np.exp(-logit))[..., None],
        "posterior_read": 1 / (1 + np.exp(-read))[..., None],
        "reverse": logit + rng.normal(size=size),
        "validity": rng.random(size),
        "reading": read - logit,
        "reward": (np.where(partner, 1.0, -1.0) + 0.5 * rng.normal(size=size))[..., None],
        "spread": rng.random(size),
        "shares": np.tile([0.5, 0.1], (count, 1)),
    }
    return environment.Problem(
        anchor=jnp.arange(count, dtype=jnp.int32),
        query=jnp.arange(count, dtype=jnp.int32),
        record=jnp.asarray(rng.integers(0, 1000, size), jnp.int32),
        row=jnp.asarray(np.tile(np.repeat(np.arange(rows), width), (count, 1)), jnp.int32),
        valid=jnp.asarray(rng.random(size) < 0.7),
        ready=jnp.ones(size, bool),
        tokens=jnp.full(size, 12, jnp.int32),
        **{name: jnp.asarray(value, jnp.float32) for name, value in each.items()},
    )


def uniform(config: environment.Config) -> environment.Policy:
    """Every valid action alike."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        valid = states.valid_actions(config.bins, state)
        mu = jax.vmap(exploration.behaviour, (0, 0, None))(jnp.ones(valid.shape), valid, 1.0)
        return jax.vmap(exploration.sample)(jax.random.split(key, len(state)), mu)

    return policy


def scripted(script: jax.Array) -> environment.Policy:
    """The action that stands in the script for a walk's step, by the key's own number."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(0), CONFIG.max_steps)
        now = jnp.argmax(jnp.all(jax.random.key_data(keys) == jax.random.key_data(key)[None], axis=1))
        return jnp.full(state.shape, script[now]), jnp.full(state.shape, 0.5)

    return policy


def batched(one: environment.Problem) -> environment.Problem:
    return jax.tree.map(lambda x: x[None], one)


@jax.jit
def walked(one: environment.Problem, script: jax.Array) -> environment.Episode:
    return environment.play(CONFIG, EDGES, batched(one), scripted(script), jax.random.key(0))


def play(script: list[int], one: environment.Problem | None = None) -> environment.Episode:
    script = script + [STOP] * (CONFIG.max_steps - len(script))
    return walked(problem() if one is None else one, jnp.asarray(script, jnp.int32))


def test_the_first_candidate_is_the_best_visible_one() -> None:
    one = problem()
    state = environment.reset(one)
    place, present = environment.current(one, state)
    # Place 2 has the best order of all, but stands in a hidden row.
    assert (int(place), bool(present)) == (1, True)
    seen = observe(one, state)
    raw = dict(zip(states.RAW, np.asarray(seen.raw), strict=True))
    assert raw["relation"] == 1
    assert raw["revealed"] == raw["reading"] == raw["taken"] == 0
    assert raw["rewrites"] == 1
    assert raw["reward"] == 3.0
    np.testing.assert_allclose(raw["posterior"], np.log(0.9 / 0.1), rtol=1e-5)
    np.testing.assert_allclose(raw["null_mass"], 0.7 * 0.1, rtol=1e-5)
    np.testing.assert_allclose(raw["several"], 0.1)


def test_stating_a_relation_pays_its_reward_and_moves_on() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), OTHER)
    np.testing.assert_allclose([reward, discount], [3.0 - 0.01, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [UNKNOWN, 2, UNKNOWN])
    assert int(environment.current(one, state)[0]) == 0
    assert observe(one, state).raw[states.RAW.index("taken")] == 1
    state, reward, _ = step(one, state, SAME)
    np.testing.assert_allclose(reward, -1.0 - 0.01, rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [1, 2, UNKNOWN])


def test_none_pays_only_the_step() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), NONE)
    np.testing.assert_allclose([reward, discount], [-0.01, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [UNKNOWN, 0, UNKNOWN])
    assert observe(one, state).raw[states.RAW.index("taken")] == 0


def test_read_reveals_stays_and_is_charged_once() -> None:
    one = problem()
    start = environment.reset(one)
    state, reward, discount = step(one, start, READ)
    np.testing.assert_allclose([reward, discount], [-0.01 - 0.001 * 20, 0.9], rtol=1e-6)
    assert int(environment.current(one, state)[0]) == 1
    assert int(state.tokens) == 20
    before, after = observe(one, start), observe(one, state)
    raw = dict(zip(states.RAW, np.asarray(after.raw), strict=True))
    assert (raw["revealed"], raw["reading"]) == (1.0, 2.0)
    np.testing.assert_allclose(raw["posterior"], np.log(0.45 / 0.55), rtol=1e-5)
    assert int(before.state) != int(after.state)
    assert bool(states.valid_actions(BINS, before.state)[READ])
    assert not bool(states.valid_actions(BINS, after.state)[READ])
    again, reward, _ = step(one, state, READ)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    assert int(again.tokens) == 20


def test_rewrite_shows_the_next_row_and_is_charged() -> None:
    one = problem()
    state, reward, _ = step(one, environment.reset(one), REWRITE)
    np.testing.assert_allclose(reward, -0.01 - 0.1, rtol=1e-6)
    assert int(environment.current(one, state)[0]) == 2
    assert not bool(states.valid_actions(BINS, observe(one, state).state)[REWRITE])
    again, reward, _ = step(one, state, REWRITE)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    assert int(again.shown) == 1


def test_with_nothing_at_hand_only_rewrite_and_stop_are_left() -> None:
    one = problem()
    state = environment.reset(one)
    for action in (NONE, OTHER):
        state, _, _ = step(one, state, action)
    assert not bool(state.ended)
    seen = observe(one, state)
    assert seen.factors[0] == states.EXHAUSTED
    np.testing.assert_array_equal(np.flatnonzero(states.valid_actions(BINS, seen.state)), [REWRITE, STOP])
    same, reward, _ = step(one, state, SAME)
    np.testing.assert_array_equal(same.decision, state.decision)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    shown, _, _ = step(one, state, REWRITE)
    ended, _, discount = step(one, shown, SAME)
    assert bool(ended.ended)
    assert float(discount) == 0.0
    assert int(observe(one, ended).state) == BINS.terminal


def test_stop_ends_free_of_charge() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), STOP)
    assert (float(reward), float(discount), bool(state.ended)) == (0.0, 0.0, True)
    np.testing.assert_array_equal(state.decision, [UNKNOWN] * 3)


def test_a_walk_records_what_happened() -> None:
    walk = play([READ, OTHER, REWRITE, SAME, STOP])
    steps = jax.tree.map(lambda x: np.asarray(x[0]), walk.transition)
    np.testing.assert_array_equal(walk.mask[0], [True] * 5 + [False])
    np.testing.assert_array_equal(steps.a_tm1[:5], [READ, OTHER, REWRITE, SAME, STOP])
    np.testing.assert_array_equal(steps.record, [101, 101, -1, 102, -1, -1])
    rewards = [-0.03, 2.99, -0.11, 1.49, 0.0, 0.0]
    np.testing.assert_allclose(steps.r_t, rewards, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(steps.discount_t, [0.9, 0.9, 0.9, 0.9, 0.0, 0.0])
    np.testing.assert_array_equal(steps.s_tm1[1:5], steps.s_t[:4])
    assert steps.s_t[4] == BINS.terminal
    np.testing.assert_array_equal(steps.anchor, [7] * 6)
    np.testing.assert_array_equal(steps.query, [70] * 6)
    np.testing.assert_array_equal(walk.final.decision[0], [UNKNOWN, 2, 1])
    assert (int(walk.final.tokens[0]), int(walk.final.steps[0])) == (20, 5)
    expected = sum(reward * 0.9**t for t, reward in enumerate(rewards))
    np.testing.assert_allclose(environment.returns(walk), [expected], rtol=1e-5)
    codes = jax.vmap(partial(states.number, BINS, EDGES))
    np.testing.assert_array_equal(codes(walk.raw_tm1[0]), steps.s_tm1)
    np.testing.assert_array_equal(codes(walk.raw_t[0]), steps.s_t)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    cut = play([READ, NONE, READ, NONE, REWRITE, READ])
    np.testing.assert_allclose(cut.transition.discount_t[0], np.full(6, 0.9))
    assert not bool(cut.final.ended[0])
    assert int(cut.transition.s_t[0, 5]) != BINS.terminal
    assert bool(environment.over(CONFIG, jax.tree.map(lambda x: x[0], cut.final)))
    # As long a walk, but nothing is left after it: ended, not truncated.
    ended = play([READ, NONE, READ, NONE, REWRITE, NONE])
    np.testing.assert_allclose(ended.transition.discount_t[0], [0.9] * 5 + [0.0])
    assert bool(ended.final.ended[0])
    assert int(ended.transition.s_t[0, 5]) == BINS.terminal


def test_an_anchor_without_candidates_takes_no_step() -> None:
    empty = dataclasses.replace(problem(), valid=jnp.zeros(3, bool))
    walk = play([SAME], empty)
    assert not np.any(walk.mask)
    np.testing.assert_array_equal(environment.returns(walk), [0.0])
    rewarded = environment.add_terminal_reward(walk, jnp.array([5.0]))
    chex.assert_trees_all_equal(rewarded, walk)
    chex.assert_tree_all_finite((walk.raw_tm1, walk.transition.r_t))


def test_the_last_step_gets_the_share() -> None:
    walk = play([NONE, SAME, STOP])
    after = environment.add_terminal_reward(walk, jnp.array([2.0]))
    np.testing.assert_allclose(
        after.transition.r_t - walk.transition.r_t, [[0.0, 0.0, 2.0, 0.0, 0.0, 0.0]], atol=1e-6
    )
    np.testing.assert_allclose(
        environment.returns(after) - environment.returns(walk), [2.0 * 0.9**2], rtol=1e-5
    )


def test_places_that_hold_nothing_change_nothing() -> None:
    script = [READ, OTHER, REWRITE, SAME, NONE]
    plain, padded = play(script), play(script, problem(padding=4))
    chex.assert_trees_all_equal(plain.transition, padded.transition)
    chex.assert_trees_all_equal((plain.raw_tm1, plain.mask), (padded.raw_tm1, padded.mask))
    np.testing.assert_array_equal(plain.final.decision, padded.final.decision[:, :3])
    assert np.all(np.asarray(padded.final.decision[:, 3:]) == UNKNOWN)


def test_a_hidden_reading_never_shows() -> None:
    one = problem()
    other = dataclasses.replace(
        one, reading=one.reading + 5.0, posterior_read=1.0 - one.posterior_read, tokens=one.tokens * 3
    )
    chex.assert_trees_all_equal(play([OTHER, REWRITE, SAME], one), play([OTHER, REWRITE, SAME], other))


def test_a_reading_that_is_not_there_is_waited_for() -> None:
    waiting = dataclasses.replace(problem(), ready=jnp.array([False, True, True]))
    first = play([NONE, READ, READ, READ, READ, READ], waiting)
    np.testing.assert_array_equal(first.mask[0], [True] + [False] * 5)
    stopped = jax.tree.map(lambda x: x[0], first.final)
    place, present = environment.current(waiting, stopped)
    assert (int(place), bool(present)) == (0, True)
    assert int(stopped.tokens) == 0
    script = scripted(jnp.array([READ, SAME, STOP, STOP, STOP, STOP]))
    then = environment.play(CONFIG, EDGES, batched(problem()), script, jax.random.key(0), first.final)
    whole = play([NONE, READ, SAME, STOP])
    chex.assert_trees_all_equal(then.final, whole.final)
    np.testing.assert_array_equal(then.transition.s_tm1[0, :3], whole.transition.s_tm1[0, 1:4])


def test_validity_from_the_state_number_is_validity_in_the_walk() -> None:
    config = environment.Config(states.config_for(1), max_steps=20)
    edges = states.first_edges(config.bins)
    problems = random_problems(0, 40)
    looked = jax.jit(jax.vmap(partial(environment.observe, config, edges)))
    moved = jax.jit(jax.vmap(partial(environment.step, config)))
    state = jax.vmap(environment.reset)(problems)
    rng = np.random.default_rng(1)
    for _ in range(12):
        valid = np.asarray(states.valid_actions(config.bins, looked(problems, state).state))
        np.testing.assert_array_equal(valid, expected_valid(problems, state))
        action = np.array([rng.choice(np.flatnonzero(row[:-1])) if row[:-1].any() else 4 for row in valid])
        state, _, _ = moved(problems, state, jnp.asarray(action))
    assert bool(jnp.any(state.ended))


def expected_valid(problems: environment.Problem, state: environment.EnvState) -> np.ndarray:
    """From the full state, in plain loops."""
    problems, state = jax.tree.map(np.asarray, (problems, state))
    rows = []
    for b in range(len(problems.anchor)):
        left = [
            place
            for place in range(problems.valid.shape[1])
            if problems.valid[b, place] and state.decision[b, place] == UNKNOWN
        ]
        visible = [place for place in left if problems.row[b, place] <= state.shown[b]]
        hidden_rows = any(
            problems.valid[b, place] and problems.row[b, place] > state.shown[b]
            for place in range(problems.valid.shape[1])
        )
        going = not state.ended[b]
        best = max(visible, key=lambda place, b=b: float(problems.order[b, place]), default=None)
        decides = going and best is not None
        reads = decides and not state.revealed[b, best]
        rows.append([decides, decides, reads, going and hidden_rows, True])
    return np.array(rows, bool)


@pytest.fixture(scope="module")
def warm() -> tuple[environment.Config, environment.Episode]:
    """Two rounds of a random walk: the first fits the edges, the second uses them."""
    config = environment.Config(states.config_for(1))
    problems = random_problems(2, 256)
    walk = jax.jit(partial(environment.play, config, policy=uniform(config)))
    first = walk(states.first_edges(config.bins), problems, key=jax.random.key(0))
    raw = first.raw_tm1.reshape(-1, len(states.RAW))
    edges = states.fit(config.bins, raw, first.mask.reshape(-1))
    return config, walk(edges, problems, key=jax.random.key(1))


def test_hundreds_of_states_are_reached(warm: tuple[environment.Config, environment.Episode]) -> None:
    config, walk = warm
    visited = np.unique(np.asarray(walk.transition.s_tm1)[np.asarray(walk.mask)])
    assert len(visited) >= 200
    assert visited.max() < config.bins.terminal


def test_random_walks_keep_the_invariants(warm: tuple[environment.Config, environment.Episode]) -> None:
    config, walk = warm
    mask, steps = np.asarray(walk.mask), walk.transition
    assert np.all(mask[:, :-1] >= mask[:, 1:])
    valid = np.asarray(states.valid_actions(config.bins, steps.s_tm1))
    taken = np.take_along_axis(valid, np.asarray(steps.a_tm1)[..., None], axis=-1)[..., 0]
    assert np.all(taken[mask])
    np.testing.assert_allclose(np.asarray(steps.mu_tm1)[mask], 1 / valid.sum(axis=-1)[mask], rtol=1e-6)
    ended = np.asarray(steps.s_t) == config.bins.terminal
    np.testing.assert_array_equal((np.asarray(steps.discount_t) == 0)[mask], ended[mask])
    assert np.all(np.asarray(steps.r_t)[~mask] == 0)
    np.testing.assert_array_equal(mask.sum(axis=1), walk.final.steps)
    read = (np.asarray(steps.a_tm1) == config.actions[1]) & mask
    np.testing.assert_array_equal(12 * read.sum(axis=1), walk.final.tokens)


def test_a_shift_of_null_lowers_all_odds() -> None:
    one = problem()
    shifted = environment.shift_null(one, jnp.float32(0.7))
    odds = shifted.posterior / (1 - shifted.posterior)
    expected = one.posterior / (1 - one.posterior) * np.exp(-0.7)
    np.testing.assert_allclose(odds, expected, rtol=1e-4)
    chex.assert_trees_all_close(environment.shift_null(shifted, jnp.float32(-0.7)), one, rtol=1e-4)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="max_steps of at least 1"):
        environment.Config(BINS, max_steps=0)
