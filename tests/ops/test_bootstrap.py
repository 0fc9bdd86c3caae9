"""The interval of an expected F1, against closed forms and against a truth that is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from aco_jax.ops import bootstrap, metrics


def test_what_is_certain_has_no_interval() -> None:
    p, said = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([True, True, False, False])
    assert bootstrap.f1_interval(p, said, np.arange(4)) == (1.0, 1.0)


def test_nothing_possible_and_nothing_stated() -> None:
    assert bootstrap.f1_interval(np.zeros((1, 3)), np.zeros(3, bool), np.arange(3)) == (0.0, 0.0)
    assert bootstrap.f1_interval(np.zeros((1, 0)), np.zeros(0, bool), np.zeros(0, int)) == (0.0, 0.0)


def test_of_many_stated_pairs_it_is_that_of_a_binomial_share() -> None:
    """All stated, each true with .8, every record drawn as often as a bootstrap would: F1 = 2 m / (1 + m)."""
    count, p = 2000, 0.8
    low, high = bootstrap.f1_interval(np.full((1, count), p), np.ones(count, bool), np.arange(count))
    # Of a share m with Poisson weights: truth and weights together have the variance p (1 - p) (1 + 1) / count.
    half = 1.645 * np.sqrt(2 * p * (1 - p) / count)
    ends = [2 * m / (1 + m) for m in (p - half, p + half)]
    assert (low, high) == (pytest.approx(ends[0], abs=4e-3), pytest.approx(ends[1], abs=4e-3))


def test_pairs_of_one_record_come_together() -> None:
    """Half of the records are sure of all their pairs, half of few of them: which are drawn matters more."""
    p, said = np.repeat([[0.3, 1.0]], 200, axis=1).reshape(1, 400), np.ones(400, bool)
    apart, together = (bootstrap.f1_interval(p, said, record) for record in (np.arange(400), np.arange(400) // 50))
    assert together[1] - together[0] > apart[1] - apart[0] > 0


def test_a_committee_that_disagrees_widens_it() -> None:
    said = np.ones(500, bool)
    one = bootstrap.f1_interval(np.full((1, 500), 0.8), said, np.arange(500))
    two = bootstrap.f1_interval(np.stack([np.full(500, 0.7), np.full(500, 0.9)]), said, np.arange(500))
    assert two[0] < one[0] < one[1] < two[1]


def test_of_unlikely_pairs_is_drawn_how_many_are_missed() -> None:
    """400 sure pairs are stated, 90 of 100,000 pairs of .0009 are missed on average: F1 is about 800 / (800 + 90)."""
    p = np.concatenate([np.ones(400), np.full(100_000, 9e-4)])[None]
    low, high = bootstrap.f1_interval(p, p[0] == 1, np.arange(p.size))
    assert low == pytest.approx(800 / 890 - 1.645 * 0.0105, abs=4e-3)  # of Poisson(90) and of the weights of 400
    assert high == pytest.approx(800 / 890 + 1.645 * 0.0105, abs=4e-3)


def test_where_next_to_nothing_is_missed_everything_may_be_right() -> None:
    p = np.concatenate([np.ones(50), np.full(50, 9e-4)])[None]
    assert bootstrap.f1_interval(p, p[0] == 1, np.arange(100))[1] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_truth_drawn_from_the_probabilities_lies_inside_nine_times_of_ten(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.3, 0.6, 600)
    said = p > 0.5
    low, high = bootstrap.f1_interval(p[None], said, np.arange(600), seed)
    assert low < float(metrics.soft_f1(p, said)) < high
    inside = []
    for _ in range(300):
        true = rng.random(600) < p
        inside.append(low <= 2 * (true & said).sum() / (true.sum() + said.sum()) <= high)
    assert np.mean(inside) >= 0.9  # records that might have been others make it wider than truth alone asks
