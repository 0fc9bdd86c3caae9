"""The actor: a language model, started from the base's weights, that decides and gives its reason.

It reads the state of the decision process as a few special tokens and answers with an action token. After
a relation it generates a reason that may only use tokens that both records say.

Sources: Mnih et al. 2016, Asynchronous Methods for Deep RL (advantage); Schulman et al. 2017, PPO, eq. 8
(the KL penalty); Sutton et al. 2000, Policy Gradient Methods, theorem 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax.data.tokens import Special
from aco_jax.models import generate, transformer
from aco_jax.ops import divergence, masking, policy_gradient, sequences
from aco_jax.types import Metrics, Params


@dataclass(frozen=True)
class Config:
    """State factor f with value v is read as token `special.first_state + sum(factor_sizes[:f]) + v`."""

    model: transformer.Config  # the base's
    factor_sizes: tuple[int, ...]
    actions: int  # A
    special: Special
    reason_length: int = 12  # tokens, the end included
    ratio_limit: float = 2.0  # truncation of pi / mu
    exact_weight: float = 1.0  # of the expectation over all actions beside the action taken
    entropy_weight: float = 0.003
    reason_weight: float = 0.1


@struct.dataclass
class Batch:
    """N decisions and B reasons to learn from; everything but the factors is a constant for the gradient."""

    factors: chex.Array  # [S, n_factors] int32 of all states: read once, as `act` does for the behaviour
    valid: chex.Array  # [S, A] bool
    state: chex.Array  # [N] int32
    action: chex.Array  # [N] int32
    mu: chex.Array  # [N] behaviour probability of the action
    advantage: chex.Array  # [N] of the action taken: r + discount * V(s') - V(s)
    q: chex.Array  # [N, A]
    old_log_pi: chex.Array  # [N, A] log-probabilities of the old policy
    mask: chex.Array  # [N] bool
    reason_source: chex.Array  # [B, S] int32
    reason: chex.Array  # [B, T] int32
    reason_advantage: chex.Array  # [B]


@struct.dataclass
class Reasons:
    """B reasons as they are taught."""

    source: chex.Array  # [B, S] int32, of `reason_source`
    reason: chex.Array  # [B, T] int32, the end included


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Random parameters; `from_base` is the usual start."""
    return transformer.init(key, config.model)


def from_base(model: Params) -> Params:
    """The base's transformer, copied."""
    return jax.tree.map(jnp.copy, model)


def act(params: Params, config: Config, factors: chex.Array, valid: chex.Array) -> chex.Array:
    """Log-probabilities of the actions, factors [N, n_factors], valid [N, A] -> [N, A]."""
    tokens = state_tokens(config, factors)
    memory = transformer.encode(params, config.model, tokens)
    start = jnp.full((tokens.shape[0], 1), config.special.bos, jnp.int32)
    hidden = transformer.decode(params, config.model, start, memory, tokens)[:, 0]
    first = config.special.first_action
    embedding = params["embedding"][first : first + config.actions]
    return jax.vmap(masking.masked_log_softmax)(hidden @ embedding.T, valid)


def state_tokens(config: Config, factors: chex.Array) -> chex.Array:
    """Special tokens of states, [.., n_factors] -> [.., n_factors] int32."""
    offsets = jnp.cumsum(jnp.asarray((0, *config.factor_sizes[:-1]), jnp.int32))
    return config.special.first_state + factors + jnp.broadcast_to(offsets, factors.shape)


@functools.partial(jax.jit, static_argnames="config")
def reason_source(config: Config, action: chex.Array, anchor: chex.Array, candidate: chex.Array) -> chex.Array:
    """What a reason is generated from: action, anchor and candidate tokens, [B], [B, T1], [B, T2] -> [B, S]."""
    sep = jnp.full((action.shape[0], 1), config.special.sep, jnp.int32)
    return sequences.join([config.special.first_action + action[:, None], anchor, sep, candidate])


@functools.partial(jax.jit, static_argnames="config")
def give_reason(
    params: Params, config: Config, source: chex.Array, key: chex.PRNGKey, temperature: chex.Numeric = 1.0
) -> tuple[chex.Array, chex.Array]:
    """Samples a reason made of what both records say: tokens [B, T] and log-probability [B] (nats).

    `key` is [], or [B], one of each pair.
    """
    facts, special = _facts(config, source), config.special

    def rule(tokens: chex.Array, _: chex.Array) -> chex.Array:
        return jax.vmap(functools.partial(sequences.counts, size=facts.shape[1]))(tokens) < facts

    return generate.sample(
        params, config.model, source, special.bos, special.eos, config.reason_length, key, temperature, rule
    )


def loss(
    params: Params, config: Config, batch: Batch, kl_weight: chex.Array, log_policy: chex.Array | None = None
) -> tuple[chex.Array, Metrics]:
    """Policy gradient with a KL penalty to the old policy.

    The action taken enters by its truncated importance ratio and its advantage, all other actions by the
    expectation over the policy of Q - V; the reason's tokens by REINFORCE.

    Args:
        log_policy: [S, A], what `act` says of all states, where it was asked before; the gradient goes through it.

    Returns:
        loss and metrics: kl (nats a decision), entropy (nats), mean ratio.
    """
    if log_policy is None:
        log_policy = act(params, config, batch.factors, batch.valid)
    log_pi = log_policy[batch.state]
    valid = batch.valid[batch.state]
    count = jnp.maximum(jnp.sum(batch.mask), 1)

    def mean(x: chex.Array) -> chex.Array:
        return jnp.sum(jnp.where(batch.mask, x, 0)) / count

    taken = jnp.take_along_axis(log_pi, batch.action[:, None], axis=-1)[:, 0]
    ratio = jax.vmap(policy_gradient.truncated_ratio, (0, 0, None))(taken, batch.mu, config.ratio_limit)
    sampled = jax.vmap(policy_gradient.reinforce_loss)(taken, ratio * batch.advantage)
    pi = jnp.exp(jax.lax.stop_gradient(log_pi))
    advantages = jax.vmap(policy_gradient.advantage_q)(batch.q, pi)
    exact = jax.vmap(policy_gradient.exact_policy_loss)(log_pi, advantages, valid, jnp.ones_like(ratio))
    kl = mean(jax.vmap(divergence.kl_categorical)(batch.old_log_pi, log_pi, valid))
    entropy = mean(jax.vmap(policy_gradient.entropy)(log_pi, valid))
    log_reason = _log_reason(params, config, batch.reason_source, batch.reason)
    reason = jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(jnp.sum(log_reason, axis=-1), batch.reason_advantage))
    total = (
        mean(sampled)
        + config.exact_weight * mean(exact)
        + kl_weight * kl
        - config.entropy_weight * entropy
        + config.reason_weight * reason
    )
    return total, {"kl": kl, "entropy": entropy, "ratio": mean(ratio)}


def imitation_loss(
    params: Params, config: Config, factors: chex.Array, valid: chex.Array, policy: chex.Array
) -> chex.Array:
    """Cross-entropy (nats) of a given policy [N, A] in states of factors [N, n], valid [N, A]; the mean over states."""
    log_pi = act(params, config, factors, valid)
    return -jnp.mean(jnp.sum(jnp.where(valid, policy * log_pi, 0.0), axis=1))


def explanation_loss(params: Params, config: Config, lessons: Reasons) -> chex.Array:
    """Cross-entropy of given reasons, nats a token."""
    log_reason = _log_reason(params, config, lessons.source, lessons.reason)
    return -jnp.sum(log_reason) / jnp.maximum(jnp.sum(lessons.reason != 0), 1)


def _log_reason(params: Params, config: Config, source: chex.Array, reason: chex.Array) -> chex.Array:
    """Log-probabilities of the tokens of reasons [B, T], nats, 0 at padding."""
    facts = _facts(config, source)
    said = jax.nn.one_hot(reason, facts.shape[1], dtype=jnp.int8)
    before = jnp.cumsum(said, axis=1) - said
    return transformer.sequence_log_prob(params, config.model, source, reason, before < facts[:, None])[0]


def _facts(config: Config, source: chex.Array) -> chex.Array:
    """How often a reason may say each token, [B, V]: as often as both sides of the source's separator, the end once."""
    size, special = config.model.vocab_size, config.special
    second = jnp.cumsum(source == special.sep, axis=1) > 0
    ours, theirs = (
        jax.vmap(functools.partial(sequences.counts, size=size))(jnp.where(second == side, source, 0))
        for side in (False, True)
    )
    text = jnp.asarray(~special.contains(np.arange(size)))
    return jnp.where(text, jnp.minimum(ours, theirs), 0).at[:, special.eos].set(1)
