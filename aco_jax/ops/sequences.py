"""Token sequences as arrays: joining and finding the end. Padding is 0 and stands on the right."""

from __future__ import annotations

from collections.abc import Sequence

import chex
import jax.numpy as jnp


def join(parts: Sequence[chex.Array]) -> chex.Array:
    """Concatenates token sequences [.., T_i] and moves all padding to the right: [.., sum T_i]."""
    chex.assert_equal_rank(parts)
    tokens = jnp.concatenate(parts, axis=-1)
    order = jnp.argsort(tokens == 0, axis=-1, stable=True)
    return jnp.take_along_axis(tokens, order, axis=-1)


def last_valid(tokens: chex.Array) -> chex.Array:
    """Index of the last token that is not padding, [.., T] -> [..]; 0 where there is none."""
    return jnp.maximum(jnp.sum(tokens != 0, axis=-1) - 1, 0)


def contained(tokens: chex.Array, source: chex.Array) -> chex.Array:
    """Which tokens [T] stand in source [S] too, [T] bool; padding never does."""
    chex.assert_rank([tokens, source], 1)
    return jnp.any(tokens[:, None] == source[None, :], axis=1) & (tokens != 0)


def counts(tokens: chex.Array, size: int) -> chex.Array:
    """How often each entry of a vocabulary of `size` stands in tokens [T], [V] int32; padding never does."""
    chex.assert_rank(tokens, 1)
    return jnp.zeros(size, jnp.int32).at[tokens].add(tokens != 0)
