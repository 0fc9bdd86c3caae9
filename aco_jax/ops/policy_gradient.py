"""Losses whose negative gradient is the policy gradient, and the advantages they take."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import log_of, masked_log_softmax
from aco_jax.ops.values import soft_value


def reinforce_loss(log_prob: chex.Array, advantage: chex.Array) -> jax.Array:
    """-stop_gradient(advantage) log pi(a given s). Williams 1992, REINFORCE; the method's base ascent.

    Args:
      log_prob: scalar, nats, of a token, an action or a whole sampled output.
      advantage: scalar.
    """
    chex.assert_rank([log_prob, advantage], 0)
    return -jax.lax.stop_gradient(advantage) * log_prob


def gaussian_log_prob(x: chex.Array, mean: chex.Array, scale: chex.Numeric) -> jax.Array:
    """log N(x; mean, scale^2), nats: the density of a continuous action. Williams 1992, REINFORCE, section 6.

    Args:
      x: scalar.
      mean: scalar.
      scale: scalar > 0, the standard deviation.
    """
    chex.assert_rank([x, mean, scale], 0)
    return -0.5 * jnp.square((x - mean) / scale) - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def truncated_ratio(log_pi: chex.Array, mu: chex.Array, limit: chex.Numeric) -> jax.Array:
    """min(pi / mu, limit), stopped: the weight of a replayed action.

    Espeholt et al. 2018, IMPALA, section 4.1.

    Args:
      log_pi: scalar, nats, of the action under the policy of today.
      mu: scalar, the probability with which it was taken.
      limit: scalar > 0.
    """
    chex.assert_rank([log_pi, mu, limit], 0)
    log_ratio = log_pi - log_of(mu)
    return jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, jnp.log(limit))))


def exact_policy_loss(logits: chex.Array, advantages: chex.Array, valid: chex.Array, weight: chex.Array) -> jax.Array:
    """-weight sum_a pi(a given s) A(s, a), exact over the action set, weight and advantages stopped.

    Sutton et al. 2000, Policy Gradient Methods, theorem 1; Ciosek and Whiteson 2018, section 3.

    Args:
      logits: [A].
      advantages: [A].
      valid: [A] bool.
      weight: scalar, of the state.
    """
    chex.assert_rank([logits, advantages, valid, weight], [1, 1, 1, 0])
    policy = jnp.exp(masked_log_softmax(logits, valid))
    gains = jnp.where(valid, jax.lax.stop_gradient(weight * advantages), 0.0)
    return -jnp.sum(policy * gains)


def entropy(logits: chex.Array, valid: chex.Array) -> jax.Array:
    """-sum_a pi(a) log pi(a), nats, over valid actions. Williams and Peng 1991, Function Optimization.

    Args:
      logits: [A].
      valid: [A] bool.
    """
    chex.assert_rank([logits, valid], 1)
    log_p = masked_log_softmax(logits, valid)
    return -jnp.sum(jnp.where(valid, jnp.exp(log_p) * log_p, 0.0))


def normalised_entropy(p: chex.Array) -> jax.Array:
    """-sum_s p(s) log p(s) / log S in [0, 1]; 0 where S is 1. Shannon 1948, section 6.

    Args:
      p: [S], sums to 1.
    """
    chex.assert_rank(p, 1)
    states = p.shape[0]
    return -jnp.sum(p * log_of(p)) / jnp.log(states) if states > 1 else jnp.zeros_like(p[0])


def advantage_q(q: chex.Array, policy: chex.Array) -> jax.Array:
    """A(s, a) = Q(s, a) - sum_b pi(b given s) Q(s, b), stopped. Sutton et al. 2000, Policy Gradient Methods.

    Args:
      q: [A].
      policy: [A], sums to 1.

    Returns:
      [A].
    """
    chex.assert_rank([q, policy], 1)
    return jax.lax.stop_gradient(q - soft_value(policy, q))


def advantage_td(r_t: chex.Array, discount_t: chex.Array, v_t: chex.Array, v_tm1: chex.Array) -> jax.Array:
    """r_t + discount_t V(s_t) - V(s_tm1), stopped. Mnih et al. 2016, A3C, section 4, with one step.

    Args:
      r_t: scalar.
      discount_t: scalar, 0 on termination.
      v_t: scalar.
      v_tm1: scalar.
    """
    chex.assert_rank([r_t, discount_t, v_t, v_tm1], 0)
    return jax.lax.stop_gradient(r_t + discount_t * v_t - v_tm1)


def discounted_return(rewards: chex.Array, discounts: chex.Array) -> jax.Array:
    """G_t = r_t + discount_t G_t+1 from every step; entry 0 is the episode's (of advantages: a query's).

    Sutton and Barto 2018, Reinforcement Learning, eq. 3.9; Zhou et al. 2024, ArCHer, section 3.

    Args:
      rewards: [T], 0 at padding.
      discounts: [T], 0 on termination.

    Returns:
      [T].
    """
    chex.assert_rank([rewards, discounts], 1)

    def back(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, discount = step
        now = reward + discount * later
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(rewards[0]), (rewards, discounts), reverse=True)[1]
