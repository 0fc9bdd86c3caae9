"""How the equations are tested: each in three variants, gradients against differences in float64."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(params=["plain", "jit", "vmap"])
def variant(request):
    """Calls a function as it is, under jit, or under jit(vmap) over two copies that must agree."""

    def call(function, *args):
        args = jax.tree.map(jnp.asarray, args)
        if request.param == "plain":
            return function(*args)
        if request.param == "jit":
            return jax.jit(function)(*args)
        twice = jax.jit(jax.vmap(function))(*jax.tree.map(lambda x: jnp.stack([x, x]), args))
        for leaf in jax.tree.leaves(twice):
            np.testing.assert_array_equal(leaf[0], leaf[1])
        return jax.tree.map(lambda x: x[0], twice)

    return call


@pytest.fixture
def finite_difference():
    """Central differences of a float64 NumPy function."""

    def gradient(function, x, step=1e-6):
        x = np.asarray(x, np.float64)
        result = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[at] += step
            down[at] -= step
            result[at] = (function(up) - function(down)) / (2 * step)
        return result

    return gradient


@pytest.fixture(scope="session")
def rlax():
    """The reference implementations; importing them touches deprecated names of jax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rlax")
