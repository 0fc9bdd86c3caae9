"""The critic: a small transformer encoder reads a state as tokens and says what each action is worth.

It learns from two targets: double Q on the transitions drawn (van Hasselt et al. 2016, Deep Reinforcement
Learning with Double Q-learning, eq. 4), of one step or of several, and the expectation under the smoothed model of
transitions (Sutton and Barto 2018, Reinforcement Learning, eq. 4.10), which averages over all next states seen
instead of the one drawn. The latter is of one step always: what follows is in the model.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from aco_jax.models import transformer
from aco_jax.ops import policy_gradient, values
from aco_jax.types import Metrics, Params, Transition

TRACE = 1.0  # greatest ratio of policy to behaviour of a further step


@dataclasses.dataclass(frozen=True)
class Config:
    """The network, its targets, and how its errors are weighed."""

    factor_sizes: tuple[int, ...]  # values of each of the n state tokens
    actions: int  # A
    width: int = 32
    heads: int = 2
    layers: int = 1
    mlp_width: int = 96
    discount: float = 0.99  # of the expected target: there the model knows how walks end
    model_weight: float = 0.5  # of the expected target; 1 - model_weight is double Q's
    huber: float = 1.0  # error from which the loss grows linearly; 0 keeps the square
    target_rate: float = 0.02  # of the target network's way to the online one, a step
    target_every: int = 0  # steps after which the target is the online network instead; 0: target_rate
    chunk: int = 256  # states read at once by `q_table`

    @property
    def model(self) -> transformer.Config:
        """Token 0 is padding, so each value has a token from 1 on."""
        return transformer.Config(
            vocab_size=1 + sum(self.factor_sizes),
            width=self.width,
            heads=self.heads,
            encoder_layers=self.layers,
            decoder_layers=0,
            mlp_width=self.mlp_width,
            max_length=max(len(self.factor_sizes), 2),
            copy=False,
        )


@struct.dataclass
class Batch:
    """B transitions and what is known of them."""

    factors_tm1: chex.Array  # [B, n] int32
    a_tm1: chex.Array  # [B] int32
    r_t: chex.Array  # [B] float32, of all steps of the target
    discount_t: chex.Array  # [B] float32, of all steps; 0 on termination, not on truncation
    r_first: chex.Array  # [B] float32, of the first step alone: the model's target takes no other
    q_t: chex.Array  # [B, A] of s_t under the online network, a constant: it selects
    q_target_t: chex.Array  # [B, A] of s_t under the target network, a constant: it evaluates
    valid_t: chex.Array  # [B, A] bool, actions of s_t
    p_next: chex.Array  # [B, S] float32, P(. given s_tm1, a_tm1) of the smoothed model
    v_target: chex.Array  # [S] float32, `state_values` of the target network
    importance_weights: chex.Array  # [B] float32, 0 leaves a transition out


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Parameters {'trunk', 'head'}; the target network is a copy of them."""
    trunk_key, head_key = jax.random.split(key)
    # Small at first: what is not learned yet should not look attractive.
    kernel = 0.01 * jax.random.normal(head_key, (config.width, config.actions))
    head = {"kernel": kernel, "bias": jnp.zeros(config.actions)}
    return {"trunk": transformer.init(trunk_key, config.model), "head": head}


def q_values(params: Params, config: Config, factors: chex.Array) -> chex.Array:
    """Q(s, .) of states, factors [.., n] int32 -> [.., A]."""
    sizes = config.factor_sizes
    chex.assert_axis_dimension(factors, -1, len(sizes))
    offsets = jnp.array([1 + sum(sizes[:place]) for place in range(len(sizes))], jnp.int32)
    tokens = jnp.reshape(factors, (-1, len(sizes))) + offsets[None]
    states = jnp.mean(transformer.encode(params["trunk"], config.model, tokens), axis=1)
    q = states @ params["head"]["kernel"] + params["head"]["bias"][None]
    return jnp.reshape(q, (*factors.shape[:-1], config.actions))


def loss(params: Params, config: Config, batch: Batch) -> tuple[chex.Array, Metrics]:
    """Importance-weighted mean over the batch of the squared (or Huber) error to both targets mixed.

    Args:
      params: of the online network.
      config: of the network.
      batch: B transitions.

    Returns:
      loss, and metrics: q (mean of Q(s_tm1, a_tm1)), absolute_error (mean), and td_error [B], not weighted by
      importance, for the priorities.
    """
    q_tm1 = q_values(params, config, batch.factors_tm1)
    sampled = jax.vmap(values.td_error)(
        q_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.q_target_t, batch.q_t, batch.valid_t
    )
    expected = jax.vmap(values.expected_target, (0, None, 0, None))(
        batch.r_first, jnp.float32(config.discount), batch.p_next, batch.v_target
    )
    q_taken = jnp.take_along_axis(q_tm1, batch.a_tm1[:, None], axis=1)[:, 0]
    error = (1 - config.model_weight) * sampled + config.model_weight * (expected - q_taken)
    cost = optax.huber_loss(error, delta=config.huber) if config.huber else 0.5 * jnp.square(error)
    td_error = jax.lax.stop_gradient(error)
    metrics = {"q": jnp.mean(q_taken), "absolute_error": jnp.mean(jnp.abs(td_error)), "td_error": td_error}
    return jnp.mean(batch.importance_weights * cost), metrics


def n_step(
    steps: Transition,
    mask: chex.Array,
    q: chex.Array,
    q_target: chex.Array,
    valid: chex.Array,
    log_policy: chex.Array,
) -> Transition:
    """n steps of each walk as one transition from the first state and action, leaves [B].

    What was done after the first step counts as far as the policy of today would do it: ratios to the stored behaviour,
    truncated at TRACE, are multiplied, and where they fall short the target network's value stands in.

    Args:
      steps: leaves [B, n], of `replay.following`.
      mask: [B, n] bool.
      q: [S, A] of the online network: it selects.
      q_target: [S, A] of the target network: it evaluates.
      valid: [S, A] bool, an action at least in each state.
      log_policy: [S, A] of today.
    """
    best = jax.vmap(values.masked_argmax)(q, valid)
    v = jnp.take_along_axis(q_target, best[:, None], axis=1)[:, 0]
    at = steps.s_tm1, steps.a_tm1
    ratio = jax.vmap(jax.vmap(policy_gradient.truncated_ratio, (0, 0, None)), (0, 0, None))(
        log_policy[at], steps.mu_tm1, TRACE
    )
    reward, discount = jax.vmap(values.corrected_n_step)(
        steps.r_t, steps.discount_t, v[steps.s_t], q_target[at], ratio, mask
    )
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
    first = jax.tree.map(lambda x: x[:, 0], steps)
    s_t = jnp.take_along_axis(steps.s_t, last[:, None], axis=1)[:, 0]
    return dataclasses.replace(first, r_t=reward, discount_t=discount, s_t=s_t)


def q_table(params: Params, config: Config, factors: chex.Array) -> chex.Array:
    """Q of all states, factors [S, n] -> [S, A], `chunk` states at a time."""
    states, chunk = len(factors), min(config.chunk, len(factors))
    chunks = -(-states // chunk)
    filled = jnp.pad(factors, ((0, chunks * chunk - states), (0, 0))).reshape(chunks, chunk, -1)
    q = jax.lax.map(lambda some: q_values(params, config, some), filled)
    return q.reshape(-1, config.actions)[:states]


def state_values(q: chex.Array, valid: chex.Array, terminal: int) -> chex.Array:
    """max over valid actions of Q, [S, A] and [S, A] bool -> [S]; the terminal state is worth 0."""
    best = jax.vmap(values.masked_max)(q, valid)
    return best.at[terminal].set(0.0)


def update_target(config: Config, target: Params, params: Params, step: chex.Numeric) -> Params:
    """The target network after `step` updates, moved towards the online one or, by interval, set to it."""
    if config.target_every:
        return values.periodic(target, params, step, config.target_every)
    return values.polyak(target, params, config.target_rate)
