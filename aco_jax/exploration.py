"""How much to try, and with which probability what was tried.

Mnih et al. 2015, Human-level control through deep reinforcement learning (epsilon-greedy, annealed);
Lillicrap et al. 2016, DDPG, eq. 7 (Gaussian noise on a continuous action).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops import values


def epsilon_from_entropy(entropy: chex.Array, reachable: chex.Array) -> chex.Array:
    """The first epsilon: mean normalised row entropy of the reachable (s, a), 1 where none is reachable.

    Args:
      entropy: [S, A] in [0, 1], 1 at unseen rows.
      reachable: [S, A] bool.
    """
    chex.assert_rank([entropy, reachable], 2)
    count = jnp.count_nonzero(reachable)
    mean = jnp.sum(jnp.where(reachable, entropy, 0.0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, 1.0)


def anneal(first: chex.Numeric, last: chex.Numeric, step: chex.Numeric, steps: chex.Numeric) -> chex.Array:
    """Linear from `first` at step 0 to `last` at step `steps` and beyond.

    Epsilon and the noise of the continuous action fall so; the importance exponent of the replay rises.
    """
    share = jnp.clip(step / jnp.maximum(steps, 1), 0.0, 1.0)
    return first + share * (last - first)


def behaviour(policy: chex.Array, valid: chex.Array, epsilon: chex.Numeric) -> chex.Array:
    """mu = epsilon / |valid| + (1 - epsilon) pi, [A], 0 at invalid actions.

    Args:
      policy: [A] >= 0; what it gives to invalid actions is shared among the valid ones in proportion.
      valid: [A] bool, at least one.
      epsilon: scalar in [0, 1].
    """
    chex.assert_rank([policy, valid], 1)
    uniform = valid / jnp.maximum(jnp.count_nonzero(valid), 1)
    held = jnp.where(valid, policy, 0.0)
    total = jnp.sum(held)
    pi = jnp.where(total > 0, held / jnp.where(total > 0, total, 1.0), uniform)
    return epsilon * uniform + (1 - epsilon) * pi


def greedy_policy(values_of_actions: chex.Array, valid: chex.Array) -> chex.Array:
    """All probability on the best valid action, the first among equals, [A] -> [A]."""
    best = values.masked_argmax(values_of_actions, valid)
    return jax.nn.one_hot(best, valid.shape[0], dtype=jnp.float32)


def sample(key: chex.PRNGKey, mu: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Draws an action from mu [A]: the action, int32, and its probability."""
    chex.assert_rank(mu, 1)
    logits = jnp.where(mu > 0, jnp.log(jnp.where(mu > 0, mu, 1.0)), -jnp.inf)
    action = jax.random.categorical(key, logits)
    return action, mu[action]


def greedy(policy: chex.Array, valid: chex.Array) -> tuple[chex.Array, chex.Array]:
    """The most probable valid action of pi [A], taken with probability 1: the policy at inference."""
    return values.masked_argmax(policy, valid), jnp.ones((), jnp.float32)


def noisy_shift(key: chex.PRNGKey, mean: chex.Array, scale: chex.Numeric) -> chex.Array:
    """The continuous action, a shift of the NULL logit: mean + scale * noise, [..].

    Args:
      key: consumed.
      mean: [..], what the policy would shift by.
      scale: scalar > 0, annealed.
    """
    return mean + scale * jax.random.normal(key, mean.shape)
