"""Pairs that compete for both their records, against all sets of pairs written out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from aco_jax.ops import matching

STAR = np.array([[0, 3], [0, 4], [0, 5]])  # one left record, three right ones
TREE = np.array([[0, 3], [0, 4], [1, 4], [1, 5], [2, 5]])


def enumerated(pair, odds, further):
    """Each pair's probability, and the left records' chances of no, one and more partners, by all sets of pairs."""
    total, with_pair, counts = 0.0, np.zeros(len(pair)), np.zeros((len(np.unique(pair[:, 0])), 3))
    for size in range(len(pair) + 1):
        for chosen in combinations(range(len(pair)), size):
            weight = float(np.prod(odds[list(chosen)]))
            for side in (0, 1):
                partners = np.bincount(pair[list(chosen), side], minlength=1) if chosen else np.zeros(1, int)
                weight *= float(np.prod([further[side] ** (n - 1) for n in partners if n > 1]))
            total += weight
            with_pair[list(chosen)] += weight
            for place, record in enumerate(np.unique(pair[:, 0])):
                counts[place, min(2, sum(pair[i, 0] == record for i in chosen))] += weight
    return with_pair / total, counts / total


@pytest.mark.parametrize("several", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("pair", [STAR, TREE], ids=["star", "tree"])
def test_marginals_are_those_of_all_sets_of_pairs(pair, several):
    """Exact where pairs and records form a tree; at the weights that were estimated."""
    logit = np.random.default_rng(0).normal(0, 2, len(pair))
    found, further = matching.marginals(pair, logit, 6, 1.0, several, steps=200)
    np.testing.assert_allclose(found, enumerated(pair, np.exp(logit), further)[0], rtol=1e-4)
    assert all(weight == matching.LEAST for weight, many in zip(further, several, strict=True) if not many)


def test_counts_are_those_of_all_sets_of_pairs():
    odds, further = np.array([0.5, 2.0, 3.0]), 0.25
    found = matching.partner_counts(odds, STAR[:, 0], further, 1)
    np.testing.assert_allclose(found[0], enumerated(STAR, odds, (further, 1.0))[1][0], rtol=1e-12)


def test_a_message_by_hand():
    """Others with odds 2 and 3: alone 1 + 5 + 6/4 = 7.5 without this pair; with it 1 + 5/4 + 6/16 = 2.625."""
    rest = np.log1p(2 / 4) + np.log1p(3 / 4)
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), 0.25), (1 + 5 / 4 + 6 / 16) / 7.5)


@pytest.mark.parametrize("further, expected", [(matching.LEAST, 1 / (1 + 5)), (1.0, 1.0)])
def test_one_partner_at_most_and_each_pair_for_itself_are_the_ends(further, expected):
    rest = np.log1p(further * 2) + np.log1p(further * 3)
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), further), expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 2.0])
def test_rare_events_leave_one_another_alone(rate):
    """Of Poisson counts, one and exactly two by their probabilities, a further partner has the weight 1."""
    counts = np.exp(-rate) * np.array([[1, rate, rate**2 / 2]])
    np.testing.assert_allclose(matching.further_weight(counts, rate), 1.0)


def test_where_everybody_has_two_a_further_partner_stands_for_itself():
    assert matching.further_weight(np.array([[0.0, 0.0, 1.0]]), 49.0) == matching.MOST


def test_the_weight_of_a_further_partner_is_found():
    """3000 records with 16 candidates each draw none, one or two partners; normal scores say 8 x of their log odds."""
    rng, records, each, odds, weight = np.random.default_rng(0), 3000, 16, 4.0, 0.2
    shares = np.array([1, odds, weight * (odds / each) ** 2 * each * (each - 1) / 2])
    partners = rng.choice(3, records, p=shares / shares.sum())
    seen = rng.permuted(np.arange(each)[None] < partners[:, None], axis=1).ravel()
    pair = np.stack([np.repeat(np.arange(records), each), records + np.arange(records * each)], axis=1)
    logit = 8 * rng.normal(np.where(seen, 4, -4), 1) / 1 + np.log(odds / each)
    found, further = matching.marginals(pair, logit, records * (each + 1), odds, (True, False))
    np.testing.assert_allclose(further[0], weight, rtol=0.15)
    assert further[1] == matching.LEAST
    assert ((found > 0.5) == seen).mean() > 0.99


def test_a_sure_pair_leaves_nothing_to_others():
    """With odds of e^12 beside it, in float32 the rest would be lost in the sum."""
    found, _ = matching.marginals(np.array([[0, 2], [0, 3], [1, 3]]), np.array([12.0, 0.0, 0.0]), 4, 1.0, (False, False))
    np.testing.assert_allclose(found, [1.0, 0.0, 0.5], atol=1e-4)
