"""Weights in int8 or int4; activations stay float32. A network runs on a quantised tree as on any other.

int8 has one scale per output channel (Jacob et al. 2018, Quantization and Training of Neural Networks, section 2.1,
symmetric), int4 one for each `group` inputs of a channel, as in GGUF's Q4_0 (Dettmers and Zettlemoyer 2023, The Case
for 4-bit Precision, section 5.2). Two int4 share a byte here: XLA keeps its own int4 in a byte each on some platforms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from aco_jax.types import Params

LEVELS = {8: 127, 4: 7}  # symmetric: -127..127
GROUP = 32  # inputs that share a scale: 4 + 32 / 32 bits a weight
FEW_ROWS = 4  # below as many, reading the weights is what a product costs
TERMS, LANES = 16, 64  # of a sum that is one loop over int8 weights


@functools.partial(jax.jit, static_argnames=("bits", "group"))
def quantize(params: Params, bits: int = 8, group: int = GROUP) -> Params:
    """The tree with each matrix named `kernel` or `embedding` as {'int8', 'scale'}; other leaves are kept.

    The output channel of a kernel is its last axis; of an embedding, tied to the output, its first. With 4 bits a
    matrix of two axes is {'int4', 'scale'} where its inputs fall into groups, and in int8 where they do not.
    """
    if bits not in LEVELS:
        raise ValueError(f"bits {bits}, expected 8 or 4")
    if group < 4 or group % 2:
        raise ValueError(f"group {group}, expected an even number of at least 4")
    return jax.tree_util.tree_map_with_path(functools.partial(_quantize_leaf, bits=bits, group=group), params)


def dequantize(tree: Params) -> Params:
    """The float32 tree of a quantised one; a tree without quantised leaves is returned as it is."""
    return jax.tree.map(_dequantize_leaf, tree, is_leaf=is_quantized)


def is_quantized(node: object) -> bool:
    """Whether a node is a quantised matrix."""
    return isinstance(node, Mapping) and set(node) in ({"int8", "scale"}, {"int4", "scale"})


def product(x: chex.Array, node: Params) -> chex.Array:
    """x [.., I] through a quantised kernel [I, O] -> [.., O], without a float32 copy of it where rows are few."""
    flat = x.reshape(-1, x.shape[-1])
    if "int8" not in node or flat.shape[0] >= FEW_ROWS:
        out = flat @ _dequantize_leaf(node)
    else:
        out = _few_through(flat, node["int8"]) * node["scale"]
    return out.reshape(*x.shape[:-1], -1)


def transposed_product(x: chex.Array, node: Params) -> chex.Array:
    """x [n, D] through the transpose of a quantised embedding [V, D] -> [n, V], as `product`."""
    if "int8" not in node or x.shape[0] >= FEW_ROWS:
        return x @ _dequantize_leaf(node).T
    return _few_through_transposed(x, node["int8"]) * node["scale"].T


def rows_of(node: Params, tokens: chex.Array) -> chex.Array:
    """Rows [.., D] of a quantised embedding [V, D]."""
    if "int8" in node:
        return node["int8"][tokens].astype(node["scale"].dtype) * node["scale"][tokens]
    return _dequantize_leaf(node)[tokens]


def bytes_of(tree: Params) -> int:
    """Bytes that the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _few_through(x: chex.Array, steps: chex.Array) -> chex.Array:
    """x [n, I] through int8 [I, O].

    XLA's own product of one row with converted weights takes an entry at a time on a CPU. A sum of a few blocks of
    inputs is one vectorised loop, which reads each byte once; what is left to add up is small.
    """
    terms = math.gcd(steps.shape[0], TERMS)
    blocks, parts = steps.reshape(terms, -1, steps.shape[1]), x.reshape(x.shape[0], terms, -1)
    each = [parts[:, i, :, None] * blocks[i].astype(x.dtype)[None] for i in range(terms)]
    ones = jnp.ones((blocks.shape[1],), x.dtype)
    return jnp.einsum("i,nio->no", ones, sum(each[1:], each[0]))


def _few_through_transposed(x: chex.Array, steps: chex.Array) -> chex.Array:
    """x [n, D] through the transpose of int8 [V, D], as `_few_through`."""
    lanes = math.gcd(steps.shape[1], LANES)
    each = [
        x[:, None, at : at + lanes] * steps[:, at : at + lanes].astype(x.dtype)[None]
        for at in range(0, steps.shape[1], lanes)
    ]
    return jnp.einsum("nvd,d->nv", sum(each[1:], each[0]), jnp.ones((lanes,), x.dtype))


def _quantize_leaf(path: tuple[jax.tree_util.DictKey, ...], leaf: chex.Array, bits: int, group: int) -> Params:
    name = path[-1].key
    if leaf.ndim < 2 or name not in ("kernel", "embedding"):
        return leaf
    channel = 0 if name == "embedding" else leaf.ndim - 1
    if bits == 4 and leaf.ndim == 2 and leaf.shape[1 - channel] % group == 0:
        return _in_groups(leaf, 1 - channel, group)
    others = tuple(axis for axis in range(leaf.ndim) if axis != channel)
    scale = jnp.max(jnp.abs(leaf), axis=others, keepdims=True) / LEVELS[8]
    steps = jnp.round(leaf / jnp.where(scale > 0, scale, 1.0))
    return {"int8": steps.astype(jnp.int8), "scale": scale}


def _in_groups(leaf: chex.Array, axis: int, group: int) -> Params:
    """A matrix [I, O] as bytes [I / 2, O] and scales [I / group, O], where `axis` of it is I.

    The lower half of a byte is of the matrix's first half, the upper of its second.
    """
    x = jnp.moveaxis(leaf, axis, 0)
    grouped = x.reshape(-1, group, x.shape[1])
    scale = jnp.max(jnp.abs(grouped), axis=1) / LEVELS[4]
    steps = jnp.round(grouped / jnp.where(scale > 0, scale, 1.0)[:, None]).reshape(x.shape)
    low, high = jnp.split((steps + 8).astype(jnp.uint8), 2)
    return {"int4": jnp.moveaxis(low | high << 4, 0, axis), "scale": jnp.moveaxis(scale, 0, axis)}


def _dequantize_leaf(node: Params) -> chex.Array:
    if not is_quantized(node):
        return node
    if "int8" in node:
        return node["int8"].astype(node["scale"].dtype) * node["scale"]
    axis = int(node["int4"].shape[0] == node["scale"].shape[0])  # groups are along the other one
    packed, scale = (jnp.moveaxis(node[name], axis, 0) for name in ("int4", "scale"))
    steps = jnp.concatenate([packed & 15, packed >> 4]).astype(scale.dtype) - 8
    grouped = steps.reshape(scale.shape[0], -1, scale.shape[1]) * scale[:, None]
    return jnp.moveaxis(grouped.reshape(steps.shape), 0, axis)
