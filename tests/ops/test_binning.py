from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.ops import binning

VALUES = np.random.default_rng(6).normal(size=40).astype(np.float32)
MASK = np.arange(40) < 33
SIZES = (3, 4, 2, 5)
FIT = jax.jit(functools.partial(binning.fit_edges, bins=4))


@pytest.mark.parametrize("bins", [1, 2, 5, 10])
def test_edges_are_quantiles(variant, bins):
    edges = variant(functools.partial(binning.fit_edges, bins=bins), VALUES, MASK)
    expected = np.quantile(VALUES[MASK].astype(np.float64), np.arange(1, bins) / bins)
    np.testing.assert_allclose(edges, expected, rtol=1e-4, atol=1e-5)


def test_bins_are_equally_full():
    edges = binning.fit_edges(VALUES, np.ones(40, bool), 4)
    np.testing.assert_array_equal(np.bincount(binning.digitize(VALUES, edges)), [10, 10, 10, 10])


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf])
def test_padding_changes_no_edge(rubbish):
    spoiled = np.where(MASK, VALUES, rubbish).astype(np.float32)
    np.testing.assert_array_equal(binning.fit_edges(spoiled, MASK, 5), binning.fit_edges(VALUES, MASK, 5))


def test_edges_without_values_are_finite(variant):
    fit = functools.partial(binning.fit_edges, bins=4, boundary=0.7)
    edges = variant(fit, VALUES, np.zeros(40, bool))
    assert np.isfinite(edges).all()
    one = variant(fit, VALUES, np.arange(40) == 3)
    np.testing.assert_allclose(np.sort(one)[[0, -1]], np.sort([VALUES[3], 0.7]), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6),
    st.floats(-150, 150, width=32),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_a_boundary_is_always_an_edge(values, boundary, mask):
    edges = np.asarray(FIT(np.array(values, np.float32), np.array(mask), boundary=np.float32(boundary)))
    assert np.float32(boundary) in edges
    assert (np.diff(edges) >= 0).all()
    assert edges.shape == (3,)


def test_the_nearest_edge_gives_way_to_the_boundary():
    edges = binning.fit_edges(jnp.arange(9.0), jnp.ones(9, bool), 4, boundary=3.5)
    np.testing.assert_allclose(edges, [2.0, 3.5, 6.0])


def test_digitize(variant):
    edges = np.array([0.0, 1.0, 1.0, 2.0], np.float32)
    x = np.array([-5.0, 0.0, 0.5, 1.0, 1.99, 2.0, 9.0], np.float32)
    bins = variant(binning.digitize, x, edges)
    np.testing.assert_array_equal(bins, np.digitize(x, edges))
    assert bins.dtype == jnp.int32
    assert variant(binning.digitize, np.float32(1.5), edges) == 3
    assert variant(binning.digitize, np.float32(1.5), np.zeros(0, np.float32)) == 0


def test_every_state_has_one_code():
    states = jnp.arange(math.prod(SIZES), dtype=jnp.int32)
    factors = jax.vmap(lambda state: binning.decode(state, SIZES))(states)
    np.testing.assert_array_equal(factors, np.array(np.unravel_index(np.asarray(states), SIZES)).T)
    back = jax.vmap(lambda each: binning.encode(each, SIZES))(factors)
    np.testing.assert_array_equal(back, states)
    assert back.dtype == factors.dtype == jnp.int32


def test_encode(variant):
    encode = functools.partial(binning.encode, sizes=SIZES)
    factors = np.array([2, 1, 0, 4], np.int32)
    assert variant(encode, factors) == np.ravel_multi_index(factors, SIZES)
    with pytest.raises(AssertionError):
        encode(factors[:3])
