from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.ops import masking

X = np.array([1.0, 4.0, -2.0, 7.0], np.float32)
MASK = np.array([True, False, True, False])


def test_sum_and_mean(variant):
    assert variant(masking.masked_sum, X, MASK) == -1.0
    assert variant(masking.masked_mean, X, MASK) == -0.5
    assert variant(masking.masked_mean, X, np.zeros(4, bool)) == 0.0


def test_softmax(variant):
    expected = np.exp([1.0, -2.0]) / np.exp([1.0, -2.0]).sum()
    p = variant(masking.masked_softmax, X, MASK)
    np.testing.assert_allclose(p[MASK], expected, rtol=1e-6)
    np.testing.assert_array_equal(p[~MASK], 0.0)
    np.testing.assert_array_equal(variant(masking.masked_softmax, X, np.zeros(4, bool)), np.zeros(4))


@pytest.mark.parametrize("rubbish", [np.inf, -np.inf, np.nan, 1e38])
def test_masked_entries_reach_neither_value_nor_gradient(rubbish):
    spoiled = np.where(MASK, X, rubbish).astype(np.float32)

    def scored(x):
        return masking.masked_log_softmax(x, MASK)[0] + masking.masked_mean(x, MASK)

    clean, clean_gradient = jax.value_and_grad(scored)(X)
    value, gradient = jax.value_and_grad(scored)(spoiled)
    assert value == clean
    np.testing.assert_array_equal(gradient, clean_gradient)
    np.testing.assert_array_equal(gradient[~MASK], 0.0)
    for function in (masking.masked_mean, masking.masked_softmax):
        np.testing.assert_array_equal(function(spoiled, MASK), function(X, MASK))


def test_shapes_that_differ_are_refused():
    with pytest.raises(AssertionError):
        masking.masked_mean(jnp.ones(3), jnp.ones((3, 1), bool))
