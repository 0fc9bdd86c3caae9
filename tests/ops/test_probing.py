from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aco_jax.ops import probing

RNG = np.random.default_rng(3)
N = 40
BEFORE = RNG.normal(size=N).astype(np.float32)
AFTER = (BEFORE + 0.3 + 0.5 * RNG.normal(size=N)).astype(np.float32)
MASK = np.arange(N) < 30


def test_paired_change_is_the_interval_of_the_differences(variant):
    change = AFTER[:30].astype(np.float64) - BEFORE[:30]
    mean, half, moved = variant(probing.paired_change, BEFORE, np.where(MASK, AFTER, np.nan), MASK)
    assert mean == pytest.approx(change.mean(), rel=1e-5)
    assert half == pytest.approx(1.96 * stats.sem(change), rel=1e-5)
    assert moved == pytest.approx(np.abs(change).mean(), rel=1e-5)


def test_what_all_pairs_have_in_common_has_no_interval():
    mean, half, moved = probing.paired_change(jnp.arange(4.0), jnp.arange(4.0) - 2.0, jnp.ones(4, bool))
    assert (mean, half, moved) == (-2.0, 0.0, 2.0)


@pytest.mark.parametrize("count", [0, 1])
def test_of_one_pair_no_interval_is_known(count):
    mean, half, _ = probing.paired_change(jnp.zeros(3), jnp.ones(3), jnp.arange(3) < count)
    assert mean == count
    assert np.isinf(half)


def test_centred_leaves_out_what_the_group_has_in_common(variant):
    x, mask = np.array([1.0, 5.0, 9.0, 100.0], np.float32), np.array([True, True, True, False])
    np.testing.assert_allclose(variant(probing.centred, x, mask), [-4.0, 0.0, 4.0, 0.0], atol=1e-6)


def test_correlation(variant):
    expected = stats.pearsonr(BEFORE[:30].astype(np.float64), AFTER[:30]).statistic
    found = variant(probing.correlation, BEFORE, np.where(MASK, AFTER, np.nan), MASK)
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_does_not_vary_correlates_with_nothing():
    full = jnp.ones(N, bool)
    assert probing.correlation(jnp.full(N, 7.0), jnp.asarray(AFTER), full) == 0.0
    assert probing.correlation(jnp.asarray(AFTER), jnp.asarray(AFTER), ~full) == 0.0
    assert probing.correlation(1000.0 * jnp.asarray(AFTER), -jnp.asarray(AFTER), full) == pytest.approx(-1.0, rel=1e-5)


@pytest.mark.parametrize(("r", "count"), [(0.6, 30), (-0.2, 12), (0.0, 1000)])
def test_the_interval_of_a_correlation_is_fishers(variant, r, count):
    wide = stats.norm.ppf(0.975) / np.sqrt(count - 3)
    found = variant(probing.correlation_interval, np.float32(r), np.int32(count))
    np.testing.assert_allclose(found, np.tanh(np.arctanh(r) + np.array([-wide, wide])), rtol=1e-4)


def test_the_interval_of_few_or_of_one_line_is_a_number():
    np.testing.assert_allclose(probing.correlation_interval(0.5, 3), [-1.0, 1.0])
    low, high = probing.correlation_interval(1.0, 50)
    assert 0.99 < low <= high <= 1.0
