"""Preferences between responses, and the rewards learned from them."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

LEAST_STD = 1e-6  # a spread below it is none: the value is centred and left unscaled


def bradley_terry_loss(
    r_a: chex.Array, r_b: chex.Array, soft_label: chex.Numeric = 1.0, margin: chex.Numeric = 0.0
) -> jax.Array:
    """-y log sigmoid(d) - (1 - y) log sigmoid(-d), d = r_a - r_b - margin, y the probability that a is preferred.

    Bradley and Terry 1952; Ouyang et al. 2022, InstructGPT, eq. 1; Touvron et al. 2023, Llama 2, eq. 2 (margin).

    Args:
      r_a: scalar, the reward of the preferred response, unbounded.
      r_b: scalar, the reward of the other.
      soft_label: scalar in [0, 1].
      margin: scalar, by how much a should be ahead.
    """
    chex.assert_rank([r_a, r_b, soft_label, margin], 0)
    ahead = r_a - r_b - margin
    return -soft_label * jax.nn.log_sigmoid(ahead) - (1.0 - soft_label) * jax.nn.log_sigmoid(-ahead)


def centring_loss(r_a: chex.Array, r_b: chex.Array) -> jax.Array:
    """(r_a + r_b)^2: of all offsets that Bradley-Terry leaves free, the one around 0.

    Eisenstein et al. 2023, Helping or Herding?, eq. 5.

    Args:
      r_a: scalar.
      r_b: scalar.
    """
    chex.assert_rank([r_a, r_b], 0)
    return jnp.square(r_a + r_b)


def pairs(permutation: chex.Array, mask: chex.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All pairs of one ranking, i above j. Ouyang et al. 2022, InstructGPT, section 3.5.

    Args:
      permutation: [K] int, best first.
      mask: [K] bool, by candidate, not by position.

    Returns:
      (i, j, weight), each [P] with P = K (K - 1) / 2; weight is 0 where either candidate is masked.
    """
    chex.assert_rank([permutation, mask], 1)
    above, below = np.triu_indices(permutation.shape[0], k=1)
    i, j = jnp.asarray(permutation)[above], jnp.asarray(permutation)[below]
    mask = jnp.asarray(mask)
    return i, j, (mask[i] & mask[j]).astype(jnp.float32)


def relative_reward(r_action: chex.Array, r_none: chex.Array, std: chex.Array) -> jax.Array:
    """(r(s, a) - r(s, NONE)) / std: Bradley-Terry leaves the offset free, so the offset must not matter.

    Args:
      r_action: any shape.
      r_none: scalar, or the shape of r_action.
      std: scalar, the running spread of the reward.
    """
    return standardise(r_action, r_none, std)


def standardise(x: chex.Array, mean: chex.Array, std: chex.Array) -> jax.Array:
    """(x - mean) / std, with std 1 where there is no spread.

    Args:
      x: any shape.
      mean: scalar, or the shape of x.
      std: scalar, or the shape of x.
    """
    return (x - mean) / jnp.where(std > LEAST_STD, std, 1.0)


def ensemble_mean(rewards: chex.Array) -> jax.Array:
    """Mean of the members. Coste et al. 2023, Reward Model Ensembles, eq. 1.

    Args:
      rewards: [E], each standardised on one reference set.
    """
    chex.assert_rank(rewards, 1)
    return jnp.mean(rewards)


def ensemble_worst(rewards: chex.Array) -> jax.Array:
    """Least of the members. Coste et al. 2023, Reward Model Ensembles, eq. 2.

    Args:
      rewards: [E], each standardised on one reference set.
    """
    chex.assert_rank(rewards, 1)
    return jnp.min(rewards)


def ensemble_uncertainty_weighted(rewards: chex.Array, coefficient: chex.Numeric) -> jax.Array:
    """Mean less coefficient times variance of the members. Coste et al. 2023, Reward Model Ensembles, eq. 3.

    Args:
      rewards: [E], each standardised on one reference set.
      coefficient: scalar >= 0.
    """
    chex.assert_rank([rewards, coefficient], [1, 0])
    return jnp.mean(rewards) - coefficient * jnp.var(rewards)
