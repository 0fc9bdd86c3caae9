"""Log-probability of given tokens, and the entropy around them, from hidden states and the output embedding.

`reference` forms all logits [T, V]. `chunked` (XLA) and `pallas` see a tile of the vocabulary at a time,
which gives four numbers a token. Tiles merge as in online softmax (Milakov and Gimelshein 2018, Online Normalizer
Calculation, section 3.1); the gradient computes them again. `token_log_prob` chooses.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from aco_jax.kernels import tiles

Pair = tuple[jax.Array, jax.Array]
Triple = tuple[jax.Array, jax.Array, jax.Array]


def token_log_prob(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Pair:
    """The reference for few logits; else Pallas on TPU and CUDA, chunks elsewhere.

    Args:
      hidden: [T, D].
      embedding: [V, D], logits are hidden @ embedding.T.
      tokens: [T] int in [0, V).

    Returns:
      (log_prob [T], entropy [T]), float32 nats.
    """
    _check(hidden, embedding, tokens)
    if hidden.shape[0] * embedding.shape[0] <= tiles.FEW_LOGITS:
        return reference(hidden, embedding, tokens)
    return _fused("chosen", tiles.CHUNK, hidden, embedding, tokens)


def reference(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Pair:
    """Plain jnp, arguments and results as in `token_log_prob`."""
    _check(hidden, embedding, tokens)
    log_p = jax.nn.log_softmax(tiles.product(hidden, embedding))
    log_prob = jnp.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0]
    return log_prob, -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def chunked(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int = tiles.CHUNK) -> Pair:
    """XLA, `chunk` vocabulary entries at a time, arguments and results as in `token_log_prob`."""
    _check(hidden, embedding, tokens)
    return _fused("chunked", chunk, hidden, embedding, tokens)


def pallas(
    hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, platform: str, chunk: int = tiles.CHUNK
) -> Pair:
    """Pallas forward, chunked gradient, arguments and results as in `token_log_prob`.

    Args:
      hidden: [T, D].
      embedding: [V, D].
      tokens: [T] int in [0, V).
      platform: "tpu", "cuda", or "interpret" to run the kernel's steps one by one anywhere.
      chunk: vocabulary entries a step of the gradient.
    """
    _check(hidden, embedding, tokens)
    return _fused(platform, chunk, hidden, embedding, tokens)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(form: str, chunk: int, hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Pair:
    log_prob, entropy, _ = _forward(form, chunk, hidden, embedding, tokens)
    return log_prob, entropy


def _fused_forward(
    form: str, chunk: int, hidden: chex.Array, embedding: chex.Array, tokens: chex.Array
) -> tuple[Pair, tuple[Any, ...]]:
    log_prob, entropy, normaliser = _forward(form, chunk, hidden, embedding, tokens)
    return (log_prob, entropy), (hidden, embedding, tokens, entropy, normaliser)


def _fused_backward(
    form: str, chunk: int, kept: tuple[Any, ...], cotangents: Pair
) -> tuple[jax.Array, jax.Array, None]:
    """d logits = g_log_prob (1[v = token] - p_v) - g_entropy p_v (log p_v + entropy), a chunk at a time."""
    del form  # the gradient is the same whatever computed the value
    hidden, embedding, tokens, entropy, normaliser = kept
    by_log_prob, by_entropy = (cotangent[None, :] for cotangent in cotangents)

    def step(d_hidden: jax.Array, piece: Pair) -> Pair:
        part, first = piece
        entry = tiles.entries(first, (chunk, hidden.shape[0]))
        log_p = tiles.product(part, hidden) - normaliser[None, :]
        p = jnp.where(entry < embedding.shape[0], jnp.exp(log_p), 0.0)
        stated = (entry == tokens[None, :]).astype(p.dtype)
        d_logits = by_log_prob * (stated - p) - by_entropy * p * (log_p + entropy[None, :])
        return d_hidden + d_logits.T @ part, d_logits @ hidden

    start = jnp.zeros(hidden.shape, jnp.float32)
    d_hidden, d_parts = jax.lax.scan(step, start, tiles.pieces(embedding, chunk))
    d_embedding = d_parts.reshape(-1, embedding.shape[1])[: embedding.shape[0]]
    return d_hidden.astype(hidden.dtype), d_embedding.astype(embedding.dtype), None


_fused.defvjp(_fused_forward, _fused_backward)


def _forward(form: str, chunk: int, hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Triple:
    tile = functools.partial(_tile, vocabulary=embedding.shape[0])
    return tiles.over_vocabulary(tile, _merge, [(hidden, embedding)], [tokens], form, chunk)


def _tile(logits: jax.Array, tokens: jax.Array, first: chex.Numeric, vocabulary: int) -> tuple[jax.Array, ...]:
    """What a tile [C, T] of logits says of each token: greatest, mass, mass x shifted logit, the token's own.

    Args:
      logits: [C, T], of vocabulary entries first, first + 1, ...
      tokens: [1, T].
      first: scalar int.
      vocabulary: V; later entries only fill the tile.

    Returns:
      four of [1, T].
    """
    own = jnp.sum(jnp.where(tiles.entries(first, logits.shape) == tokens, logits, 0.0), axis=0, keepdims=True)
    greatest, shifted, weight = tiles.exponentials(logits, first, vocabulary)
    mass = jnp.sum(weight, axis=0, keepdims=True)
    return greatest, mass, jnp.sum(weight * shifted, axis=0, keepdims=True), own


def _merge(greatest: jax.Array, mass: jax.Array, moment: jax.Array, own: jax.Array) -> Triple:
    """Tiles [n, 1, T] -> (log_prob [T], entropy [T], log of the normaliser [T])."""
    top = jnp.max(greatest, axis=0, keepdims=True)
    shift = greatest - top
    scale = jnp.exp(shift)
    total = jnp.sum(scale * mass, axis=(0, 1))
    shifted_mean = jnp.sum(scale * (moment + mass * shift), axis=(0, 1)) / total
    normaliser = top[0, 0] + jnp.log(total)
    return jnp.sum(own, axis=(0, 1)) - normaliser, jnp.log(total) - shifted_mean, normaliser


def _check(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> None:
    length, width = hidden.shape
    chex.assert_shape([embedding, tokens], [(None, width), (length,)])
