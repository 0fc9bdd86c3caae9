"""Means, softmaxes and maxima that leave masked entries out, values and gradients alike."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

NEVER = -1e30  # the log-probability of a masked entry: finite, so that 0 * NEVER is 0 and gradients stay finite
TINY = 1e-30  # the least argument of a logarithm


def masked_sum(x: chex.Array, mask: chex.Array) -> jax.Array:
    """Sum of x over valid entries, all axes.

    Args:
      x: any shape.
      mask: bool, the shape of x.
    """
    chex.assert_equal_shape([x, mask])
    return jnp.sum(jnp.where(mask, x, 0.0))


def masked_mean(x: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean of x over valid entries, all axes; 0 where none is valid.

    Args:
      x: any shape.
      mask: bool, the shape of x.
    """
    return masked_sum(x, mask) / jnp.maximum(jnp.count_nonzero(mask), 1)


def masked_log_softmax(logits: chex.Array, mask: chex.Array) -> jax.Array:
    """Log-softmax over valid entries; NEVER at the others.

    Args:
      logits: [A].
      mask: [A] bool.
    """
    chex.assert_rank([logits, mask], 1)
    return jnp.where(mask, jax.nn.log_softmax(jnp.where(mask, logits, NEVER)), NEVER)


def masked_softmax(logits: chex.Array, mask: chex.Array) -> jax.Array:
    """Softmax over valid entries; 0 at the others, and everywhere if none is valid.

    Args:
      logits: [A].
      mask: [A] bool.
    """
    return jnp.exp(masked_log_softmax(logits, mask))


def log_of(p: chex.Array) -> jax.Array:
    """Logarithm of a probability, finite at 0 in value and gradient."""
    return jnp.log(jnp.maximum(p, TINY))
