"""Counts of (s, a, s') in an array: each triple that was seen adds one to its cell.

`reference` is XLA's scatter-add. On TPU the triples are sorted, so that a piece of the counts, eight states after one
action, is fetched and written once however many triples fall into it; on CUDA each triple is one atomic addition. `add`
chooses.
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

MOST_TRIPLES = 1 << 14  # of all mapped replicas together: four numbers each in SMEM, 256 KB of 1 MB

_ROWS = 8  # of a fetched piece: what a vector register of a TPU holds


def add(counts: chex.Array, s_tm1: chex.Array, a_tm1: chex.Array, s_t: chex.Array, mask: chex.Array) -> jax.Array:
    """The counts with each unmasked (s, a, s') added; a triple given twice adds two.

    Args:
      counts: [S, A, S] int32.
      s_tm1: [n] int in [0, S).
      a_tm1: [n] int in [0, A).
      s_t: [n] int in [0, S).
      mask: [n] bool.
    """
    _check(counts, s_tm1, a_tm1, s_t, mask)
    forms = {platform: functools.partial(pallas, platform=platform) for platform in ("tpu", "cuda")}
    return jax.lax.platform_dependent(counts, s_tm1, a_tm1, s_t, mask, default=reference, **forms)


def reference(counts: chex.Array, s_tm1: chex.Array, a_tm1: chex.Array, s_t: chex.Array, mask: chex.Array) -> jax.Array:
    """Plain jnp, arguments and result as in `add`."""
    _check(counts, s_tm1, a_tm1, s_t, mask)
    return counts.at[s_tm1, a_tm1, s_t].add(mask.astype(counts.dtype))


def pallas(
    counts: chex.Array,
    s_tm1: chex.Array,
    a_tm1: chex.Array,
    s_t: chex.Array,
    mask: chex.Array,
    platform: str,
    interpret: bool | pltpu.InterpretParams = False,
) -> jax.Array:
    """Arguments and result as in `add`.

    Args:
      counts: [S, A, S] int32.
      s_tm1: [n] int in [0, S).
      a_tm1: [n] int in [0, A).
      s_t: [n] int in [0, S).
      mask: [n] bool.
      platform: "tpu" or "cuda".
      interpret: runs that platform's kernel step by step anywhere; InterpretParams as in a TPU's memory.
    """
    _check(counts, s_tm1, a_tm1, s_t, mask)
    columns = [jnp.asarray(column, jnp.int32) for column in (s_tm1, a_tm1, s_t, mask)]
    if platform == "tpu":
        # XLA keeps [S, A, S] with few actions as [A, S, S] anyway, for the last two axes are filled up to (8, 128).
        added = _add_by_pieces(interpret)(jnp.swapaxes(counts, 0, 1), columns[1], columns[0], *columns[2:])
        return jnp.swapaxes(added, 0, 1)
    return pl.pallas_call(
        _add_one,
        grid=columns[0].shape,
        out_shape=jax.ShapeDtypeStruct(counts.shape, counts.dtype),
        input_output_aliases={4: 0},
        compiler_params=pltriton.CompilerParams(num_warps=1),
        interpret=interpret,
        name="transition_counts",
    )(*columns, counts)


def _add_one(s_tm1: Any, a_tm1: Any, s_t: Any, seen: Any, _: Any, counts: Any) -> None:
    i = pl.program_id(0)
    pltriton.atomic_add(counts, (s_tm1[i], a_tm1[i], s_t[i]), seen[i])


def _add_by_pieces(interpret: bool | pltpu.InterpretParams) -> Callable[..., jax.Array]:
    """A function of counts [G, S, S] and, [n] int32 each, group, row, column and what to add there.

    Mapped over replicas it is one call of more groups: where pieces are chosen by mapped numbers, Pallas
    would go through the replicas and copy all counts of each.
    """

    @jax.custom_batching.custom_vmap
    def add_by_pieces(
        counts: jax.Array, group: jax.Array, row: jax.Array, column: jax.Array, seen: jax.Array
    ) -> jax.Array:
        if group.shape[0] > MOST_TRIPLES:
            return counts.at[group, row, column].add(seen)
        return _piece_call(counts, group, row, column, seen, interpret)

    @add_by_pieces.def_vmap
    def mapped(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[jax.Array, bool]:
        counts, group, row, column, seen = (
            x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_batched in zip(arrays, batched, strict=True)
        )
        group = group + counts.shape[1] * jnp.arange(size)[:, None]
        triples = (x.reshape(-1) for x in (group, row, column, seen))
        return add_by_pieces(counts.reshape(-1, *counts.shape[2:]), *triples).reshape(counts.shape), True

    return add_by_pieces


def _piece_call(
    counts: jax.Array,
    group: jax.Array,
    row: jax.Array,
    column: jax.Array,
    seen: jax.Array,
    interpret: bool | pltpu.InterpretParams,
) -> jax.Array:
    """Pieces [1, 8, S], in order: a piece is fetched before its first triple and written after its last."""
    ordered = jax.lax.sort((group, row, column, seen), num_keys=2)
    piece = pl.BlockSpec(
        (1, _ROWS, counts.shape[2]), lambda i, group, row, *_: (group[i], jax.lax.div(row[i], _ROWS), 0)
    )
    return pl.pallas_call(
        _add_to_piece,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4, grid=group.shape, in_specs=[piece], out_specs=piece
        ),
        out_shape=jax.ShapeDtypeStruct(counts.shape, counts.dtype),
        input_output_aliases={4: 0},
        interpret=interpret,
        name="transition_counts",
    )(*ordered, counts)


def _add_to_piece(group: Any, row: Any, column: Any, seen: Any, before: Any, after: Any) -> None:
    i = pl.program_id(0)
    last = jnp.maximum(i - 1, 0)

    @pl.when((i == 0) | (group[i] != group[last]) | (jax.lax.div(row[i], _ROWS) != jax.lax.div(row[last], _ROWS)))
    def _() -> None:
        after[...] = before[...]

    own_row, own_column = (jax.lax.broadcasted_iota(jnp.int32, after.shape, axis) for axis in (1, 2))
    after[...] += jnp.where((own_row == jax.lax.rem(row[i], _ROWS)) & (own_column == column[i]), seen[i], 0)


def _check(counts: chex.Array, *columns: chex.Array) -> None:
    states, actions, _ = counts.shape
    chex.assert_shape(counts, (states, actions, states))
    chex.assert_type(counts, jnp.int32)
    chex.assert_rank(columns, 1)
    chex.assert_equal_shape(columns)
