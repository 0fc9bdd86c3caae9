"""Decoding with a cache: one program, stopped as soon as every row has ended."""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from aco_jax.models import transformer
from aco_jax.types import Params

Rule = Callable[[chex.Array, chex.Array], chex.Array]  # tokens so far [B, T], position [] -> may be next [B or 1, V]


@functools.partial(jax.jit, static_argnames=("config", "bos", "eos", "length"))
def generate(
    params: Params,
    config: transformer.Config,
    source: chex.Array,
    *,
    bos: int,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    temperature: float | chex.Array = 1.0,
    allowed: chex.Array | None = None,
    prefix: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array]:
    """Samples a continuation of each source, token by token.

    Args:
      source: [B, S] tokens, read once by the encoder.
      eos: the token after which a row holds 0 only.
      length: tokens of the result, the prefix included.
      temperature: 0 takes the likeliest token (Gumbel-max with scaled noise, Gumbel 1954).
      allowed: [B, V] or [B, length, V] bool (axes of size 1 broadcast), the only tokens that may be sampled.
      prefix: [B, P] tokens the result begins with, 0 on the right; its length may differ by row.

    Returns:
      tokens [B, length], prefix and eos included, and log_prob [B] in nats, the sum over the sampled tokens (not
      the prefix) at temperature 1, relative to the allowed ones: what `transformer.sequence_log_prob` says of them.
    """
    if allowed is not None and allowed.ndim == 2:
        allowed = allowed[:, None]
    rule = None if allowed is None else functools.partial(_at, allowed)
    return sample(params, config, source, bos, eos, length, key, temperature, rule, prefix)


def sample(
    params: Params,
    config: transformer.Config,
    source: chex.Array,
    bos: int,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    temperature: float | chex.Array,
    rule: Rule | None,
    prefix: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array]:
    """`generate` where what may come next is a rule of what was written, for use within a jitted function."""
    chex.assert_rank(source, 2)
    rows = source.shape[0]
    forced = jnp.zeros((rows, length), jnp.int32)
    if prefix is not None:
        forced = forced.at[:, : prefix.shape[1]].set(prefix[:, :length].astype(jnp.int32))

    def going(carry: _Carry) -> chex.Array:
        return (carry[0] < length) & ~jnp.all(carry[3])

    def body(carry: _Carry) -> _Carry:
        index, token, cache, done, tokens, total = carry
        log_probs, cache = transformer.step(params, config, token, index, cache)
        noise = jax.random.gumbel(jax.random.fold_in(key, index), log_probs.shape)
        sampled, log_prob = _choose(log_probs, temperature * noise, None if rule is None else rule(tokens, index))
        given = forced[:, index]
        token = jnp.where(done, 0, jnp.where(given > 0, given, sampled))
        total = total + jnp.where(done | (given > 0), 0.0, log_prob)
        return index + 1, token, cache, done | (token == eos), tokens.at[:, index].set(token), total

    first = jnp.full((rows,), bos, jnp.int32)
    cache = transformer.start(params, config, source, rows, length)
    empty = (jnp.zeros((rows,), bool), jnp.zeros((rows, length), jnp.int32), jnp.zeros((rows,)))
    _, _, _, _, tokens, total = jax.lax.while_loop(going, body, (jnp.int32(0), first, cache, *empty))
    return tokens, total


_Carry = tuple[chex.Array, chex.Array, transformer.Cache, chex.Array, chex.Array, chex.Array]


def _at(allowed: chex.Array, tokens: chex.Array, index: chex.Array) -> chex.Array:
    del tokens
    position = jnp.minimum(index, allowed.shape[1] - 1)
    return jax.lax.dynamic_index_in_dim(allowed, position, axis=1, keepdims=False)


def _choose(log_probs: chex.Array, noise: chex.Array, allowed: chex.Array | None) -> tuple[chex.Array, chex.Array]:
    """Log-probabilities [B, V] -> the chosen token and its log-probability among the allowed ones, [B] each."""
    scores = log_probs + noise
    if allowed is not None:
        log_probs = log_probs - jax.nn.logsumexp(
            jnp.where(allowed, log_probs, transformer.NEVER), axis=-1, keepdims=True
        )
        scores = jnp.where(allowed, scores, transformer.NEVER)
    token = jnp.argmax(scores[:, 1:], axis=-1).astype(jnp.int32) + 1  # padding is never sampled
    return token, jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
