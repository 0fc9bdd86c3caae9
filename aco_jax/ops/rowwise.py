"""Randomness of rows: each draws by a key of its own, and so the same whatever stands beside it."""

from __future__ import annotations

import functools

import chex
import jax


def keys(key: chex.PRNGKey, rows: int) -> chex.PRNGKey:
    """A key [] -> one of each row, [rows]; keys [rows] are kept. Typed keys."""
    chex.assert_shape(key, (rows,) if key.ndim else ())
    return key if key.ndim else jax.random.split(key, rows)


def split(keys: chex.PRNGKey, count: int) -> chex.PRNGKey:
    """Keys [rows] -> [rows, count]."""
    return jax.vmap(functools.partial(jax.random.split, num=count))(keys)
