"""Decoding with a cache: one program, stopped as soon as every row has ended.

A decoder alone reads its source at once, as a prompt, whatever the length of each row. A prefix without a source is
read at once as far as the shortest row goes; from there on it is one token after another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from aco_jax.models import layers, network, transformer
from aco_jax.ops import rowwise
from aco_jax.types import Params

Rule = Callable[[chex.Array, chex.Array], chex.Array]  # tokens so far [B, T], position [] -> may be next [B or 1, V]
Limit = Callable[[chex.Array], chex.Array]  # log-probabilities [B, V], NEVER where not allowed -> kept [B, V]


@functools.partial(jax.jit, static_argnames=("config", "bos", "eos", "length", "top_k", "samples"))
def generate(
    params: Params,
    config: transformer.Config,
    source: chex.Array | None,
    *,
    bos: int | None,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    temperature: float | chex.Array = 1.0,
    allowed: chex.Array | None = None,
    prefix: chex.Array | None = None,
    top_k: int | None = None,
    top_p: float | chex.Array | None = None,
    samples: int = 1,
) -> tuple[chex.Array, chex.Array]:
    """Samples a continuation of each source, token by token.

    Args:
      source: [B, S] tokens, read once by the encoder. A decoder alone reads it as a prompt, from `bos` on, which is
        no part of the result; without a source it continues `prefix`.
      bos: the token that begins every row and is not part of the result; None where the prompt or the prefix begins
        with it, or with the first word where the tokenizer has no such token.
      eos: the token after which a row holds padding only; in a prompt, without a source, it ends nothing.
      length: tokens of the result, the prefix included.
      key: [], or one of each row of the result.
      temperature: 0 takes the likeliest token (Gumbel-max with scaled noise, Gumbel 1954).
      allowed: [B, V] or [B, length, V] bool (axes of size 1 broadcast), the only tokens that may be sampled.
      prefix: [B, P] tokens the result begins with, padding on the right; its length may differ by row.
      top_k: only the k likeliest of the allowed tokens are sampled (Fan 2018), and their equals.
      top_p: of those, only the fewest that hold this share of the probability at `temperature` (Holtzman 2020).
      samples: continuations of each row, one after the other: B is then B x samples in the result.

    Returns:
      tokens [B, length], prefix and eos included, and log_prob [B] in nats, the sum over the sampled tokens (not
      the prefix) at temperature 1, relative to the allowed ones: what `transformer.sequence_log_prob` says of them.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k}, expected at least 1")
    if allowed is not None and allowed.ndim == 2:
        allowed = allowed[:, None]
    if samples > 1:
        rows = max(x.shape[0] for x in (source, prefix) if x is not None)
        source, prefix, allowed = (
            x if x is None or x.shape[0] < rows else jnp.repeat(x, samples, axis=0) for x in (source, prefix, allowed)
        )
    limit = None
    if top_k is not None or top_p is not None:
        limit = functools.partial(likeliest, top_k=top_k, top_p=top_p, temperature=temperature)
    if bos is not None or (source is not None and not config.encoder_layers):
        return sample(params, config, source, bos, eos, length, key, temperature, _rule(allowed), prefix, limit)
    if prefix is None:
        raise ValueError("without bos a prefix has to begin the rows")
    if allowed is not None and allowed.shape[1] > 1:
        allowed = allowed[:, 1:]
    first = prefix[:, 0].astype(jnp.int32)
    tokens, log_prob = sample(
        params, config, source, first, eos, length - 1, key, temperature, _rule(allowed), prefix[:, 1:], limit
    )
    return jnp.concatenate([first[:, None], tokens], axis=1), log_prob


def likeliest(
    log_probs: chex.Array,
    top_k: int | None = None,
    top_p: float | chex.Array | None = None,
    temperature: float | chex.Array = 1.0,
) -> chex.Array:
    """Log-probabilities [.., V] -> bool [.., V], the tokens that `top_k` and then `top_p` keep, at least one.

    Equal tokens are kept together. At temperature 0 the nucleus is the likeliest token.
    """
    kept = jnp.ones(log_probs.shape, bool)
    if top_k is not None:
        least = jax.lax.top_k(log_probs, min(top_k, log_probs.shape[-1]))[0][..., -1:]
        kept = log_probs >= least
    if top_p is None:
        return kept
    tempered = jnp.where(kept, log_probs, layers.NEVER) / jnp.maximum(temperature, 1e-6)
    p = jax.nn.softmax(tempered, axis=-1)
    falling = -jnp.sort(-p, axis=-1)
    before = jnp.cumsum(falling, axis=-1) - falling
    inside = jnp.maximum(jnp.sum(before < top_p, axis=-1, keepdims=True), 1)
    return kept & (p >= jnp.take_along_axis(falling, inside - 1, axis=-1))


def sample(
    params: Params,
    config: transformer.Config,
    source: chex.Array | None,
    bos: int | chex.Array | None,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    temperature: float | chex.Array,
    rule: Rule | None,
    prefix: chex.Array | None = None,
    limit: Limit | None = None,
) -> tuple[chex.Array, chex.Array]:
    """`generate` where what may come next is a rule of what was written, for use within a jitted function.

    Here `bos` may differ by row, [B], and the prefix is what follows it.
    """
    begun = source if source is not None else prefix
    if begun is None:
        raise ValueError("a source or a prefix is needed")
    chex.assert_rank(begun, 2)
    rows, pad, params = begun.shape[0], config.pad, transformer.cast(params, config)
    keys = rowwise.keys(key, rows)
    forced = jnp.full((rows, length), pad, jnp.int32)
    if prefix is not None:
        forced = forced.at[:, : prefix.shape[1]].set(prefix[:, :length].astype(jnp.int32))

    def going(carry: _Carry) -> chex.Array:
        return (carry[0] < length) & ~jnp.all(carry[3])

    def body(carry: _Carry) -> _Carry:
        index, token, cache, done, tokens, total = carry
        # Tied to the token: XLA would make float32 matrices of quantised ones once, before the loop, and read those.
        weights, token = jax.lax.optimization_barrier((params, token))
        log_probs, cache = transformer.step(weights, config, token, index + before, cache)
        noise = _noise(keys, index, log_probs.shape, temperature)
        may = None if rule is None else rule(tokens, index)
        sampled, log_prob = _choose(log_probs, noise, may, limit, pad)
        given = forced[:, index]
        token = jnp.where(done, pad, jnp.where(given > pad, given, sampled))
        total = total + jnp.where(done | (given > pad), 0.0, log_prob)
        ended = token == eos
        if source is None:
            ended &= given == pad  # a prompt may hold the ends of earlier turns
        return index + 1, token, cache, done | ended, tokens.at[:, index].set(token), total

    before, begin = 0, jnp.int32(0)  # tokens in the cache before the result; of the result, known from the start
    if source is not None and not config.encoder_layers:
        cache, first = _prompt(params, config, source, bos, length)
        before = source.shape[1] - (bos is None)
    else:
        if bos is None:
            raise ValueError("bos is None, expected a token where no prompt begins the rows")
        first = jnp.full((rows,), bos, jnp.int32)
        cache = transformer.start(params, config, source, rows, length)
    if source is None and begun.shape[1]:
        inputs = jnp.concatenate([first[:, None], forced], axis=1)
        cache = transformer.read(params, config, inputs[:, : min(begun.shape[1], length)], cache)
        begin = jnp.sum(jnp.cumprod(jnp.all(forced > pad, axis=0)), dtype=jnp.int32)
        first = jax.lax.dynamic_index_in_dim(inputs, begin, axis=1, keepdims=False)
    given = jnp.where(jnp.arange(length)[None] < begin, forced, pad)
    _, _, _, _, tokens, total = jax.lax.while_loop(
        going, body, (begin, first, cache, jnp.zeros((rows,), bool), given, jnp.zeros((rows,)))
    )
    return tokens, total


def _prompt(
    params: Params, config: transformer.Config, source: chex.Array, bos: int | chex.Array | None, length: int
) -> tuple[transformer.Cache, chex.Array]:
    """A cache in which `length` tokens can follow prompts [B, S], read but for their last tokens, and these, [B]."""
    row = transformer.ending_together(source, config.pad, bos)
    known = row[:, :-1]
    cache = transformer.start(params, config, None, row.shape[0], known.shape[1] + length)
    cache = cache | {"padding": jnp.sum(known == config.pad, axis=1)}
    if known.shape[1]:
        cache = transformer.read(params, config, known, cache)
    return cache, row[:, -1]


_Carry = tuple[chex.Array, chex.Array, network.Cache, chex.Array, chex.Array, chex.Array]


def _rule(allowed: chex.Array | None) -> Rule | None:
    return None if allowed is None else functools.partial(_at, allowed)


def _at(allowed: chex.Array, tokens: chex.Array, index: chex.Array) -> chex.Array:
    del tokens
    position = jnp.minimum(index, allowed.shape[1] - 1)
    return jax.lax.dynamic_index_in_dim(allowed, position, axis=1, keepdims=False)


def _noise(
    keys: chex.PRNGKey, index: chex.Array, shape: tuple[int, ...], temperature: float | chex.Array
) -> chex.Array:
    """Gumbel noise of rows [B, V] at the temperature; at 0 none is drawn, which costs as much as a small network."""

    def drawn() -> chex.Array:
        return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, index), shape[1:]))(keys)

    warm = jnp.any(jnp.asarray(temperature) > 0)
    return temperature * jax.lax.cond(warm, drawn, lambda: jnp.zeros(shape))


def _choose(
    log_probs: chex.Array, noise: chex.Array, allowed: chex.Array | None, limit: Limit | None, pad: int
) -> tuple[chex.Array, chex.Array]:
    """Log-probabilities [B, V] -> the chosen token and its log-probability among the allowed ones, [B] each."""
    scores = log_probs + noise
    if allowed is not None:
        held = jnp.where(allowed, log_probs, layers.NEVER)
        log_probs = log_probs - jax.nn.logsumexp(held, axis=-1, keepdims=True)
        scores = jnp.where(allowed, scores, layers.NEVER)
    first = pad + 1  # padding is never sampled
    if limit is not None:
        may = log_probs if allowed is None else jnp.where(allowed, log_probs, layers.NEVER)
        scores = scores.at[:, first:].set(jnp.where(limit(may[:, first:]), scores[:, first:], layers.NEVER))
    token = jnp.argmax(scores[:, first:], axis=-1).astype(jnp.int32) + first
    return token, jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
