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
    weight: chex.Array, kl: chex.Array, target: chex.Numeric, low: float = 1e-2, high: float = 1e4
) -> jax.Array:
    """Weight of the KL penalty times sqrt(kl / target), the factor within [1/2, 4], then clipped.

    Where the penalty holds the policy back the KL goes as weight^-2, so this is the whole step to the target. The rule
    of Schulman et al. 2017, Proximal Policy Optimization, section 4, twice or half the weight, is four times or a
    quarter of the KL: further than the band of 1.5 either way is wide. In log-space as in Ziegler et al. 2019,
    Fine-Tuning Language Models from Human Preferences, section 2.2.

    Args:
      weight: scalar > 0.
      kl: scalar, nats, measured after the update.
      target: scalar > 0, nats.
      low: least weight: a policy that has nothing to learn takes it down, and must be held soon when it has again.
      high: greatest weight, so that one bad round is not the last.
    """
    chex.assert_rank([weight, kl, target], 0)
    factor = jnp.clip(jnp.sqrt(jnp.maximum(kl, 0.0) / target), 0.5, 4.0)
    return jnp.clip(weight * factor, low, high)
