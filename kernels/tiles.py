"""Logits a tile at a time: what the kernels over a vocabulary share.

Logits [T, V] are hidden [T, D] @ embedding [V, D].T. A tile [C, T] is of C vocabulary entries, the tokens last so that
they fill the lanes of a vector register; what is kept of it is a few numbers a token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton

CHUNK = 1024  # vocabulary entries a step of the chunked forms: 4 KB a token
FEW_LOGITS = 1 << 22  # 16 MB: below it storing the logits is cheaper than computing them twice
NEVER = -1e30  # the logit of an entry that only fills the last tile
WIDEST = 4096  # D of all sides together that the TPU kernels take

_TILE = 1 << 19  # numbers of the embedding in VMEM: 2 MB in float32, and as much again while the next arrives

Side = tuple[chex.Array, chex.Array]  # hidden [T, D], embedding [V, D]
Tile = Callable[..., tuple[jax.Array, ...]]
Merged = TypeVar("Merged")


def over_vocabulary(
    tile: Tile, merge: Callable[..., Merged], sides: Sequence[Side], tokens: Sequence[chex.Array], form: str, chunk: int
) -> Merged:
    """What `tile` says of each token and each tile of the vocabulary, merged over the tiles.

    Args:
      tile: (logits [C, T] a side, tokens [1, T] each, the tile's first vocabulary entry) -> numbers [1, T].
      merge: takes as many arguments, each [tiles, 1, T].
      sides: of equal T and V; the widths may differ.
      tokens: [T] int32 each.
      form: "chunked", "tpu", "cuda", "interpret", or "chosen" by the platform.
      chunk: C of the chunked form.

    Returns:
      what `merge` gives.
    """
    arrays = [x for side in sides for x in side] + [jnp.asarray(x, jnp.int32) for x in tokens]
    platforms = ("tpu", "cuda", "interpret")
    forms = {platform: functools.partial(_pallas, tile, merge, len(sides), platform) for platform in platforms}
    forms["chunked"] = functools.partial(_chunked, tile, merge, len(sides), chunk)
    if form != "chosen":
        return forms[form](*arrays)
    chosen = {"default": forms["chunked"], "cuda": forms["cuda"]}
    if _width(sides) <= WIDEST:
        chosen["tpu"] = forms["tpu"]
    return jax.lax.platform_dependent(*arrays, **chosen)


def pieces(embedding: chex.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """[V, D] -> ([n, chunk, D] filled up with zeros, [n] the first entry of each)."""
    padded = _pad(embedding, chunk, 1)
    count = padded.shape[0] // chunk
    return padded.reshape(count, chunk, -1), jnp.arange(count, dtype=jnp.int32) * chunk


def entries(first: chex.Numeric, shape: tuple[int, ...]) -> jax.Array:
    """The vocabulary entry of each logit of a tile."""
    return first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)


def product(a: chex.Array, b: chex.Array) -> jax.Array:
    """a @ b.T in float32."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def exponentials(logits: jax.Array, first: chex.Numeric, vocabulary: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of a tile [C, T]: each token's greatest logit [1, T], the logits less that, and their exponentials.

    Args:
      logits: [C, T], of vocabulary entries first, first + 1, ...
      first: scalar int.
      vocabulary: V; later entries only fill the tile.
    """
    logits = jnp.where(entries(first, logits.shape) < vocabulary, logits, NEVER)
    greatest = jnp.max(logits, axis=0, keepdims=True)
    shifted = logits - greatest
    return greatest, shifted, jnp.exp(shifted)


def _chunked(tile: Tile, merge: Callable[..., Merged], sides: int, chunk: int, *arrays: chex.Array) -> Merged:
    hiddens, embeddings, tokens = _apart(arrays, sides)
    parts = [pieces(embedding, chunk)[0] for embedding in embeddings]
    first = pieces(embeddings[0], chunk)[1]

    def step(piece: tuple[list[jax.Array], jax.Array]) -> tuple[jax.Array, ...]:
        logits = [product(part, hidden) for part, hidden in zip(piece[0], hiddens, strict=True)]
        return tile(*logits, *(x[None, :] for x in tokens), piece[1])

    return merge(*jax.lax.map(step, (parts, first)))


def _pallas(tile: Tile, merge: Callable[..., Merged], sides: int, platform: str, *arrays: chex.Array) -> Merged:
    """A grid of (token blocks, vocabulary blocks), each independent of the others: nothing accumulates."""
    hiddens, embeddings, tokens = _apart(arrays, sides)
    length = hiddens[0].shape[0]
    rows, columns, width, options = _layout(platform, sum(x.shape[1] for x in hiddens))
    hiddens = [_pad(x, rows, width or x.shape[1]) for x in hiddens]
    embeddings = [_pad(x, columns, width or x.shape[1]) for x in embeddings]
    tokens = [_pad(x[None, :], 1, rows) for x in tokens]
    blocks = (hiddens[0].shape[0] // rows, embeddings[0].shape[0] // columns)
    logits, row = (jax.ShapeDtypeStruct((size, rows), jnp.float32) for size in (columns, 1))
    count = len(jax.eval_shape(tile, *[logits] * sides, *[row] * len(tokens), 0))
    out = jax.ShapeDtypeStruct((blocks[1], 1, hiddens[0].shape[0]), jnp.float32)
    found = pl.pallas_call(
        functools.partial(_kernel, tile=tile, sides=sides, tokens=len(tokens), width=width),
        grid=blocks,
        in_specs=[pl.BlockSpec((rows, x.shape[1]), lambda i, j: (i, 0)) for x in hiddens]
        + [pl.BlockSpec((columns, x.shape[1]), lambda i, j: (j, 0)) for x in embeddings]
        + [pl.BlockSpec((1, rows), lambda i, j: (0, i)) for _ in tokens],
        out_specs=[pl.BlockSpec((1, 1, rows), lambda i, j: (j, 0, i))] * count,
        out_shape=[out] * count,
        name="vocabulary_tiles",
        **options,
    )(*hiddens, *embeddings, *tokens)
    return merge(*(x[..., :length] for x in found))


def _kernel(*refs: Any, tile: Tile, sides: int, tokens: int, width: int | None) -> None:
    hiddens, embeddings, rows = refs[:sides], refs[sides : 2 * sides], refs[2 * sides : 2 * sides + tokens]
    logits = []
    for hidden, embedding in zip(hiddens, embeddings, strict=True):
        step = width or hidden.shape[1]
        parts = [slice(start, start + step) for start in range(0, hidden.shape[1], step)]
        logits.append(sum(product(embedding[:, part], hidden[:, part]) for part in parts))
    values = tile(*logits, *(row[...] for row in rows), pl.program_id(1) * embeddings[0].shape[0])
    for output, value in zip(refs[2 * sides + tokens :], values, strict=True):
        output[0] = value


def _layout(platform: str, total: int) -> tuple[int, int, int | None, dict[str, Any]]:
    """Tokens and vocabulary entries of a tile, the part of the width taken in one product, and pallas_call's options.

    Args:
      platform: "tpu", "cuda" or "interpret".
      total: D of all sides together.
    """
    if platform == "tpu":  # tokens fill whole lanes; the width is taken at once
        columns = max(128, min(512, _TILE // total // 128 * 128))
        semantics = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"))
        return 128, columns, None, {"compiler_params": semantics}
    if platform == "cuda":  # tiles of 16 KB whose sides are powers of two
        return 64, 64, 64, {"compiler_params": pltriton.CompilerParams(num_warps=4, num_stages=2)}
    return 8, 16, 16, {"interpret": True}


def _apart(arrays: Sequence[chex.Array], sides: int) -> tuple[list[chex.Array], list[chex.Array], list[chex.Array]]:
    """(hidden, embedding) a side, then tokens -> hiddens, embeddings, tokens."""
    return list(arrays[0 : 2 * sides : 2]), list(arrays[1 : 2 * sides : 2]), list(arrays[2 * sides :])


def _width(sides: Sequence[Side]) -> int:
    return sum(hidden.shape[1] for hidden, _ in sides)


def _pad(x: chex.Array, rows: int, columns: int) -> jax.Array:
    """Zeros after the last row and column, up to multiples."""
    return jnp.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % columns)))
