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


def vocabulary_mask(source: chex.Array, vocab_size: int, always: Sequence[int]) -> chex.Array:
    """Which vocabulary entries [V] stand in source [S] or in `always`; padding only if listed."""
    chex.assert_rank(source, 1)
    mask = jnp.zeros(vocab_size, bool).at[source].set(True).at[0].set(False)
    return mask.at[jnp.asarray(always, jnp.int32)].set(True)
