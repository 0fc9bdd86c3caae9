"""Weights in int8, one scale per output channel; activations stay float32.

Jacob et al. 2018, Quantization and Training of Neural Networks, section 2.1, symmetric.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.types import Params

LEVELS = 127  # symmetric: -127..127


@jax.jit
def quantize(params: Params) -> Params:
    """The tree with each matrix named `kernel` or `embedding` as {'int8', 'scale'}; other leaves are kept.

    The output channel of a kernel is its last axis; of an embedding, tied to the output, its first.
    """
    return jax.tree_util.tree_map_with_path(_quantize_leaf, params)


def dequantize(tree: Params) -> Params:
    """The float32 tree of a quantised one; a tree without quantised leaves is returned as it is."""
    return jax.tree.map(_dequantize_leaf, tree, is_leaf=is_quantized)


def is_quantized(node: object) -> bool:
    """Whether a node is a quantised matrix."""
    return isinstance(node, dict) and set(node) == {"int8", "scale"}


def bytes_of(tree: Params) -> int:
    """Bytes that the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _quantize_leaf(path: tuple[jax.tree_util.DictKey, ...], leaf: chex.Array) -> Params:
    name = path[-1].key
    if leaf.ndim < 2 or name not in ("kernel", "embedding"):
        return leaf
    channel = 0 if name == "embedding" else leaf.ndim - 1
    others = tuple(axis for axis in range(leaf.ndim) if axis != channel)
    scale = jnp.max(jnp.abs(leaf), axis=others, keepdims=True) / LEVELS
    steps = jnp.round(leaf / jnp.where(scale > 0, scale, 1.0))
    return {"int8": steps.astype(jnp.int8), "scale": scale}


def _dequantize_leaf(node: Params) -> chex.Array:
    return node["int8"].astype(node["scale"].dtype) * node["scale"] if is_quantized(node) else node
