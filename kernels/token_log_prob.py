"""Log-probability of given tokens, and the entropy around them, from hidden states and the output embedding.

`reference` forms all logits [T, V]. `chunked` (XLA) and `pallas` see a tile of the vocabulary at a time,
which gives four numbers a token. Tiles merge as in online softmax (Milakov and Gimelshein 2018, Online Normalizer
Calculation, section 3.1); the gradient computes them again. `token_log_prob` chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton

CHUNK = 1024  # vocabulary entries a step of the chunked forms: 4 KB a token
FEW_LOGITS = 1 << 22  # 16 MB: below it storing the logits is cheaper than computing them twice

_NEVER = -1e30  # the logit of an entry that only fills the last tile

Pair = tuple[jax.Array, jax.Array]
Triple = tuple[jax.Array, jax.Array, jax.Array]
Forward = Callable[[chex.Array, chex.Array, chex.Array, int], Triple]


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
    if hidden.shape[0] * embedding.shape[0] <= FEW_LOGITS:
        return reference(hidden, embedding, tokens)
    return _fused(_by_platform, CHUNK, hidden, embedding, tokens)


def reference(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Pair:
    """Plain jnp, arguments and results as in `token_log_prob`."""
    _check(hidden, embedding, tokens)
    log_p = jax.nn.log_softmax(_product(hidden, embedding))
    log_prob = jnp.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0]
    return log_prob, -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def chunked(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int = CHUNK) -> Pair:
    """XLA, `chunk` vocabulary entries at a time, arguments and results as in `token_log_prob`."""
    _check(hidden, embedding, tokens)
    return _fused(_chunked_forward, chunk, hidden, embedding, tokens)


def pallas(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, platform: str, chunk: int = CHUNK) -> Pair:
    """Pallas forward, chunked gradient, arguments and results as in `token_log_prob`.

    Args:
      hidden: [T, D].
      embedding: [V, D].
      tokens: [T] int in [0, V).
      platform: "tpu", "cuda", or "interpret" to run the kernel's steps one by one anywhere.
      chunk: vocabulary entries a step of the gradient.
    """
    _check(hidden, embedding, tokens)
    forwards: dict[str, Forward] = {"tpu": _on_tpu, "cuda": _on_cuda, "interpret": _interpreted}
    return _fused(forwards[platform], chunk, hidden, embedding, tokens)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(forward: Forward, chunk: int, hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> Pair:
    log_prob, entropy, _ = forward(hidden, embedding, tokens, chunk)
    return log_prob, entropy


def _fused_forward(
    forward: Forward, chunk: int, hidden: chex.Array, embedding: chex.Array, tokens: chex.Array
) -> tuple[Pair, tuple[Any, ...]]:
    log_prob, entropy, normaliser = forward(hidden, embedding, tokens, chunk)
    return (log_prob, entropy), (hidden, embedding, tokens, entropy, normaliser)


def _fused_backward(
    forward: Forward, chunk: int, kept: tuple[Any, ...], cotangents: Pair
) -> tuple[jax.Array, jax.Array, None]:
    """d logits = g_log_prob (1[v = token] - p_v) - g_entropy p_v (log p_v + entropy), a chunk at a time."""
    del forward  # the gradient is the same whatever computed the value
    hidden, embedding, tokens, entropy, normaliser = kept
    by_log_prob, by_entropy = (cotangent[None, :] for cotangent in cotangents)

    def step(d_hidden: jax.Array, piece: Pair) -> Pair:
        part, first = piece
        column = _columns(first, (chunk, hidden.shape[0]))
        log_p = _product(part, hidden) - normaliser[None, :]
        p = jnp.where(column < embedding.shape[0], jnp.exp(log_p), 0.0)
        stated = (column == tokens[None, :]).astype(p.dtype)
        d_logits = by_log_prob * (stated - p) - by_entropy * p * (log_p + entropy[None, :])
        return d_hidden + d_logits.T @ part, d_logits @ hidden

    start = jnp.zeros(hidden.shape, jnp.float32)
    d_hidden, d_parts = jax.lax.scan(step, start, _pieces(embedding, chunk))
    d_embedding = d_parts.reshape(-1, embedding.shape[1])[: embedding.shape[0]]
    return d_hidden.astype(hidden.dtype), d_embedding.astype(embedding.dtype), None


_fused.defvjp(_fused_forward, _fused_backward)


def _by_platform(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int) -> Triple:
    forms = {"tpu": _on_tpu, "cuda": _on_cuda, "default": _chunked_forward}
    branches = {platform: functools.partial(form, chunk=chunk) for platform, form in forms.items()}
    return jax.lax.platform_dependent(hidden, embedding, tokens, **branches)


def _chunked_forward(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int) -> Triple:
    def step(piece: Pair) -> tuple[jax.Array, ...]:
        part, first = piece
        return _tile(_product(part, hidden), jnp.asarray(tokens)[None, :], first, embedding.shape[0])

    return _merge(*jax.lax.map(step, _pieces(embedding, chunk)))


def _on_tpu(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int) -> Triple:
    """Tokens fill whole lanes; the width is taken in one product."""
    params = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"))
    return _pallas_forward(hidden, embedding, tokens, rows=128, columns=512, compiler_params=params)


def _on_cuda(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int) -> Triple:
    """Triton: tiles of 16 KB whose sides are powers of two."""
    params = pltriton.CompilerParams(num_warps=4, num_stages=2)
    return _pallas_forward(hidden, embedding, tokens, rows=64, columns=64, width=64, compiler_params=params)


def _interpreted(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array, chunk: int) -> Triple:
    return _pallas_forward(hidden, embedding, tokens, rows=8, columns=16, width=16, interpret=True)


def _pallas_forward(
    hidden: chex.Array,
    embedding: chex.Array,
    tokens: chex.Array,
    *,
    rows: int,
    columns: int,
    width: int | None = None,
    **options: Any,
) -> Triple:
    """A grid of (token blocks, vocabulary blocks), each independent of the others: nothing accumulates."""
    length, vocabulary = hidden.shape[0], embedding.shape[0]
    width = width or hidden.shape[1]
    hidden = _pad(hidden, rows, width)
    embedding = _pad(embedding, columns, width)
    tokens = _pad(jnp.asarray(tokens, jnp.int32)[None, :], 1, rows)
    blocks = (hidden.shape[0] // rows, embedding.shape[0] // columns)
    out = jax.ShapeDtypeStruct((blocks[1], 1, hidden.shape[0]), jnp.float32)
    partials = pl.pallas_call(
        functools.partial(_tile_kernel, vocabulary=vocabulary, width=width),
        grid=blocks,
        in_specs=[
            pl.BlockSpec((rows, hidden.shape[1]), lambda i, j: (i, 0)),
            pl.BlockSpec((columns, hidden.shape[1]), lambda i, j: (j, 0)),
            pl.BlockSpec((1, rows), lambda i, j: (0, i)),
        ],
        out_specs=[pl.BlockSpec((1, 1, rows), lambda i, j: (j, 0, i))] * 4,
        out_shape=[out] * 4,
        name="token_log_prob",
        **options,
    )(hidden, embedding, tokens)
    log_prob, entropy, normaliser = _merge(*partials)
    return log_prob[:length], entropy[:length], normaliser[:length]


def _tile_kernel(hidden: Any, embedding: Any, tokens: Any, *outputs: Any, vocabulary: int, width: int) -> None:
    columns = embedding.shape[0]
    logits = jnp.zeros((columns, hidden.shape[0]), jnp.float32)
    for start in range(0, hidden.shape[1], width):
        part = slice(start, start + width)
        logits += _product(embedding[:, part], hidden[:, part])
    values = _tile(logits, tokens[...], pl.program_id(1) * columns, vocabulary)
    for output, value in zip(outputs, values, strict=True):
        output[0] = value


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
    column = _columns(first, logits.shape)
    own = jnp.sum(jnp.where(column == tokens, logits, 0.0), axis=0, keepdims=True)
    logits = jnp.where(column < vocabulary, logits, _NEVER)
    greatest = jnp.max(logits, axis=0, keepdims=True)
    shifted = logits - greatest
    weight = jnp.exp(shifted)
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


def _pieces(embedding: chex.Array, chunk: int) -> Pair:
    """[V, D] -> ([n, chunk, D] filled up with zeros, [n] the first entry of each)."""
    padded = _pad(embedding, chunk, 1)
    count = padded.shape[0] // chunk
    return padded.reshape(count, chunk, -1), jnp.arange(count, dtype=jnp.int32) * chunk


def _columns(first: chex.Numeric, shape: tuple[int, ...]) -> jax.Array:
    return first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)


def _product(a: chex.Array, b: chex.Array) -> jax.Array:
    """a @ b.T in float32."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _pad(x: chex.Array, rows: int, columns: int) -> jax.Array:
    """Zeros after the last row and column, up to multiples."""
    return jnp.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % columns)))


def _check(hidden: chex.Array, embedding: chex.Array, tokens: chex.Array) -> None:
    length, width = hidden.shape
    chex.assert_shape([embedding, tokens], [(None, width), (length,)])
