"""From what is measured to a state that can be counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp


def fit_edges(values: chex.Array, mask: chex.Array, bins: int, boundary: chex.Numeric | None = None) -> jax.Array:
    """Edges that put equally many values in each bin, one of them moved onto `boundary`.

    Args:
      values: [N].
      mask: [N] bool.
      bins: int >= 1 (>= 2 with a boundary).
      boundary: a value that a bin must not straddle, a decision threshold for instance.

    Returns:
      [bins - 1] increasing, equal where values repeat; 0 where no value is valid.
    """
    chex.assert_rank([values, mask], 1)
    count = jnp.count_nonzero(mask)
    ordered = jnp.append(jnp.sort(jnp.where(mask, values, jnp.inf)), jnp.inf)
    position = jnp.arange(1, bins) * (jnp.maximum(count - 1, 0) / bins)
    below = jnp.floor(position).astype(jnp.int32)
    low, high = ordered[below], ordered[jnp.minimum(below + 1, jnp.maximum(count - 1, 0))]
    edges = jnp.where(count > 0, low + (position - below) * (high - low), 0.0)
    if boundary is None:
        return edges
    return jnp.sort(edges.at[jnp.argmin(jnp.abs(edges - boundary))].set(boundary))


def digitize(x: chex.Array, edges: chex.Array) -> jax.Array:
    """Bin of x: the number of edges that are <= x.

    Args:
      x: any shape.
      edges: [E] increasing.

    Returns:
      int32 in [0, E], the shape of x.
    """
    chex.assert_rank(edges, 1)
    # All comparisons at once: there are a handful of edges, and a search would be a loop.
    x = jnp.asarray(x)[..., None]
    return jnp.sum(x >= jnp.broadcast_to(edges, (*x.shape[:-1], edges.size)), axis=-1, dtype=jnp.int32)


def encode(factors: chex.Array, sizes: Sequence[int]) -> jax.Array:
    """State number of a tuple of bins, the last factor running fastest.

    Args:
      factors: [n] int32, factor i in [0, sizes[i]).
      sizes: n ints.

    Returns:
      int32 in [0, product of sizes).
    """
    chex.assert_shape(factors, (len(sizes),))
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return jnp.sum(factors * jnp.array(strides, jnp.int32), dtype=jnp.int32)


def decode(state: chex.Array, sizes: Sequence[int]) -> jax.Array:
    """The bins of a state number: the inverse of encode.

    Args:
      state: int32 scalar.
      sizes: n ints.

    Returns:
      [n] int32.
    """
    chex.assert_rank(state, 0)
    return jnp.stack(jnp.unravel_index(state, tuple(sizes))).astype(jnp.int32)
