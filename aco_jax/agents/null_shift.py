"""The actor's continuous action: a shift of the logit of "none of these" for a whole anchor.

A Gaussian policy of the state that the anchor's walk would begin in without a shift: the mean is linear in the state's
factors, one-hot, and bounded by a tanh; the noise is annealed, and there is none when tables are related. It learns
from the return of the walk that the shift led to. The value of that walk's own first state is no baseline for it, for
the shift chose that state: the value of the state before the shift is.

Sources: Williams 1992, REINFORCE, section 6 (Gaussian units); Lillicrap et al. 2016, DDPG, eq. 7 (noise);
Kakade 2001, A Natural Policy Gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.ops import policy_gradient
from aco_jax.types import Metrics, Params


@dataclass(frozen=True)
class Config:
    """Shift and noise in nats of a logit."""

    factor_sizes: tuple[int, ...]  # values of each of the n state tokens
    limit: float = 2.0  # greatest mean, either way
    noise: float = 0.5  # standard deviation at the start
    least_noise: float = 0.05  # at the end
    rate: float = 3e-3  # of Adam, which moves all of a state's factors by as much at once


@struct.dataclass
class Batch:
    """B shifts that were tried."""

    factors: chex.Array  # [B, n] int32, of the first states before the shift
    shift: chex.Array  # [B] float32
    noise: chex.Array  # [] standard deviation with which they were drawn
    advantage: chex.Array  # [B] return of the walk less the value of the first state before the shift


def init(key: chex.PRNGKey, config: Config) -> Params:
    """A policy that shifts by nothing; the key is not needed for that."""
    del key
    return {"kernel": jnp.zeros(sum(config.factor_sizes)), "bias": jnp.zeros(())}


def act(params: Params, config: Config, factors: chex.Array) -> chex.Array:
    """The mean shift, factors [.., n] int32 -> [..]."""
    sizes = config.factor_sizes
    chex.assert_axis_dimension(factors, -1, len(sizes))
    offsets = jnp.array([sum(sizes[:place]) for place in range(len(sizes))], jnp.int32)
    logits = jnp.sum(params["kernel"][factors + offsets.reshape((1,) * (factors.ndim - 1) + (-1,))], axis=-1)
    return config.limit * jnp.tanh(logits + params["bias"])


def loss(params: Params, config: Config, batch: Batch) -> tuple[chex.Array, Metrics]:
    """Descending it ascends the expected return: REINFORCE, scaled by the variance of the noise.

    The variance is the inverse of the Fisher information of a mean. Without it the gradient would grow as the noise is
    annealed, and the last steps would be the wildest.

    Returns:
      loss and metrics: mean (of the policy), noise.
    """
    chex.assert_rank([batch.factors, batch.shift, batch.noise, batch.advantage], [2, 1, 0, 1])
    mean = act(params, config, batch.factors)
    log_prob = jax.vmap(policy_gradient.gaussian_log_prob, (0, 0, None))(batch.shift, mean, batch.noise)
    value = jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(log_prob, jnp.square(batch.noise) * batch.advantage))
    return value, {"mean": jnp.mean(mean), "noise": batch.noise}
