"""KL divergence of two models' next-token distributions, from hidden states and output embeddings.

KL(p || p_ref) = sum_v p_v (log p_v - log p_ref_v), exact. `reference` forms all logits [T, V] of both; `chunked` (XLA)
and `pallas` see a tile of the vocabulary at a time, which gives five numbers a token. Tiles merge as in
`token_log_prob`; the gradient computes them again. `token_kl` chooses.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from aco_jax.kernels import tiles

Triple = tuple[jax.Array, jax.Array, jax.Array]


def token_kl(hidden: chex.Array, embedding: chex.Array, hidden_ref: chex.Array, embedding_ref: chex.Array) -> jax.Array:
    """The reference for few logits; else Pallas on TPU and CUDA, chunks elsewhere.

    Args:
      hidden: [T, D].
      embedding: [V, D], logits are hidden @ embedding.T.
      hidden_ref: [T, E], of a model that is a constant: no gradient reaches it.
      embedding_ref: [V, E], as constant.

    Returns:
      KL(p || p_ref) [T], float32 nats.
    """
    _check(hidden, embedding, hidden_ref, embedding_ref)
    if hidden.shape[0] * embedding.shape[0] <= tiles.FEW_LOGITS:
        return reference(hidden, embedding, hidden_ref, embedding_ref)
    return _fused("chosen", tiles.CHUNK, hidden, embedding, hidden_ref, embedding_ref)


def reference(
    hidden: chex.Array, embedding: chex.Array, hidden_ref: chex.Array, embedding_ref: chex.Array
) -> jax.Array:
    """Plain jnp, arguments and result as in `token_kl`."""
    _check(hidden, embedding, hidden_ref, embedding_ref)
    log_p = jax.nn.log_softmax(tiles.product(hidden, embedding))
    log_p_ref = jax.lax.stop_gradient(jax.nn.log_softmax(tiles.product(hidden_ref, embedding_ref)))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_p_ref), axis=1)


def chunked(
    hidden: chex.Array,
    embedding: chex.Array,
    hidden_ref: chex.Array,
    embedding_ref: chex.Array,
    chunk: int = tiles.CHUNK,
) -> jax.Array:
    """XLA, `chunk` vocabulary entries at a time, arguments and result as in `token_kl`."""
    _check(hidden, embedding, hidden_ref, embedding_ref)
    return _fused("chunked", chunk, hidden, embedding, hidden_ref, embedding_ref)


def pallas(
    hidden: chex.Array,
    embedding: chex.Array,
    hidden_ref: chex.Array,
    embedding_ref: chex.Array,
    platform: str,
    chunk: int = tiles.CHUNK,
) -> jax.Array:
    """Pallas forward, chunked gradient, arguments and result as in `token_kl`.

    Args:
      hidden: [T, D].
      embedding: [V, D].
      hidden_ref: [T, E].
      embedding_ref: [V, E].
      platform: "tpu", "cuda", or "interpret" to run the kernel's steps one by one anywhere.
      chunk: vocabulary entries a step of the gradient.
    """
    _check(hidden, embedding, hidden_ref, embedding_ref)
    return _fused(platform, chunk, hidden, embedding, hidden_ref, embedding_ref)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(
    form: str,
    chunk: int,
    hidden: chex.Array,
    embedding: chex.Array,
    hidden_ref: chex.Array,
    embedding_ref: chex.Array,
) -> jax.Array:
    return _forward(form, chunk, hidden, embedding, hidden_ref, embedding_ref)[0]


def _fused_forward(form: str, chunk: int, *arrays: chex.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    kl, normaliser, normaliser_ref = _forward(form, chunk, *arrays)
    return kl, (*arrays, kl, normaliser, normaliser_ref)


def _fused_backward(
    form: str, chunk: int, kept: tuple[Any, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    """d logits = g p_v (log p_v - log p_ref_v - KL), a chunk at a time."""
    del form  # the gradient is the same whatever computed the value
    hidden, embedding, hidden_ref, embedding_ref, kl, normaliser, normaliser_ref = kept

    def step(d_hidden: jax.Array, piece: Triple) -> tuple[jax.Array, jax.Array]:
        part, part_ref, first = piece
        log_p = tiles.product(part, hidden) - normaliser[None, :]
        log_p_ref = tiles.product(part_ref, hidden_ref) - normaliser_ref[None, :]
        p = jnp.where(tiles.entries(first, log_p.shape) < embedding.shape[0], jnp.exp(log_p), 0.0)
        d_logits = cotangent[None, :] * p * (log_p - log_p_ref - kl[None, :])
        return d_hidden + d_logits.T @ part, d_logits @ hidden

    parts, first = tiles.pieces(embedding, chunk)
    start = jnp.zeros(hidden.shape, jnp.float32)
    d_hidden, d_parts = jax.lax.scan(step, start, (parts, tiles.pieces(embedding_ref, chunk)[0], first))
    d_embedding = d_parts.reshape(-1, embedding.shape[1])[: embedding.shape[0]]
    return d_hidden.astype(hidden.dtype), d_embedding.astype(embedding.dtype), None, None


_fused.defvjp(_fused_forward, _fused_backward)


def _forward(
    form: str,
    chunk: int,
    hidden: chex.Array,
    embedding: chex.Array,
    hidden_ref: chex.Array,
    embedding_ref: chex.Array,
) -> Triple:
    tile = functools.partial(_tile, vocabulary=embedding.shape[0])
    return tiles.over_vocabulary(tile, _merge, [(hidden, embedding), (hidden_ref, embedding_ref)], [], form, chunk)


def _tile(logits: jax.Array, logits_ref: jax.Array, first: chex.Numeric, vocabulary: int) -> tuple[jax.Array, ...]:
    """Of a tile [C, T]: greatest and mass of either model, and p's mass x difference of the shifted logits.

    Args:
      logits: [C, T], of vocabulary entries first, first + 1, ...
      logits_ref: [C, T].
      first: scalar int.
      vocabulary: V; later entries only fill the tile.

    Returns:
      five of [1, T].
    """
    greatest, shifted, weight = tiles.exponentials(logits, first, vocabulary)
    greatest_ref, shifted_ref, weight_ref = tiles.exponentials(logits_ref, first, vocabulary)
    mass, mass_ref = (jnp.sum(x, axis=0, keepdims=True) for x in (weight, weight_ref))
    return greatest, mass, greatest_ref, mass_ref, jnp.sum(weight * (shifted - shifted_ref), axis=0, keepdims=True)


def _merge(
    greatest: jax.Array, mass: jax.Array, greatest_ref: jax.Array, mass_ref: jax.Array, moment: jax.Array
) -> Triple:
    """Tiles [n, 1, T] -> (KL [T], logs of the two normalisers [T])."""
    top, top_ref = (jnp.max(x, axis=0, keepdims=True) for x in (greatest, greatest_ref))
    shift, shift_ref = greatest - top, greatest_ref - top_ref
    scale = jnp.exp(shift)
    total = jnp.sum(scale * mass, axis=(0, 1))
    total_ref = jnp.sum(jnp.exp(shift_ref) * mass_ref, axis=(0, 1))
    difference = jnp.sum(scale * (moment + mass * (shift - shift_ref)), axis=(0, 1)) / total
    kl = difference - jnp.log(total) + jnp.log(total_ref)
    return kl, top[0, 0] + jnp.log(total), top_ref[0, 0] + jnp.log(total_ref)


def _check(hidden: chex.Array, embedding: chex.Array, hidden_ref: chex.Array, embedding_ref: chex.Array) -> None:
    (length, width), (vocabulary, _) = hidden.shape, embedding.shape
    chex.assert_shape([embedding, hidden_ref, embedding_ref], [(None, width), (length, None), (vocabulary, None)])
    chex.assert_equal_shape_suffix([hidden_ref, embedding_ref], 1)
