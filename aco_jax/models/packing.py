"""Several sequences in one row, or padding on any side: segment numbers say which tokens belong together.

Segments [B, T] int: tokens of one sequence stand side by side and have one number, padding has 0. A network that is
given them lets tokens see their own segment only, and counts positions anew in each: every sequence gets the values
that it has alone. Krell et al. 2021, Efficient Sequence Packing without Cross-contamination, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.models.config import PAD


class Segments(NamedTuple):
    """Of what a decoder reads, and of the source where there is one."""

    own: chex.Array  # [B, T] int
    source: chex.Array | None = None  # [B, S] int, a target's number that of its source


def segments_of(tokens: chex.Array, pad: int = PAD) -> chex.Array:
    """Segments of rows [B, T] that hold one sequence each, wherever their padding stands."""
    return (tokens != pad).astype(jnp.int32)


def places(segments: chex.Array) -> chex.Array:
    """Positions [B, T] within each segment, from 0."""
    chex.assert_rank(segments, 2)
    at = jnp.arange(segments.shape[1])[None]
    return at - jax.lax.cummax(jnp.where(begins(segments), at, 0), axis=1)


def begins(segments: chex.Array) -> chex.Array:
    """Where a segment begins, [B, T] bool."""
    return segments != jnp.pad(segments, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]


def together(segments: chex.Array, others: chex.Array) -> chex.Array:
    """Which tokens [B, T] and [B, S] are of one segment, [B, T, S] bool."""
    return segments[:, :, None] == others[:, None, :]


def before(tokens: chex.Array, steps: int, segments: chex.Array | None = None) -> chex.Array:
    """The token that stands `steps` before each token [B, T] in its segment; 0 where none does."""

    def moved(x: chex.Array) -> chex.Array:
        return jnp.pad(x, ((0, 0), (steps, 0)))[:, : x.shape[1]]

    return moved(tokens) if segments is None else jnp.where(moved(segments) == segments, moved(tokens), 0)


def pack(rows: Sequence[Sequence[int]], length: int, pad: int = PAD) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences into rows of `length`, each where it fits first, long ones before short ones.

    Returns:
      tokens [B, length] and segments [B, length] int32, and where each sequence stands, [n, 2]: row and first place.

    Raises:
      ValueError: a sequence is longer than a row.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise ValueError(f"a sequence of {longest} tokens, expected at most {length}")
    used: list[int] = []
    count: list[int] = []
    where = np.zeros((len(rows), 2), np.int32)
    number = np.zeros(len(rows), np.int32)
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        row = next((row for row, taken in enumerate(used) if taken + len(rows[i]) <= length), len(used))
        if row == len(used):
            used.append(0)
            count.append(0)
        count[row] += 1
        where[i], number[i] = (row, used[row]), count[row]
        used[row] += len(rows[i])
    tokens, segments = np.full((len(used), length), pad, np.int32), np.zeros((len(used), length), np.int32)
    for (row, first), ids, own in zip(where, rows, number, strict=True):
        tokens[row, first : first + len(ids)] = ids
        segments[row, first : first + len(ids)] = own
    return tokens, segments, where
