"""Where tokens stand, as attention sees it: distances in buckets, or rotated queries and keys."""

from __future__ import annotations

import math

import chex
import jax.numpy as jnp
import numpy as np

Rotation = tuple[chex.Array, chex.Array]  # cosines and sines, [T, W / 2] or [B, T, W / 2], W the width of a head


def buckets(distances: np.ndarray, count: int, reach: int, both_ways: bool) -> np.ndarray:
    """Bucket of each distance, key minus query: near ones apart, far ones in logarithmic steps up to `reach`.

    Raffel et al. 2020, Exploring the Limits of Transfer Learning, section 2.1. Computed on the host in float32, where
    a logarithm at the edge of a bucket falls on the same side as in the programs that trained the checkpoints.
    """
    offset = np.zeros_like(distances)
    if both_ways:
        count //= 2
        offset, distances = np.where(distances > 0, count, 0), np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    exact = count // 2
    steps = np.log(np.maximum(distances, 1).astype(np.float32) / exact) / math.log(reach / exact)
    far = np.minimum(exact + (steps * (count - exact)).astype(distances.dtype), count - 1)
    return offset + np.where(distances < exact, distances, far)


def rotation(positions: chex.Array, width: int, base: float) -> Rotation:
    """Rotation of positions [T] or [B, T] (Su et al. 2021, RoFormer, eq. 15): wavelengths from 2 pi to 2 pi base."""
    chex.assert_rank(positions, {1, 2})
    frequencies = 1.0 / base ** (np.arange(0, width, 2, dtype=np.float32) / width)
    angles = positions[..., None] * frequencies.reshape((1,) * positions.ndim + (-1,))
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: chex.Array, turn: Rotation, interleaved: bool) -> chex.Array:
    """x [B, T, H, W] rotated in pairs: neighbours where interleaved, else an entry and the one half a head further."""
    cos, sin = (part[None, :, None] if part.ndim == 2 else part[:, :, None] for part in turn)
    if not interleaved:
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape)
