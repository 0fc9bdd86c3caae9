"""Whether a score goes by what should not matter: how a change moves it, and how it goes with a length."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import masked_mean, masked_sum

_NORMAL = 1.96  # the 97.5% quantile of the normal distribution
_LEAST_SQUARE = 1e-12  # a mean square below it is no spread
_MOST_CORRELATED = 1.0 - 1e-6  # the Fisher transform of 1 is infinite


def paired_change(before: chex.Array, after: chex.Array, mask: chex.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean of after - before, half of its 95% interval (normal distribution), and the mean of |after - before|.

    Student 1908, The Probable Error of a Mean: the interval of paired differences.

    Args:
      before: [N].
      after: [N].
      mask: [N] bool; of fewer than two valid pairs nothing is known, and the interval is infinite.
    """
    chex.assert_rank([before, after, mask], 1)
    change, count = after - before, jnp.count_nonzero(mask)
    mean = masked_mean(change, mask)
    variance = masked_sum(jnp.square(change - mean), mask) / jnp.maximum(count - 1, 1)
    half = jnp.where(count > 1, _NORMAL * jnp.sqrt(variance / jnp.maximum(count, 1)), jnp.inf)
    return mean, half, masked_mean(jnp.abs(change), mask)


def centred(x: chex.Array, mask: chex.Array) -> jax.Array:
    """x less the mean of its group's valid entries; 0 at the others.

    Args:
      x: [K], one group.
      mask: [K] bool.
    """
    chex.assert_rank([x, mask], 1)
    return jnp.where(mask, x - masked_mean(x, mask), 0.0)


def correlation(x: chex.Array, y: chex.Array, mask: chex.Array) -> jax.Array:
    """Correlation over valid entries, 0 where x or y has no spread. Pearson 1896.

    Args:
      x: [N].
      y: [N].
      mask: [N] bool.
    """
    chex.assert_rank([x, y, mask], 1)
    x, y = centred(x, mask), centred(y, mask)
    squares = masked_mean(jnp.square(x), mask), masked_mean(jnp.square(y), mask)
    both = jnp.sqrt(squares[0]) * jnp.sqrt(squares[1])
    known = (squares[0] > _LEAST_SQUARE) & (squares[1] > _LEAST_SQUARE)
    return jnp.where(known, masked_mean(x * y, mask) / jnp.where(known, both, 1.0), 0.0)


def correlation_interval(r: chex.Array, count: chex.Numeric) -> tuple[jax.Array, jax.Array]:
    """The 95% interval of a correlation: tanh(atanh r -+ 1.96 / sqrt(count - 3)). Fisher 1921.

    Args:
      r: scalar in [-1, 1].
      count: scalar, independent entries; of 3 or fewer nothing is known.
    """
    chex.assert_rank([r, count], 0)
    middle = jnp.arctanh(jnp.clip(r, -_MOST_CORRELATED, _MOST_CORRELATED))
    half = jnp.where(count > 3, _NORMAL / jnp.sqrt(jnp.maximum(count - 3, 1)), jnp.inf)
    return jnp.tanh(middle - half), jnp.tanh(middle + half)
