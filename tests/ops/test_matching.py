"""Pairs that compete for both their records, against all sets of pairs written out."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from aco_jax.ops import matching

STAR = np.array([[0, 3], [0, 4], [0, 5]])  # one left record, three right ones
TREE = np.array([[0, 3], [0, 4], [1, 4], [1, 5], [2, 5]])


def enumerated(pair, odds, further, together=(True, True)):
    """Each pair's probability by all sets of pairs; several of one record have to be `together`."""
    total, with_pair = 0.0, np.zeros(len(pair))
    for size in range(len(pair) + 1):
        for chosen in map(list, combinations(range(len(pair)), size)):
            weight = float(np.prod(odds[chosen]))
            for side in (0, 1):
                count = np.bincount(pair[chosen, side])
                weight *= float(np.prod([further[side] ** (n - 1) for n in count if n > 1]))
                free = np.broadcast_to(together[side], len(pair))[chosen]
                weight *= all(free[pair[chosen, side] == record].all() for record in np.flatnonzero(count > 1))
            total += weight
            with_pair[chosen] += weight
    return with_pair / total


@pytest.mark.parametrize("further", [(1e-9, 1e-9), (0.2, 1e-9), (1e-9, 0.3), (0.5, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("pair", [STAR, TREE], ids=["star", "tree"])
def test_marginals_are_those_of_all_sets_of_pairs(pair, further):
    """Exact where pairs and records form a tree."""
    logit = np.random.default_rng(0).normal(0, 2, len(pair))
    found = matching.marginals(pair, logit, 6, further, steps=200)
    np.testing.assert_allclose(found, enumerated(pair, np.exp(logit), further), rtol=1e-4)


@pytest.mark.parametrize("pair", [STAR, TREE], ids=["star", "tree"])
@pytest.mark.parametrize("seed", range(4))
def test_only_pairs_that_go_together_are_there_together(pair, seed):
    rng = np.random.default_rng(seed)
    logit, together = rng.normal(0, 2, len(pair)), tuple(rng.random((2, len(pair))) < 0.6)
    found = matching.marginals(pair, logit, 6, (0.4, 0.7), together, steps=200)
    np.testing.assert_allclose(found, enumerated(pair, np.exp(logit), (0.4, 0.7), together), rtol=1e-4)


def test_pairs_next_to_impossible_take_what_others_leave_and_leave_them_all():
    """A sure pair and a possible one, each with slight ones at both of its records: those of all sets of pairs."""
    pair = np.array([[0, 3], [0, 4], [1, 4], [1, 5], [2, 5], [2, 6]])
    logit = np.array([6.0, -20.0, 0.5, -18.0, -22.0, -19.0])
    found = matching.marginals(pair, logit, 7, (0.2, 1e-9))
    np.testing.assert_allclose(found, enumerated(pair, np.exp(logit), (0.2, 1e-9)), rtol=1e-4)


def test_a_message_by_hand():
    """Others with odds 2 and 3: alone 1 + 5 + 6/4 = 7.5 without this pair; with it 1 + 5/4 + 6/16 = 2.625."""
    rest = np.log1p(2 / 4) + np.log1p(3 / 4)
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), 0.25), (1 + 5 / 4 + 6 / 16) / 7.5)
    # One more of odds 4 that may be no further partner; and this pair being such a one.
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), 0.25, 4.0), (1 + 5 / 4 + 6 / 16) / 11.5)
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), 0.25, 4.0, together=False), 1 / 11.5)


@pytest.mark.parametrize(("further", "expected"), [(matching.LEAST, 1 / (1 + 5)), (1.0, 1.0)])
def test_one_partner_at_most_and_each_pair_for_itself_are_the_ends(further, expected):
    rest = np.log1p(further * 2) + np.log1p(further * 3)
    np.testing.assert_allclose(matching.partner_message(np.array([rest]), further), expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.5])
def test_rare_events_leave_one_another_alone(rate):
    """Of Poisson counts, one and two by their probabilities, a further partner has the weight 1."""
    one, two = np.exp(-rate) * rate, np.exp(-rate) * rate**2 / 2
    np.testing.assert_allclose(matching.further_weight(two / (one + two), rate), 1.0)


@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_the_weight_of_a_further_partner_gives_back_the_share_with_two(weight):
    """A record with 200 candidates, each of prior odds 4 / 200: the sets of one and of two, counted."""
    each, odds = 200, 4.0
    single, double = odds, weight * (odds / each) ** 2 * each * (each - 1) / 2
    np.testing.assert_allclose(matching.further_weight(double / (single + double), odds), weight, rtol=0.01)


def test_where_nobody_and_where_everybody_has_two():
    assert matching.further_weight(0.0, 4.0) == matching.LEAST
    assert matching.further_weight(1.0, 49.0) == matching.MOST


def test_a_sure_pair_leaves_nothing_to_others():
    """With odds of e^12 beside it, in float32 the rest would be lost in the sum."""
    pair, logit = np.array([[0, 2], [0, 3], [1, 3]]), np.array([12.0, 0.0, 0.0])
    found = matching.marginals(pair, logit, 4, (matching.LEAST, matching.LEAST))
    np.testing.assert_allclose(found, [1.0, 0.0, 0.5], atol=1e-4)


def test_corners_by_hand():
    """Records 0 to 3, of whose pairs 1, 3 is not there and 0, 3 is not heard."""
    pair = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]])
    whole, lacking = matching.corners(pair, np.array([True, True, False, True, True]))
    assert whole.tolist() == [[0, 1, 3]]
    assert sorted(map(sorted, lacking.tolist())) == [[1, 4], [3, 4]]
    assert [each.shape for each in matching.corners(pair[:0], np.zeros(0, bool))] == [(0, 3), (0, 2)]


@pytest.mark.parametrize("seed", range(3))
def test_corners_are_those_of_all_triples(seed):
    rng = np.random.default_rng(seed)
    pair = rng.permutation([both for both in combinations(range(12), 2) if rng.random() < 0.6])
    heard = rng.random(len(pair)) < 0.7
    number = {tuple(both): place for place, both in enumerate(pair.tolist()) if heard[place]}
    found = [
        tuple(sorted(number[both] for both in combinations(three, 2) if both in number))
        for three in combinations(range(12), 3)
    ]
    whole, lacking = matching.corners(pair, heard)
    assert sorted(map(tuple, whole.tolist())) == sorted(each for each in found if len(each) == 3)
    assert sorted(tuple(sorted(each)) for each in lacking.tolist()) == sorted(each for each in found if len(each) == 2)


@pytest.mark.parametrize("violation", [0.0, 0.1, 1.0])
def test_what_two_pairs_bring_the_third_is_that_of_all_eight_cases(violation):
    p, q, odds = 0.7, 0.9, np.zeros(2)
    for first, second, third in product((0, 1), repeat=3):
        prior = violation if first + second + third == 2 else 1.0
        odds[third] += prior * (p if first else 1 - p) * (q if second else 1 - q)
    found = matching.transitive_message(np.array(p), np.array(q), violation)
    np.testing.assert_allclose(found, np.log(odds[1] / odds[0]), atol=1e-6)


def test_pairs_of_a_triangle_agree_as_all_eight_cases_do():
    """Taken to its end, each pair has the probability that the three prior odds and the constraint give it."""
    odds, violation, message = np.array([0.5, 3.0, 6.0]), 0.1, np.zeros((1, 3))
    total, expected = 0.0, np.zeros(3)
    for chosen in product((0, 1), repeat=3):
        weight = float(np.prod(odds ** np.array(chosen))) * (violation if sum(chosen) == 2 else 1.0)
        total, expected = total + weight, expected + weight * np.array(chosen)
    for _ in range(2):
        p = 1 / (1 + np.exp(-np.log(odds) - message))
        message = matching.agreement(p, message, violation)
    found = 1 / (1 + np.exp(-np.log(odds) - message))
    np.testing.assert_allclose(found[0], expected / total, atol=1e-6)


def all_sets(pair, odds, violation, size):
    """Each pair's probability by all sets of pairs; two of three records without the third have `violation`."""
    total, expected = 0.0, np.zeros(len(pair))
    for chosen in product((0, 1), repeat=len(pair)):
        there = {tuple(each) for each, is_there in zip(pair.tolist(), chosen, strict=True) if is_there}
        counts = [sum(both in there for both in combinations(three, 2)) for three in combinations(range(size), 3)]
        weight = float(np.prod(odds ** np.array(chosen))) * violation ** counts.count(2)
        total, expected = total + weight, expected + weight * np.array(chosen)
    return expected / total


@pytest.mark.parametrize("pair", [[[0, 1], [1, 2]], [[0, 1], [0, 2], [1, 2]]], ids=["two", "three"])
def test_groups_of_three_records_are_those_of_all_sets_of_pairs(pair):
    pair, odds = np.array(pair), np.array([0.5, 3.0, 6.0])[: len(pair)]
    found = matching.grouped(pair, odds / (1 + odds), 0.1, 60, 0.0)
    np.testing.assert_allclose(found, all_sets(pair, odds, 0.1, 3), atol=1e-5)


def test_a_group_takes_in_who_is_like_most_of_it_and_leaves_out_who_is_not():
    """Records 0 to 2 are one thing. 3 is as likely 0 as not, and 1 and 2; 4 too is likely 0, but surely not 1 or 2."""
    pair = np.array([[0, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3], [0, 4], [1, 4], [2, 4]])
    alone = np.array([0.95, 0.95, 0.95, 0.6, 0.6, 0.4, 0.7, 0.01, 0.01])
    found = matching.grouped(pair, alone, 0.05, 7, 0.05)
    np.testing.assert_array_equal(found > 0.5, [True] * 6 + [False] * 3)
    expected = all_sets(pair, alone / (1 - alone), 0.05, 5)
    np.testing.assert_array_equal(expected > 0.5, found > 0.5)


def test_who_hears_of_no_pair_stays():
    pair, alone = np.array([[0, 1], [0, 2], [1, 2]]), np.array([0.9, 0.3, 0.2])
    np.testing.assert_allclose(matching.grouped(pair, alone, 0.05, 7, 0.5), alone, rtol=1e-6)
    np.testing.assert_allclose(matching.grouped(pair, alone, 1.0, 7, 0.0), alone, rtol=1e-6)
