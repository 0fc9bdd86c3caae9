"""Teaching: what is hidden, and what is said in other words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_tables import NAMES, Case, case, logits_of, problem_of, said_twice

from aco_jax import supervision, teaching
from aco_jax.data import evidence


@pytest.fixture(scope="module")
def repeated() -> Case:
    return case(times=4, things=24)


def test_hidden_match_leaves_only_null():
    problem = problem_of({"a": NAMES, "b": [f"{name} fresh" for name in NAMES[:3]]})
    candidates, belief, _ = teaching.propose(problem, supervision.init(problem, 0))
    half = len(belief.weight) // 2
    assert ((belief.relation[:half] == 1).sum(axis=(1, 2)) == 1).all()
    assert (belief.relation[half:] < 1).all()
    gone = belief.relation[:half] == 1
    assert (candidates.record[half:][gone] == -1).all()
    assert (candidates.evidence[half:][gone] == 0).all()
    assert not belief.planted.any()


def test_all_partners_are_hidden_together():
    problem, gold = said_twice()
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold))
    ours = np.flatnonzero(problem.direction > 0)
    assert (supervision.partners(problem, state, ours).sum(axis=1) == 2).all()
    candidates, belief, _ = teaching.propose(problem, state)
    half = len(belief.weight) // 2
    stated = belief.relation[:half] == 1
    assert sorted(stated.sum(axis=(1, 2))) == [1] * 8 + [2] * 4
    assert (candidates.record[half:][stated] == -1).all()
    assert (belief.relation[half:] < 1).all()


def test_a_partner_said_again_is_hidden_with_it_and_is_no_lesson_of_its_own(repeated: Case) -> None:
    problem, about = repeated.problem, repeated.about
    once = supervision.init(problem, 0, supervision.ALL_MUTUAL)
    rows = np.flatnonzero(once.weight > 0)
    same = (about[problem.record[rows]] == about[problem.anchor[rows]][:, None]) & (problem.record[rows] >= 0)
    counts = []
    for many in (False, True):
        candidates, belief, _ = teaching.propose(problem, dataclasses.replace(once, many=np.bool_(many)))
        left = candidates.record[len(rows) :, 0] >= 0
        counts.append(int((left & same).sum()))
        assert (belief.relation[: len(rows), 0] == 1).sum() == len(rows)  # the believed one alone is a partner
        assert not (belief.relation[len(rows) :, 0] == 1).any()
    assert counts[1] < 0.3 * counts[0]


def test_what_is_said_in_other_words_is_believed_as_it_was(repeated: Case) -> None:
    problem = repeated.problem
    state = dataclasses.replace(supervision.init(problem, 0, supervision.ALL_MUTUAL), many=np.bool_(True))
    candidates, belief, fold = teaching.propose(problem, state)
    other, believed, folds = teaching.reword(problem, repeated.dataset, repeated.index, state)
    np.testing.assert_array_equal(other.record, candidates.record)
    np.testing.assert_array_equal(believed.relation, belief.relation)
    np.testing.assert_array_equal(believed.weight, belief.weight)
    np.testing.assert_array_equal(folds, fold)
    score = evidence.NAMES.index("score")
    seen = belief.relation[:, 0] == 1
    assert other.evidence[:, 0][seen][:, score].mean() < candidates.evidence[:, 0][seen][:, score].mean()
    few = supervision.Config(reworded=10)
    other, believed, _ = teaching.reword(problem, repeated.dataset, repeated.index, state, few)
    assert len(other.record) == 20
    np.testing.assert_allclose(believed.weight.sum(), belief.weight.sum(), rtol=1e-5)
