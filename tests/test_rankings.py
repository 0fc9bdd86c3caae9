"""Where partners stand in what the language models of a run find."""

from __future__ import annotations

import numpy as np
import pytest

import ablate
import rankings


def test_reciprocal_rank_by_hand() -> None:
    order = np.array([[4, 7, -1], [5, 6, 8], [1, 2, 3]])
    assert rankings.reciprocal_rank(order, np.array([7, 5, 9])) == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_the_best_stands_first_and_nobody_last() -> None:
    records, score = np.array([[4, -1, 9], [1, 2, 3]]), np.array([[0.1, -np.inf, 0.2], [0.5, 0.5, 0.7]])
    np.testing.assert_array_equal(rankings.best_first(records, score), [[9, 4, -1], [3, 1, 2]])


def test_a_part_is_paired_with_the_whole_by_run() -> None:
    def runs(*shares: float) -> list[dict[str, dict[str, float]]]:
        return [{"rankings": dict.fromkeys(rankings.ORDERS, share)} for share in shares]

    said = ablate.ranked("shops", "no rewriting", runs(0.8, 0.9), runs(0.82, 0.94)).split()
    # Means of 88, changes of 2 and 4: half the interval is 12.706 / sqrt(2) deviations of sqrt(2).
    assert said == ["shops", "no", "rewriting", *["88.0", "3.0", "±", "12.7"] * len(rankings.ORDERS)]
