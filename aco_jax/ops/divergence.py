"""How far one distribution has moved from another, and the weight that holds it back."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import masked_mean


def kl_categorical(log_p: chex.Array, log_q: chex.Array, mask: chex.Array) -> jax.Array:
    """KL(p, q) = sum_a p(a) (log p(a) - log q(a)), nats, over valid entries.

    Kullback and Leibler 1951, On Information and Sufficiency, section 2.

    Args:
      log_p: [A] normalised over the valid entries.
      log_q: [A] normalised over the valid entries.
      mask: [A] bool.
    """
    chex.assert_rank([log_p, log_q, mask], 1)
    possible = mask & jnp.isfinite(log_p)
    log_p = jnp.where(possible, log_p, 0.0)  # p = 0 adds nothing, and no nan to the gradient
    log_q = jnp.where(possible, log_q, 0.0)
    return jnp.sum(jnp.where(possible, jnp.exp(log_p) * (log_p - log_q), 0.0))


def kl_tokens(log_p: chex.Array, log_q: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean over valid tokens of KL(p_t, q_t), nats.

    Args:
      log_p: [T, V] normalised.
      log_q: [T, V] normalised.
      mask: [T] bool.
    """
    chex.assert_rank([log_p, log_q, mask], [2, 2, 1])
    everything = jnp.ones(log_p.shape, bool)
    return masked_mean(jax.vmap(kl_categorical)(log_p, log_q, everything), mask)


def adaptive_weight(
    weight: chex.Array, kl: chex.Array, target: chex.Numeric, low: float = 1e-4, high: float = 1e4
) -> jax.Array:
    """Weight of the KL penalty: doubled where kl > 1.5 target, halved where kl < target / 1.5, then clipped.

    Schulman et al. 2017, Proximal Policy Optimization, section 4.

    Args:
      weight: scalar > 0.
      kl: scalar, nats, measured after the update.
      target: scalar > 0, nats.
      low: least weight, so that it can grow again.
      high: greatest weight, so that one bad round is not the last.
    """
    chex.assert_rank([weight, kl, target], 0)
    factor = jnp.where(kl > 1.5 * target, 2.0, jnp.where(kl < target / 1.5, 0.5, 1.0))
    return jnp.clip(weight * factor, low, high)
