"""Joining token sequences and finding their end, on hand-sized arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.ops import sequences


def test_join_moves_padding_right() -> None:
    joined = sequences.join([jnp.array([[5, 6, 0, 0]]), jnp.array([[9]]), jnp.array([[7, 0]])])
    np.testing.assert_array_equal(joined, [[5, 6, 9, 7, 0, 0, 0]])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=3))
def test_join_keeps_order_and_count(parts: list[list[int]]) -> None:
    joined = np.asarray(sequences.join([jnp.array([part]) for part in parts]))[0]
    tokens = [token for part in parts for token in part if token]
    assert joined.tolist() == tokens + [0] * (4 * len(parts) - len(tokens))


def test_last_valid() -> None:
    tokens = jnp.array([[3, 4, 0], [1, 2, 3], [0, 0, 0]])
    np.testing.assert_array_equal(jax.jit(sequences.last_valid)(tokens), [1, 2, 0])


def test_contained_never_counts_padding() -> None:
    found = sequences.contained(jnp.array([4, 0, 9]), jnp.array([9, 0, 1]))
    np.testing.assert_array_equal(found, [False, False, True])


def test_counts_never_count_padding() -> None:
    np.testing.assert_array_equal(sequences.counts(jnp.array([3, 0, 5, 3, 0]), 7), [0, 0, 0, 2, 0, 1, 0])
