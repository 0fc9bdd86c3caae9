"""Association beside scipy's test of contingency tables."""

from __future__ import annotations

import numpy as np
import scipy.stats

from aco_jax.ops import association


def test_the_likelihood_ratio_is_scipys() -> None:
    rng = np.random.default_rng(0)
    total, left, right = 50, rng.integers(1, 50, 60), rng.integers(1, 50, 60)
    both = rng.integers(np.maximum(0, left + right - total), np.minimum(left, right) + 1)
    found = association.likelihood_ratio(both, left, right, total)
    for n, a, b, value in zip(both, left, right, found, strict=True):
        table = np.array([[n, a - n], [b - n, total - a - b + n]])
        expected = scipy.stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        np.testing.assert_allclose(value, expected if n * total > a * b else 0.0, atol=1e-9)
    assert (found > 0).any()
