"""A sum tree in an array: leaves are set and their ancestors recomputed, and cumulated masses find their leaf.

Schaul et al. 2016, Prioritized Experience Replay, appendix B.2.1.

The tree is a heap of 2 * L numbers, L a power of two: node 1 is the root, node i has children 2i and 2i + 1, slot j
is the leaf L + j. Every touched ancestor is recomputed from its two children: adding differences instead would
drift, and after the priorities have shrunk the drift outweighs what is left.

Leaves are written by XLA in every form, which so agree on repeated slots. What a kernel saves is the loop over the
levels, on an accelerator a launch or two for each. On TPU the tree lies in SMEM and slots are taken one by one; on
CUDA it stays in global memory, one block of threads takes all slots up, and blocks of threads take masses down.
`update` and `descend` choose: the reference on other platforms, for more than `MOST_SLOTS` slots or masses at once, and
on TPU for more than `LARGEST_TREE` numbers.
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

LARGEST_TREE = 1 << 15  # numbers, 2^14 slots: SMEM is 1 MB, and argument and result have two buffers each
MOST_SLOTS = 4096  # 16 a thread of the one block that takes them up on CUDA

_COARSE = 12  # levels that one draw decides: 4096 nodes, each with some 2^11 values of it
_THREADS = 128  # masses a block of threads takes down


def update(tree: chex.Array, slot: chex.Array, value: chex.Array, mask: chex.Array) -> jax.Array:
    """The tree with leaves set and their ancestors recomputed; among repeated slots the greatest value wins.

    Args:
      tree: [2 * L] float32, >= 0.
      slot: [n] int, in [0, L) where unmasked.
      value: [n] float32, >= 0.
      mask: [n] bool; a masked entry sets nothing.
    """
    _check(tree, slot, value, mask)
    forms = {name: functools.partial(pallas_update, platform=name) for name in _fitting(tree, slot)}
    return jax.lax.platform_dependent(tree, slot, value, mask, default=reference_update, **forms)


def descend(tree: chex.Array, mass: chex.Array, fine: chex.Array) -> jax.Array:
    """The slot in which each cumulated mass falls; one of positive value if there is any.

    A float32 draw has 2^23 values, too few for a million slots: the mass decides twelve levels, and the way below them
    is drawn anew within the node.

    Args:
      tree: [2 * L] float32, >= 0.
      mass: [n] float32, >= 0, usually below tree[1].
      fine: [n] float32 in [0, 1), the second draw.

    Returns:
      [n] int32.
    """
    _check(tree, mass, fine)
    forms = {name: functools.partial(pallas_descend, platform=name) for name in _fitting(tree, mass)}
    return jax.lax.platform_dependent(tree, mass, fine, default=reference_descend, **forms)


def reference_update(tree: chex.Array, slot: chex.Array, value: chex.Array, mask: chex.Array) -> jax.Array:
    """Plain jnp, arguments and result as in `update`."""
    _check(tree, slot, value, mask)
    tree, leaf = _set_leaves(tree, slot, value, mask)

    def up(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        tree, node = carry
        node = node >> 1
        return tree.at[node].set(tree[2 * node] + tree[2 * node + 1]), node

    return jax.lax.fori_loop(0, _depth(tree), up, (tree, leaf))[0]


def reference_descend(tree: chex.Array, mass: chex.Array, fine: chex.Array) -> jax.Array:
    """Plain jnp, arguments and result as in `descend`."""
    _check(tree, mass, fine)
    return _walk(tree, jnp.ones(mass.shape, jnp.int32), mass, fine)


def pallas_update(
    tree: chex.Array, slot: chex.Array, value: chex.Array, mask: chex.Array, platform: str, interpret: bool = False
) -> jax.Array:
    """Arguments and result as in `update`.

    Args:
      tree: [2 * L] float32.
      slot: [n] int.
      value: [n] float32.
      mask: [n] bool.
      platform: "tpu" or "cuda".
      interpret: runs that platform's kernel step by step anywhere.
    """
    _check(tree, slot, value, mask)
    tree, leaf = _set_leaves(tree, slot, value, mask)
    if platform == "tpu":
        return _in_scalar_memory(_ascend_one_by_one, tree, "sum_tree_update", interpret)(tree, leaf)
    # What fills the block goes up from the first leaf too: Triton's blocks are powers of two.
    leaf = jnp.pad(leaf, (0, pl.next_power_of_2(leaf.shape[0]) - leaf.shape[0]), constant_values=_leaves(tree))
    return pl.pallas_call(
        functools.partial(_ascend_together, barrier=_no_barrier if interpret else pltriton.debug_barrier),
        out_shape=jax.ShapeDtypeStruct(tree.shape, tree.dtype),
        input_output_aliases={0: 0},
        compiler_params=pltriton.CompilerParams(num_warps=8),
        interpret=interpret,
        name="sum_tree_update",
    )(tree, leaf)


def pallas_descend(
    tree: chex.Array, mass: chex.Array, fine: chex.Array, platform: str, interpret: bool = False
) -> jax.Array:
    """Arguments and result as in `descend`.

    Args:
      tree: [2 * L] float32.
      mass: [n] float32.
      fine: [n] float32.
      platform: "tpu" or "cuda".
      interpret: runs that platform's kernel step by step anywhere.
    """
    _check(tree, mass, fine)
    if platform == "tpu":
        slot = jax.ShapeDtypeStruct(mass.shape, jnp.int32)
        return _in_scalar_memory(_descend_one_by_one, slot, "sum_tree_descend", interpret)(tree, mass, fine)
    masses, shares = (jnp.pad(x, (0, -x.shape[0] % _THREADS)) for x in (mass, fine))
    row = pl.BlockSpec((_THREADS,), lambda i: (i,))
    slot = pl.pallas_call(
        _descend_together,
        grid=(masses.shape[0] // _THREADS,),
        in_specs=[pl.BlockSpec(tree.shape, lambda i: (0,)), row, row],
        out_specs=row,
        out_shape=jax.ShapeDtypeStruct(masses.shape, jnp.int32),
        compiler_params=pltriton.CompilerParams(num_warps=_THREADS // 32),
        interpret=interpret,
        name="sum_tree_descend",
    )(tree, masses, shares)
    return slot[: mass.shape[0]]


def _set_leaves(tree: chex.Array, slot: chex.Array, value: chex.Array, mask: chex.Array) -> tuple[jax.Array, jax.Array]:
    """The tree with its leaves set, and the leaves [n] to go up from."""
    leaves = _leaves(tree)
    touched = jnp.where(mask, leaves + slot, 2 * leaves)
    tree = tree.at[touched].set(0.0, mode="drop").at[touched].max(value, mode="drop")
    # A masked entry recomputes the ancestors of the first leaf, which changes nothing.
    return tree, jnp.where(mask, leaves + slot, leaves)


def _walk(tree: Any, node: jax.Array, mass: jax.Array, fine: jax.Array) -> jax.Array:
    """From `node` down to a slot, all masses at once or one; the tree is an array or a reference to one."""

    def down(level: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        node, mass = carry
        mass = jnp.where(level == _COARSE, fine * tree[node], mass)
        left, right = tree[2 * node], tree[2 * node + 1]
        # Rounding may point past the last positive leaf of a subtree: an empty child is never entered.
        go_right = (right > 0) & ((mass >= left) | (left <= 0))
        return 2 * node + jnp.where(go_right, 1, 0), jnp.where(go_right, mass - left, mass)

    return jax.lax.fori_loop(0, _depth(tree), down, (node, mass))[0] - _leaves(tree)


def _ascend_together(_: Any, leaf: Any, tree: Any, barrier: Callable[[], None]) -> None:
    """CUDA: a level at a time, in place; nodes of one level do not depend on one another."""
    node = leaf[...]
    for _ in range(_depth(tree)):
        node = node >> 1
        tree[node] = tree[2 * node] + tree[2 * node + 1]
        barrier()


def _descend_together(tree: Any, mass: Any, fine: Any, slot: Any) -> None:
    """CUDA: all masses of a block of threads at once."""
    slot[...] = _walk(tree, jnp.ones(mass.shape, jnp.int32), mass[...], fine[...])


def _ascend_one_by_one(tree: Any, leaf: Any, out: Any) -> None:
    """TPU, where the buffers of argument and result are two."""

    def copy(i: jax.Array, _: None) -> None:
        out[i] = tree[i]

    jax.lax.fori_loop(0, tree.shape[0], copy, None)

    def from_leaf(i: jax.Array, _: None) -> None:
        def up(_: int, node: jax.Array) -> jax.Array:
            node = node >> 1
            out[node] = out[2 * node] + out[2 * node + 1]
            return node

        jax.lax.fori_loop(0, _depth(tree), up, leaf[i])

    jax.lax.fori_loop(0, leaf.shape[0], from_leaf, None)


def _descend_one_by_one(tree: Any, mass: Any, fine: Any, slot: Any) -> None:
    """TPU."""

    def take_down(i: jax.Array, _: None) -> None:
        slot[i] = _walk(tree, jnp.int32(1), mass[i], fine[i])

    jax.lax.fori_loop(0, mass.shape[0], take_down, None)


def _in_scalar_memory(kernel: Callable[..., None], out: Any, name: str, interpret: bool) -> Any:
    """A kernel of rows that lie in SMEM whole, as does its result, which is like `out`.

    Mosaic takes a block of a mapped array whose last two axes are whole: hence the axis of one.
    """

    def spec(x: Any) -> pl.BlockSpec:
        return pl.BlockSpec((None, *x.shape), lambda: (0, 0), memory_space=pltpu.SMEM)

    def call(*rows: jax.Array) -> jax.Array:
        return pl.pallas_call(
            kernel,
            in_specs=[spec(row) for row in rows],
            out_specs=spec(out),
            out_shape=jax.ShapeDtypeStruct((1, *out.shape), out.dtype),
            interpret=interpret,
            name=name,
        )(*(row[None] for row in rows))[0]

    return call


def _fitting(tree: chex.Array, entries: chex.Array) -> list[str]:
    """The platforms whose kernel takes these sizes."""
    if entries.shape[0] > MOST_SLOTS:
        return []
    return ["tpu", "cuda"] if tree.shape[0] <= LARGEST_TREE else ["cuda"]


def _leaves(tree: Any) -> int:
    return tree.shape[0] // 2


def _depth(tree: Any) -> int:
    return _leaves(tree).bit_length() - 1


def _no_barrier() -> None:
    """Interpreted, nothing runs at the same time."""


def _check(tree: chex.Array, *columns: chex.Array) -> None:
    chex.assert_rank([tree, *columns], 1)
    chex.assert_equal_shape(columns)
    if tree.shape[0] < 4 or tree.shape[0] & (tree.shape[0] - 1):
        raise ValueError(f"a tree of {tree.shape[0]} numbers: a power of two, 4 at least, is expected")
