"""Counts against a NumPy loop, and the smoothed model against its formula."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import transitions

S, A = 6, 3


def walked(seed: int, steps: int = 40) -> tuple[transitions.State, np.ndarray]:
    rng = np.random.default_rng(seed)
    s, a, t = rng.integers(0, S - 1, steps), rng.integers(0, A - 1, steps), rng.integers(0, S, steps)
    mask = rng.random(steps) < 0.8
    state = jax.jit(transitions.observe)(transitions.init(S, A), *map(jnp.asarray, (s, a, t, mask)))
    counts = np.zeros((S, A, S), np.int64)
    for i in range(steps):
        if mask[i]:
            counts[s[i], a[i], t[i]] += 1
    return state, counts


def test_counts_are_those_of_a_loop() -> None:
    state, counts = walked(0)
    np.testing.assert_array_equal(state.increment, counts)
    np.testing.assert_array_equal(transitions.counts(state), counts.sum(axis=-1))
    assert state.increment.dtype == jnp.int32


@pytest.mark.parametrize("smoothing", [0.1, 1.0, 7.0])
def test_probabilities_are_the_dirichlet_mean(smoothing: float) -> None:
    state, counts = walked(1)
    s, a = np.meshgrid(np.arange(S), np.arange(A), indexing="ij")
    p = transitions.probabilities(state, jnp.asarray(s), jnp.asarray(a), smoothing)
    expected = (counts + smoothing / S) / (counts.sum(axis=-1, keepdims=True) + smoothing)
    np.testing.assert_allclose(p, expected, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(p, axis=-1), np.ones((S, A)), rtol=1e-6)


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_by_a_schedule_the_mass_of_a_row_falls_with_what_was_seen_of_it(decay: float) -> None:
    state, counts = walked(6)
    s, a = np.meshgrid(np.arange(S), np.arange(A), indexing="ij")
    found = transitions.probabilities(state, jnp.asarray(s), jnp.asarray(a), 2.0, decay)
    p = np.zeros((S, A, S))
    for row in np.ndindex(S, A):
        mass = 2.0 / (1 + counts[row].sum()) ** decay
        p[row] = (counts[row] + mass / S) / (counts[row].sum() + mass)
    np.testing.assert_allclose(found, p, rtol=1e-5)
    v = np.random.default_rng(1).normal(size=S)
    expected = transitions.expected_value(state, jnp.asarray(s), jnp.asarray(a), jnp.asarray(v), 2.0, decay)
    np.testing.assert_allclose(expected, p @ v, rtol=1e-4, atol=1e-5)
    entropy = np.where(counts.sum(axis=-1) > 0, -(p * np.log(p)).sum(axis=-1) / np.log(S), 1.0)
    np.testing.assert_allclose(transitions.row_entropy(state, 2.0, decay), entropy, rtol=1e-4)
    np.testing.assert_allclose(found[S - 1, 0], np.full(S, 1 / S))  # of an unseen row all of it is there


def test_an_unseen_row_is_uniform_and_the_mass_of_smoothing_is_shared() -> None:
    state = transitions.observe(
        transitions.init(4, 2), jnp.array([0]), jnp.array([1]), jnp.array([2]), jnp.array([True])
    )
    np.testing.assert_allclose(transitions.probabilities(state, jnp.array(3), jnp.array(0)), np.full(4, 0.25))
    # One sighting against a prior mass of 1 shared by 4 states: (1 + 1/4) / (1 + 1).
    np.testing.assert_allclose(
        transitions.probabilities(state, jnp.array(0), jnp.array(1)), [0.125, 0.125, 0.625, 0.125]
    )


def test_expected_value_is_the_model_times_the_values() -> None:
    state, _ = walked(2)
    v = jnp.asarray(np.random.default_rng(3).normal(size=S), jnp.float32)
    s, a = jnp.array([0, 2, 5]), jnp.array([1, 0, 2])
    expected = np.asarray(transitions.probabilities(state, s, a, 2.0)) @ np.asarray(v)
    np.testing.assert_allclose(transitions.expected_value(state, s, a, v, 2.0), expected, rtol=1e-5)


def test_row_entropy_is_normalised_and_1_where_nothing_was_seen() -> None:
    state, counts = walked(4)
    p = (counts + 1 / S) / (counts.sum(axis=-1, keepdims=True) + 1)
    expected = np.where(counts.sum(axis=-1) > 0, -(p * np.log(p)).sum(axis=-1) / np.log(S), 1.0)
    entropy = jax.jit(transitions.row_entropy)(state)
    np.testing.assert_allclose(entropy, expected, rtol=1e-5)
    assert np.all(np.asarray(entropy)[S - 1] == 1.0)
    often = transitions.State(merged=state.merged.at[0, 0, 1].set(10**7), increment=state.increment)
    assert float(transitions.row_entropy(often)[0, 0]) < 1e-3


def test_rows_in_chunks_equal_rows_at_once() -> None:
    states = 2 * transitions._ROWS_AT_ONCE + 3
    rng = np.random.default_rng(5)
    merged = jnp.asarray(rng.poisson(0.3, (states, 2, states)), jnp.int32)
    state = transitions.State(merged=merged, increment=jnp.zeros_like(merged))
    s, a = jnp.arange(states)[:, None] + jnp.zeros((1, 2), jnp.int32), jnp.zeros((states, 1), jnp.int32)
    p = transitions.probabilities(state, s, a + jnp.arange(2)[None])
    expected = -jnp.sum(p * jnp.log(p), axis=-1) / np.log(states)
    np.testing.assert_allclose(
        transitions.row_entropy(state), jnp.where(jnp.sum(merged, -1) > 0, expected, 1.0), rtol=1e-5
    )


def test_merged_replicas_count_each_sighting_once() -> None:
    pair = [walked(seed) for seed in (6, 7)]
    replicas = jax.tree.map(lambda *leaf: jnp.stack(leaf), *(state for state, _ in pair))

    def merge(state: transitions.State) -> transitions.State:
        return transitions.merge(state, jax.lax.psum(state.increment, "replica"))

    merged = jax.vmap(merge, axis_name="replica")(replicas)
    again = jax.vmap(merge, axis_name="replica")(merged)
    total = pair[0][1] + pair[1][1]
    for state in (merged, again):
        np.testing.assert_array_equal(state.merged, np.stack([total, total]))
        assert not np.any(state.increment)


def test_counts_of_both_kinds_make_the_model() -> None:
    state, counts = walked(8)
    other = transitions.merge(state, state.increment)
    chex.assert_trees_all_equal(transitions.counts(other), transitions.counts(state))
    twice = transitions.observe(
        other, jnp.array([0, 0]), jnp.array([0, 0]), jnp.array([1, 1]), jnp.array([True, False])
    )
    counts[0, 0, 1] += 1
    np.testing.assert_array_equal(transitions.counts(twice), counts.sum(axis=-1))
    np.testing.assert_array_equal(transitions.successors(twice), counts.sum(axis=1) > 0)


def test_reachable_pairs_are_the_valid_actions_of_visited_states() -> None:
    state, counts = walked(9)
    valid = np.random.default_rng(10).random((S, A)) < 0.5
    visited = counts.sum(axis=(1, 2)) > 0
    np.testing.assert_array_equal(transitions.visited(state), visited)
    np.testing.assert_array_equal(transitions.reachable(state, jnp.asarray(valid)), visited[:, None] & valid)
    assert not visited[S - 1]
