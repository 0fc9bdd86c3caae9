"""Many random walks: valid actions, the states they reach, and what holds in every step."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import environment, exploration
from aco_jax.ops import states
from aco_jax.types import UNKNOWN


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
        pending=jnp.zeros(count, bool),
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
        decides = going and bool(visible)
        reads = decides and not state.revealed[b, visible[np.argmax(problems.order[b, visible])]]
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
