"""The replay against a float64 oracle, the chi-square of its draws, what must never happen to a sum tree."""

from __future__ import annotations

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aco_jax import replay
from aco_jax.kernels import sum_tree
from aco_jax.types import Transition

EXPONENT, OFFSET = 0.6, 1e-3
add = jax.jit(replay.add)
set_priorities = jax.jit(replay.set_priorities)
sample = jax.jit(replay.sample, static_argnums=2)


@partial(jax.jit, static_argnums=2)
def sample_often(
    state: replay.State, keys: jax.Array, batch: int, importance_exponent: float
) -> tuple[jax.Array, jax.Array]:
    """Indices and weights of one draw of a batch for each key."""
    return jax.vmap(lambda key: replay.sample(state, key, batch, importance_exponent)[1:])(keys)


exchange = jax.jit(jax.vmap(partial(replay.exchange, axis_name="replica"), axis_name="replica"))


def items(number: np.ndarray) -> tuple[Transition, jax.Array, jax.Array]:
    """Transitions that carry their number in every field, with raw observations to match."""
    whole = jnp.asarray(number, jnp.int32)
    real = whole.astype(jnp.float32)
    transition = Transition(
        s_tm1=whole,
        a_tm1=whole,
        r_t=real,
        discount_t=real,
        s_t=whole + 1,
        mu_tm1=real,
        anchor=whole,
        record=whole,
        query=whole,
    )
    return transition, jnp.stack([real, -real], axis=1), jnp.stack([real + 1, -real], axis=1)


def filled(capacity: int, count: int, exponent: float = EXPONENT) -> replay.State:
    state = replay.init(capacity, 2, exponent, OFFSET)
    return add(state, *items(np.arange(count)), jnp.ones(count, bool))


def leaves(state: replay.State) -> np.ndarray:
    return np.asarray(state.tree[state.tree.shape[0] // 2 :])


def assert_sums(state: replay.State) -> None:
    """Every node is the float32 sum of its two children, and the root the float64 sum of the leaves."""
    tree = np.asarray(state.tree)
    half = tree.shape[0] // 2
    for node in range(1, half):
        assert tree[node] == np.float32(tree[2 * node] + tree[2 * node + 1])
    np.testing.assert_allclose(tree[1], np.sum(leaves(state).astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize("capacity", [1, 5, 8])
def test_random_operations_agree_with_a_float64_oracle(capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    state = replay.init(capacity, 2, EXPONENT, OFFSET)
    slots: list[int | None] = [None] * capacity
    priority, position = np.zeros(capacity), 0
    width, number = min(4, capacity), 0
    for _ in range(25):
        mask = rng.random(width) < 0.7
        highest = priority.max() if any(s is not None for s in slots) else 1.0
        state = add(state, *items(number + np.arange(width)), jnp.asarray(mask))
        for offset in np.flatnonzero(mask):
            slots[position], priority[position] = number + int(offset), highest
            position = (position + 1) % capacity
        number += width
        indices = rng.integers(0, capacity, 6)
        error = rng.normal(size=6) * 10.0 ** rng.integers(-3, 3, 6)
        kept = rng.random(6) < 0.8
        state = set_priorities(state, jnp.asarray(indices), jnp.asarray(error, jnp.float32), jnp.asarray(kept))
        for slot in set(indices[kept]):
            if slots[slot] is not None:
                error_of_slot = np.abs(error[kept & (indices == slot)]).max()
                priority[slot] = (error_of_slot + OFFSET) ** EXPONENT
        np.testing.assert_allclose(leaves(state)[:capacity], priority, rtol=1e-5)
        assert_sums(state)
        assert int(state.size) == sum(s is not None for s in slots)
        assert int(state.position) == position
        held = [s is not None for s in slots]
        np.testing.assert_array_equal(np.asarray(state.items.query)[held], [s for s in slots if s is not None])
    assert np.all(leaves(state)[capacity:] == 0)


def test_what_is_stored_comes_back_whole() -> None:
    state = filled(capacity=6, count=4)
    drawn, indices, _ = sample(state, jax.random.key(0), 32, 0.5)
    expected, _, _ = items(np.asarray(indices))
    chex.assert_trees_all_equal(drawn, expected)
    assert set(np.asarray(indices)) == {0, 1, 2, 3}


def test_masked_items_are_not_stored_and_leave_no_gap() -> None:
    state = replay.init(6, 2, EXPONENT, OFFSET)
    state = add(state, *items(np.array([10, 11, 12])), jnp.array([False, True, True]))
    state = add(state, *items(np.array([20, 21, 22])), jnp.array([True, False, True]))
    np.testing.assert_array_equal(state.items.query[:4], [11, 12, 20, 22])
    np.testing.assert_array_equal(state.raw_tm1[:4, 0], [11.0, 12.0, 20.0, 22.0])
    assert int(state.size) == 4
    untouched = add(state, *items(np.arange(3)), jnp.zeros(3, bool))
    chex.assert_trees_all_equal(untouched, state)


def test_the_oldest_is_overwritten_first_and_enters_at_the_maximum() -> None:
    state = filled(capacity=3, count=3)
    state = set_priorities(state, jnp.arange(3), jnp.array([0.1, 4.0, 0.2]), jnp.ones(3, bool))
    state = add(state, *items(np.array([9])), jnp.ones(1, bool))
    np.testing.assert_array_equal(state.items.query, [9, 1, 2])
    assert leaves(state)[0] == leaves(state)[1]
    assert int(state.size) == 3


def test_draws_are_proportional_to_the_priorities() -> None:
    error = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 9.0, 0.02])
    state = set_priorities(filled(11, 7), jnp.arange(7), jnp.asarray(error, jnp.float32), jnp.ones(7, bool))
    mass = (np.abs(error) + OFFSET) ** EXPONENT
    # One draw from each of many strata is far from independent draws, so draws are taken one at a time.
    keys = jax.random.split(jax.random.key(1), 20_000)
    indices, _ = sample_often(state, keys, 1, 0.5)
    observed = np.bincount(np.asarray(indices)[:, 0], minlength=7)
    assert stats.chisquare(observed, mass / mass.sum() * len(keys)).pvalue > 1e-3


def test_strata_bound_how_often_an_item_is_drawn() -> None:
    error = np.array([1.0, 2.0, 5.0, 0.1])
    state = set_priorities(filled(6, 4), jnp.arange(4), jnp.asarray(error, jnp.float32), jnp.ones(4, bool))
    mass = (error + OFFSET) ** EXPONENT
    _, indices, _ = sample(state, jax.random.key(2), 200, 0.5)
    observed = np.bincount(np.asarray(indices), minlength=4)
    assert np.all(np.abs(observed - 200 * mass / mass.sum()) <= 2)


def test_an_item_without_priority_is_never_drawn() -> None:
    state = filled(capacity=100, count=3)
    tiny = set_priorities(state, jnp.arange(3), jnp.array([0.0, 1e-9, 1e6]), jnp.ones(3, bool))
    keys = jax.random.split(jax.random.key(3), 200)
    for current in (state, tiny):
        indices, _ = sample_often(current, keys, 64, 0.5)
        assert int(jnp.max(indices)) < 3
    # Even a mass beyond the root, where rounding points, ends at an item that is there.
    beyond = sum_tree.descend(tiny.tree, jnp.array([0.0, 1.0, 1.5]) * tiny.tree[1], jnp.zeros(3))
    assert np.all(leaves(tiny)[np.asarray(beyond)] > 0)


def test_items_rarer_than_a_float32_draw_is_fine_are_all_reached() -> None:
    """One item has 99% of the mass; the others' shares, 2^-23.7 each, lie between two values of a float32 draw."""
    capacity = 1 << 17
    error = np.full(capacity, 0.01 / capacity)
    error[0] = 0.99
    state = filled(capacity, capacity, exponent=1.0)
    state = dataclasses.replace(state, offset=0.0)
    state = set_priorities(state, jnp.arange(capacity), jnp.asarray(error, jnp.float32), jnp.ones(capacity, bool))
    mass = np.repeat(np.arange(int(0.99 * 2**23), 2**23) / 2**23, 16).astype(np.float32)
    fine = jax.random.uniform(jax.random.key(10), (len(mass),))
    drawn = jax.jit(sum_tree.descend)(state.tree, jnp.asarray(mass) * state.tree[1], fine)
    assert len(np.unique(drawn)) > 0.99 * capacity


def test_after_the_priorities_have_shrunk_all_items_stay_reachable() -> None:
    capacity = 37
    state = filled(capacity, capacity)
    everything, ones = jnp.arange(capacity), jnp.ones(capacity, bool)
    for scale in (1e6, 1e3, 1.0, 1e-3):
        for start in range(0, capacity, 5):
            some = (everything[:5] + start) % capacity
            state = set_priorities(state, some, jnp.full(5, scale), ones[:5])
        assert_sums(state)
    _, indices, _ = sample(state, jax.random.key(4), 4 * capacity, 0.5)
    assert set(np.asarray(indices)) == set(range(capacity))


def test_of_an_item_drawn_twice_the_greater_error_counts() -> None:
    state = filled(6, 4)
    after = set_priorities(
        state, jnp.array([2, 0, 2, 2]), jnp.array([1.0, 0.5, -3.0, 9.0]), jnp.array([True, True, True, False])
    )
    np.testing.assert_allclose(
        leaves(after)[:3], [(0.5 + OFFSET) ** EXPONENT, 1.0, (3.0 + OFFSET) ** EXPONENT], rtol=1e-6
    )
    assert_sums(after)


def test_an_error_that_is_no_number_leaves_the_tree_whole() -> None:
    state = filled(6, 2)
    after = set_priorities(state, jnp.arange(4), jnp.array([jnp.nan, jnp.inf, 1.0, 1.0]), jnp.arange(4) != 2)
    chex.assert_trees_all_equal(after, state)


def test_importance_weights_are_the_papers() -> None:
    error = np.array([0.3, 2.0, 0.7, 1.1, 0.05])
    state = set_priorities(filled(6, 5), jnp.arange(5), jnp.asarray(error, jnp.float32), jnp.ones(5, bool))
    p = (error + OFFSET) ** EXPONENT
    p /= p.sum()
    weights = (5 * p) ** -0.4
    _, indices, actual = sample(state, jax.random.key(5), 16, 0.4)
    np.testing.assert_allclose(actual, (weights / weights.max())[np.asarray(indices)], rtol=1e-5)
    _, _, flat = sample(filled(6, 5), jax.random.key(5), 16, 0.4)
    np.testing.assert_array_equal(flat, np.ones(16))


def test_ranked_draws_and_weights_are_the_papers() -> None:
    error = np.array([0.3, 2.0, 0.7, 1e9, 0.05])
    state = replay.init(6, 2, EXPONENT, OFFSET, ranked=True)
    state = add(state, *items(np.arange(5)), jnp.ones(5, bool))
    state = set_priorities(state, jnp.arange(5), jnp.asarray(error, jnp.float32), jnp.ones(5, bool))
    p = np.array([4.0, 2.0, 3.0, 1.0, 5.0]) ** -EXPONENT
    p /= p.sum()
    _, indices, actual = sample(state, jax.random.key(5), 500, 0.4)
    assert np.all(np.abs(np.bincount(np.asarray(indices), minlength=6) - 500 * np.append(p, 0.0)) <= 2)
    weights = (5 * p) ** -0.4
    np.testing.assert_allclose(actual, (weights / weights.max())[np.asarray(indices)], rtol=1e-5)
    np.testing.assert_allclose(leaves(state)[:5], error + OFFSET, rtol=1e-6)


def test_the_largest_error_leaves_the_sums_finite() -> None:
    state = set_priorities(filled(6, 4, exponent=1.0), jnp.arange(4), jnp.full(4, 3e38), jnp.ones(4, bool))
    assert np.isfinite(state.tree[1])
    assert_sums(state)


def test_fully_corrected_means_are_unbiased() -> None:
    error = np.array([0.3, 2.0, 0.7, 1.1, 0.05, 6.0])
    value = np.array([1.0, -2.0, 4.0, 0.5, 3.0, -1.0])
    state = set_priorities(filled(6, 6), jnp.arange(6), jnp.asarray(error, jnp.float32), jnp.ones(6, bool))
    keys = jax.random.split(jax.random.key(6), 500)
    indices, weights = map(np.asarray, sample_often(state, keys, 32, 1.0))
    corrected = np.mean(weights * value[indices]) / np.mean(weights)
    assert abs(corrected - value.mean()) < 0.05
    assert abs(np.mean(value[indices]) - value.mean()) > 0.5


def test_shards_weigh_an_item_as_one_replay_would() -> None:
    errors = [np.array([0.3, 2.0, 0.7]), np.array([5.0, 0.1, 1.0])]
    shards = [
        set_priorities(filled(6, 3), jnp.arange(3), jnp.asarray(e, jnp.float32), jnp.ones(3, bool)) for e in errors
    ]
    stacked = jax.tree.map(lambda *leaf: jnp.stack(leaf), *shards)
    known = exchange(stacked)
    keys = jax.random.split(jax.random.key(7))
    draw = jax.jit(jax.vmap(lambda s, k, g: replay.sample(s, k, 8, 0.7, g)))
    _, indices, weights = draw(stacked, keys, known)
    mass = [(e + OFFSET) ** EXPONENT for e in errors]
    p = np.stack([m / (2 * m.sum()) for m in mass])
    expected = (6 * p) ** -0.7
    expected /= expected.max()
    for shard in range(2):
        np.testing.assert_allclose(weights[shard], expected[shard][np.asarray(indices[shard])], rtol=1e-5)


def test_an_empty_replay_draws_nothing_that_counts() -> None:
    state = replay.init(6, 2, EXPONENT, OFFSET)
    drawn, indices, weights = sample(state, jax.random.key(8), 4, 0.5)
    np.testing.assert_array_equal(weights, np.zeros(4))
    assert np.all((np.asarray(indices) >= 0) & (np.asarray(indices) < 6))
    chex.assert_tree_all_finite(drawn)
    after = set_priorities(state, indices, jnp.ones(4), jnp.ones(4, bool))
    chex.assert_trees_all_equal(after, state)
    both = jax.tree.map(lambda *leaf: jnp.stack(leaf), filled(6, 2), state)
    np.testing.assert_allclose(exchange(both).least, [0.25, 0.25])


def test_recoding_uses_the_raw_observations() -> None:
    state = filled(6, 3)
    after = replay.recode(state, lambda raw: (10 * raw[..., 0]).astype(jnp.int32))
    np.testing.assert_array_equal(after.items.s_tm1[:3], [0, 10, 20])
    np.testing.assert_array_equal(after.items.s_t[:3], [10, 20, 30])
    np.testing.assert_array_equal(after.tree, state.tree)


def test_the_state_may_be_donated_and_is_not_retraced() -> None:
    chex.clear_trace_counter()
    donated = jax.jit(chex.assert_max_traces(replay.add, 1), donate_argnums=0)
    state = replay.init(6, 2)
    for number in range(4):
        state = donated(state, *items(np.arange(2) + 2 * number), jnp.ones(2, bool))
    np.testing.assert_array_equal(state.items.query, [6, 7, 2, 3, 4, 5])


def test_jit_and_no_jit_agree() -> None:
    state = filled(6, 4)
    arguments = jnp.array([1, 1]), jnp.array([2.0, 0.3]), jnp.ones(2, bool)
    plain, traced = replay.set_priorities(state, *arguments), set_priorities(state, *arguments)
    chex.assert_trees_all_close(plain, traced, rtol=1e-6)
    key = jax.random.key(9)
    chex.assert_trees_all_close(replay.sample(plain, key, 6, 0.5), sample(traced, key, 6, 0.5), rtol=1e-5)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity 0 >= 1"):
        replay.init(0, 2)
    with pytest.raises(ValueError, match="4 items do not fit into a replay of 3 slots"):
        filled(3, 4)


def walks(lengths: list[int]) -> tuple[Transition, np.ndarray]:
    """Walks of these many steps one after another, and of each step its place in its walk; every other one ends."""
    query = np.repeat(np.arange(len(lengths)), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    last = place == np.repeat(lengths, lengths) - 1
    discount = np.where(last & (query % 2 == 0), 0.0, 0.9)  # the others are cut
    steps, _, _ = items(np.arange(len(query)))
    return dataclasses.replace(steps, query=jnp.asarray(query), discount_t=jnp.asarray(discount, jnp.float32)), place


@pytest.mark.parametrize("capacity", [9, 13, 32])
def test_what_follows_is_of_the_same_walk_and_held(capacity: int) -> None:
    """Against a loop over the steps in their order, in a ring that is not full, just full, and written over."""
    lengths = [3, 1, 4, 2, 5, 1]
    steps, place = walks(lengths)
    count, state = len(place), replay.init(capacity, 2)
    for start in range(0, count, 4):  # in parts, so that a walk is written in several
        part = jax.tree.map(lambda x, a=start: x[a : a + 4], steps)
        number = np.arange(count)[start : start + 4]
        state = add(state, part, *items(number)[1:], jnp.ones(len(number), bool))
    first = max(0, count - capacity)
    numbers = np.arange(first, count)
    slots = np.argsort(np.asarray(state.items.s_tm1)[: min(count, capacity)])  # s_tm1 is the number
    found, mask = jax.jit(replay.following, static_argnums=2)(state, jnp.asarray(slots), 3)
    for row, number in enumerate(numbers):
        walk = int(steps.query[number])
        left = [number + ahead for ahead in range(3) if place[number] + ahead < lengths[walk]]
        np.testing.assert_array_equal(np.asarray(found.s_tm1[row])[np.asarray(mask[row])], left)
        assert np.all(np.diff(np.asarray(mask[row]).astype(int)) <= 0)


def test_empty_slots_follow_nothing() -> None:
    """They carry the number of the first walk."""
    steps = jax.tree.map(lambda x: x[:1], walks([1, 1])[0])
    cut = dataclasses.replace(steps, discount_t=jnp.array([0.9]))
    state = add(replay.init(4, 2), cut, *items(np.arange(1))[1:], jnp.ones(1, bool))
    np.testing.assert_array_equal(replay.following(state, jnp.array([0]), 3)[1], [[True, False, False]])
