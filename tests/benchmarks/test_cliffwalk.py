"""The walk against its closed form, and that a walk of four states is solved by every method."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cliffwalk


def test_the_best_values_are_value_iterations() -> None:
    n = 5
    items = cliffwalk.walks(n)
    assert len(items.s_tm1) == 2 ** (n + 1) - 2
    assert float(items.r_t.sum()) == 1.0
    q = np.zeros((n, 2))
    for _ in range(n):
        new = items.r_t + items.discount_t * q.max(axis=1)[np.asarray(items.s_t)]
        q[np.asarray(items.s_tm1), np.asarray(items.a_tm1)] = new
    np.testing.assert_allclose(cliffwalk.best(n), q, rtol=1e-5)


@pytest.mark.parametrize("method", cliffwalk.METHODS)
def test_four_states_are_solved(method: str) -> None:
    counts = cliffwalk.updates(4, method, seeds=2, most=4096)
    assert all(0 < count < 4096 for count in counts)


def test_priorities_need_fewer_updates() -> None:
    uniform, per = (np.median(cliffwalk.updates(6, method, seeds=3)) for method in ("uniform", "PER"))
    assert 2 * per < uniform
