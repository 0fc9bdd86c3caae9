"""Self-training: few partners and many are told apart, and records that both tables repeat find one another."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from small_tables import Case, case

from aco_jax import competition, mutual, self_training, settings, supervision, teaching
from aco_jax.data import evidence
from aco_jax.models import judge

JUDGE = judge.Config(columns=evidence.JUDGED, witnesses=settings.WITNESSES, relations=1, steps=150)


@pytest.fixture(scope="module")
def repeated() -> Case:
    return case(times=4, things=24)


@pytest.fixture(scope="module")
def once() -> Case:
    return case(times=1, things=80)


class Learned(NamedTuple):
    trained: self_training.Trained
    reworded: list[int]  # lessons in other words, of each round that had some


def learn(parts: Case) -> Learned:
    said: list[int] = []
    reword, nothing = teaching.reword, np.zeros(parts.problem.record.shape, np.float32)

    def counted(*parts: Any) -> supervision.Lessons:
        lessons = reword(*parts)
        said.append(len(lessons[2]))
        return lessons

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(teaching, "reword", counted)
        found = self_training.run(*parts[:4], JUDGE, supervision.init(parts.problem, 0), nothing, 0)
    return Learned(found, said)


@pytest.fixture(scope="module")
def of_repeated(repeated: Case) -> Learned:
    return learn(repeated)


@pytest.fixture(scope="module")
def of_once(once: Case) -> Learned:
    return learn(once)


def recall_and_precision(parts: Case, posterior: np.ndarray) -> tuple[float, float]:
    first, second = parts.about[parts.problem.pair].T
    right, stated = first == second, posterior > 0.5
    return float(stated[right].mean()), float(right[stated].mean())


def test_records_that_both_tables_repeat_find_all_their_partners(repeated: Case, of_repeated: Learned) -> None:
    start = supervision.init(repeated.problem, 0)
    assert self_training.seldom_mutual(start)  # for others are as good, not for want of partners
    found = of_repeated.trained
    assert found.believed.many
    recall, precision = recall_and_precision(repeated, found.believed.posterior)
    assert recall > 0.9
    assert precision > 0.95


def test_anchors_are_said_in_other_words_where_records_are(of_once: Learned, of_repeated: Learned) -> None:
    assert not of_once.reworded
    assert min(of_repeated.reworded) > 0


def test_few_partners_are_not_taken_for_many(once: Case, of_once: Learned) -> None:
    assert self_training.seldom_mutual(
        supervision.init(once.problem, 0), supervision.Config(start=mutual.Config(few=0.9))
    )
    found = of_once.trained
    assert not found.believed.many
    assert recall_and_precision(once, found.believed.posterior)[1] > 0.9


def test_the_signs_are_needed_of_every_table(repeated: Case) -> None:
    problem, halves = repeated.problem, repeated.halves
    state = supervision.init(problem, 0)
    sure = [np.where(half.record >= 0, 6.0, -30.0) for half in halves]
    unsure = [sure[0], np.where(halves[1].record >= 0, -6.0, -30.0)]

    def told(several: tuple[float, float], prior: tuple[float, float], logits: list[np.ndarray]) -> bool:
        tried = dataclasses.replace(state, several=np.array(several), prior=np.array(prior))
        return self_training.repeating(tried, halves[: len(logits)], logits)

    assert told((0.3, 0.25), (0.2, 0.6), sure)
    assert told((0.3, 0.25), (0.6, 0.6), unsure)
    assert told((0.3, 0.25), (0.6, 0.6), [])
    assert not told((0.3, 0.05), (0.6, 0.6), sure)
    assert not told((0.3, 0.25), (0.2, 0.6), unsure)
    assert not told((0.3, 0.25), (0.2, 0.6), [])


def test_where_both_have_many_each_pair_stands_for_itself(repeated: Case) -> None:
    problem, about = repeated.problem, repeated.about
    right = about[problem.anchor][:, None] == about[np.maximum(problem.record, 0)]
    logits = np.where(problem.record >= 0, np.where(right, 2.0, -4.0), supervision.EMPTY_LOGIT)
    expected = 1 / (1 + np.exp(-np.where(np.equal(*about[problem.pair].T), 2.0, -4.0)))
    many, some = (competition.posteriors(problem, logits, np.zeros(2), np.full(2, each)) for each in (0.25, 0.15))
    np.testing.assert_allclose(many, expected, rtol=1e-4)
    assert some[expected > 0.5].max() < 0.5  # a list of four partners shares what is sure


def test_in_a_table_against_itself_partners_are_many_only_if_they_are_many_between_tables(
    repeated: Case,
) -> None:
    """All of a family like one of the other half best: copies of it are surely there, siblings by half."""
    half = repeated.halves[0]
    close = (half.score > np.median(half.score[half.record >= 0])) & (half.record >= 0)
    first = np.where(close, half.record, half.size).min(axis=1, keepdims=True)
    logits = np.where(close & (half.record == first), 5.0, np.where(close, 1.0, -6.0))
    family, copies = (supervision.unpartnered(half, logits, many=many).mean() for many in (False, True))
    assert copies < family - 0.1


def test_what_a_table_repeats_is_found_where_partners_are_many_and_only_there(
    repeated: Case, of_repeated: Learned
) -> None:
    found = of_repeated.trained
    parts, about = (repeated.dataset, repeated.index, repeated.problem), repeated.about
    own = self_training.within(*parts, found.believed, found.params, JUDGE)
    assert own is not None
    left, right = own.pair.T
    assert (left < right).all()
    np.testing.assert_array_equal(*repeated.dataset.table_of[own.pair].T)
    assert len(np.unique(own.pair, axis=0)) == len(own.pair)
    same, likely = about[left] == about[right], own.probability > 0.5
    assert same.sum() > 0.95 * 2 * 24 * 6  # six pairs of four, in either table
    assert likely[same].mean() > 0.8
    assert same[likely].mean() > 0.8
    stated = supervision.update(repeated.problem, found.believed, found.logits, stating=True, within=own)
    np.testing.assert_allclose(stated.posterior, found.believed.posterior, atol=0.02)
    once = dataclasses.replace(found.believed, many=np.bool_(False), several=np.zeros(2, np.float32))
    assert self_training.within(*parts, once, found.params, JUDGE) is None


def test_only_records_that_share_a_partner_are_compared(repeated: Case) -> None:
    problem = repeated.problem
    state = dataclasses.replace(supervision.init(problem, 0), many=np.bool_(True))
    params = judge.init(jax.random.key(0), JUDGE)
    parts = (repeated.dataset, repeated.index, problem)
    posterior = np.zeros(len(problem.pair), np.float32)
    of_nobody = self_training.within(*parts, dataclasses.replace(state, posterior=posterior), params, JUDGE)
    assert of_nobody is not None
    assert of_nobody.pair.shape == (0, 2)
    partner = problem.pair[:, 1] == problem.pair[0, 1]
    likely = partner.copy()
    likely[np.flatnonzero(~np.isin(problem.pair, problem.pair[partner]).any(axis=1))[0]] = True  # a pair apart
    of_one = self_training.within(*parts, dataclasses.replace(state, posterior=likely * 0.9), params, JUDGE)
    assert of_one is not None
    assert set(of_one.pair.ravel()) == set(problem.pair[partner, 0])


def test_one_table_that_repeats_its_records_is_enough_to_say_anchors_in_other_words(
    repeated: Case,
) -> None:
    state = supervision.init(repeated.problem, 0)
    for several, expected in (((0.02, 0.05), False), ((0.0, 0.15), True), ((0.3, 0.3), True)):
        told = dataclasses.replace(state, several=np.array(several, np.float32))
        assert self_training.repeats(told) == expected
        assert self_training.many_partners(told) == (several == (0.3, 0.3))
    assert self_training.repeats(dataclasses.replace(state, many=np.bool_(True)))


def test_records_find_a_partner_in_their_own_table_where_it_says_them_again(
    repeated: Case, of_repeated: Learned, once: Case, of_once: Learned
) -> None:
    """Of four of a thing two on average are in the other half of a table."""
    again, never = (
        self_training.said_again(parts.halves, learned.trained.params, JUDGE, 0)
        for parts, learned in ((repeated, of_repeated), (once, of_once))
    )
    assert again > 0.7
    assert never < 0.05
    assert self_training.said_again([], of_once.trained.params, JUDGE, 0) == 0


def test_records_are_said_again_only_if_a_judge_finds_them_that_was_told_who_is_alone(repeated: Case) -> None:
    """That some are alone it is told of all tables; what it finds then it has to find in all of them."""
    halves, told = repeated.halves, []
    sure = [np.where(half.record >= 0, 6.0, -30.0) for half in halves]
    unsure = [sure[0], np.where(halves[1].record >= 0, -6.0, -30.0)]
    assert self_training.still_repeating(halves, sure)
    assert not self_training.still_repeating(halves, unsure)
    assert self_training.still_repeating([], [])
    join = teaching.join
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(teaching, "join", lambda *lessons: told.append(len(lessons[1])) or join(*lessons))
        patched.setattr(self_training, "still_repeating", lambda *_: False)
        nothing = np.zeros(repeated.problem.record.shape, np.float32)
        found = self_training.run(*repeated[:4], JUDGE, supervision.init(repeated.problem, 0), nothing, 0, rounds=1)
    assert told == [2]
    assert not found.believed.many
