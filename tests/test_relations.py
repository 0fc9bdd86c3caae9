"""Relations beyond identity: what is asked for, how far kinds can be trusted, and the probabilities of a pair."""

from __future__ import annotations

import numpy as np
import pytest

from aco_jax import relations
from aco_jax.data import catalogue, kinds, records
from aco_jax.data.records import InputError, Relation


def made(kind, level, fits=()):
    """Kinds of records by hand."""
    count = max(kind) + 1
    table = np.zeros((count, count), bool)
    for a, b in fits:
        table[a, b] = table[b, a] = True
    size = np.where(np.array(level) >= 0, np.array(level, float), np.nan)
    share = np.bincount(np.array(kind), minlength=count) / len(kind)
    sizes = np.zeros((count, max(*level, 0) + 1))
    for one, number in zip(kind, level, strict=True):
        sizes[one, number] += number >= 0
    sizes /= np.maximum(sizes.sum(axis=1, keepdims=True), 1)
    return kinds.Kinds(np.array(kind), size, np.array(level), share, sizes, table)


def test_what_relations_ask_for_is_read_from_their_words():
    assert relations.roles(catalogue.RELATIONS) == relations.Roles(same=1, substitute=2, complement=3)
    assert relations.roles(records.SAME) == relations.Roles(same=1, substitute=0, complement=0)
    assert not relations.roles(records.SAME).beyond
    assert relations.roles((Relation("compatible", "."),)) == relations.Roles(0, 0, complement=1)
    named = (Relation("spare", "It fits the other."), Relation("other", "It can stand in for it."))
    assert relations.roles(named) == relations.Roles(0, substitute=2, complement=1)
    assert relations.roles((Relation("spare", "A part."),)) == relations.Roles(1, 0, 0)  # as ever


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ((Relation("spare", "A part."),), ["relations.spare", "'A part.'", "expected a word"]),
        ((Relation("twin", "Both are identical."),), ["same and twin", "both ask for a same"]),
    ],
)
def test_relations_that_say_nothing_or_say_it_twice_are_named(others, words):
    with pytest.raises(InputError) as error:
        relations.roles((*records.SAME, *others))
    assert all(word in str(error.value) for word in words)


def test_identity_is_found_wherever_it_stands():
    complement, same = Relation("complement", "."), Relation("same", ".")
    assert relations.identity((complement, same)) == same
    assert relations.identity((complement,)) == complement


def test_errors_are_how_often_same_pairs_disagree():
    """Of ten sure pairs two are of two kinds; of the eight others one is of two sizes."""
    known = made([0] * 10 + [0] * 8 + [1] * 2, [0] * 10 + [0] * 7 + [1] + [0] * 2)
    pair = np.stack([np.arange(10), 10 + np.arange(10)], axis=1)
    found = relations.errors(known, pair, np.ones(10))
    assert found.kind == pytest.approx((relations.PRIOR + 2) / 11)
    assert found.size == pytest.approx((relations.PRIOR + 1) / 9)
    nothing = relations.errors(known, pair, np.full(10, 0.4))  # none is believed
    assert nothing == relations.Errors(relations.PRIOR, relations.PRIOR)


def test_probabilities_by_hand_and_they_sum_to_one():
    # records: 0 a pan of size 0; 1 a pan of 0, 2 a pan of 1, 3 a pan of unknown size, 4 a lid of 0, 5 a tent of 0
    known = made([0, 0, 0, 0, 1, 2], [0, 0, 1, -1, 0, 0], fits=[(0, 1)])
    pair = np.array([[0, n] for n in (1, 2, 3, 4, 5)])
    same = np.array([0.4, 0.0, 0.0, 0.1, 0.0])
    sought = relations.Roles(same=2, substitute=3, complement=1)
    found = relations.probabilities(known, relations.Errors(kind=0.1, size=0.02), sought, pair, same)
    expected = np.zeros((5, 4))
    expected[:, 2] = same
    expected[:3, 3] = [0.6 * 0.9 * 0.98, 0.9 * 0.02, 0.9 * 2 / 3]  # of the pans that say it two of three have 0
    expected[3, 1] = 0.9 * 0.9 * 0.98
    expected[:, 0] = 1 - expected.sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_relation_does_not_depend_on_which_record_stands_left():
    """A lid and pans without a size: what the other states counts by the sizes of the kind that does not state one."""
    known = made([0, 0, 0, 0, 1, 1, 1], [0, 0, 1, -1, 0, -1, 2], fits=[(0, 1)])
    pair = np.array([[3, 5], [0, 5], [2, 5], [3, 4], [3, 6]])
    chance = kinds.one_size(known, *pair.T)
    np.testing.assert_allclose(chance, [2 / 3 * 1 / 2, 1 / 2, 0, 2 / 3, 0])
    sought = relations.Roles(same=0, substitute=0, complement=1)
    given = (known, relations.Errors(0.1, 0.1), sought)
    ours, theirs = (relations.probabilities(*given, each, np.zeros(5)) for each in (pair, pair[:, ::-1]))
    np.testing.assert_allclose(ours, theirs)
    np.testing.assert_allclose(ours[:, 1], 0.9 * chance)


def test_where_no_size_varies_what_a_thing_is_tells_alone():
    known = made([0, 0, 1, 1], [-1, -1, 0, -1])
    np.testing.assert_allclose(kinds.one_size(known, np.array([0, 0, 2]), np.array([1, 2, 3])), [1, 0, 1])


def test_many_partners_are_right_at_once():
    """Nine things that can stand in for one: none takes anything from another, as it would in a softmax over them."""
    known = made([0] * 10, [0] * 10)
    pair = np.array([[0, n] for n in range(1, 10)])
    sought = relations.Roles(same=0, substitute=1, complement=0)
    found = relations.probabilities(known, relations.Errors(0.05, 0.05), sought, pair, np.zeros(9))
    assert (found[:, 1] > 0.9).all()


def test_only_what_is_sought_is_stated():
    known = made([0, 0, 1], [0, 0, 0], fits=[(0, 1)])
    pair = np.array([[0, 1], [0, 2]])
    sought = relations.Roles(same=0, substitute=0, complement=1)
    found = relations.probabilities(known, relations.Errors(0.1, 0.1), sought, pair, np.zeros(2))
    np.testing.assert_allclose(found, [[1, 0], [1 - 0.81, 0.81]])


def test_partners_are_limited_of_identity_alone():
    same = Relation("same", "One and the same thing.", max_partners=1)
    assert relations.roles((same,)).same == 1
    with pytest.raises(InputError, match=r"relations\.spare\.max_partners: 2, expected None"):
        relations.roles((same, Relation("spare", "It fits the other.", max_partners=2)))
