"""Self-training: few partners and many are told apart, and records that both tables repeat find one another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from aco_jax import competition, self_training, settings, supervision
from aco_jax.data import descriptions, evidence, listing, noise, records, retrieval
from aco_jax.models import judge

JUDGE = judge.Config(columns=evidence.JUDGED, witnesses=settings.WITNESSES, relations=1, steps=150)
WORDS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "kettle", "meadow"]
Case = tuple[listing.Problem, list[listing.Problem], np.ndarray]  # and what each record is about


def case(times: int, things: int) -> Case:
    """Two tables that say each thing `times` times, in other words each time; half of the things where it is once."""
    rng = np.random.default_rng(0)
    named = [" ".join(rng.choice(WORDS, 4, replace=False)) + f" {rng.integers(100, 999)}" for _ in range(things)]
    tables, about = {}, []
    for number, table in enumerate("ab"):
        known = np.arange(things) if times > 1 else np.arange(things // 2) + number * (things // 4)
        said = np.repeat(known, times)
        rows = [noise.corrupt(rng, {"title": named[thing], "note": f"of {named[thing]}"}, 0.2) for thing in said]
        tables[table] = pd.DataFrame(rows).fillna("").assign(id=[str(i) for i in range(len(rows))])
        about.append(said)
    dataset = records.from_frames(tables)
    index = descriptions.fit(dataset)
    lists = retrieval.candidates(dataset, [index.records.text, index.records.title], k=8)
    problem = listing.prepare(dataset, index, lists)
    return problem, listing.halves(dataset, index, problem, 0), np.concatenate(about)


@pytest.fixture(scope="module")
def repeated() -> Case:
    return case(times=4, things=24)


def trained(parts: Case) -> self_training.Trained:
    problem, halves, _ = parts
    nothing = np.zeros(problem.record.shape, np.float32)
    return self_training.run(problem, halves, JUDGE, supervision.init(problem, 0), nothing, 0)


def recall_and_precision(parts: Case, posterior: np.ndarray) -> tuple[float, float]:
    problem, _, about = parts
    first, second = about[problem.pair].T
    right, stated = first == second, posterior > 0.5
    return float(stated[right].mean()), float(right[stated].mean())


def test_records_that_both_tables_repeat_find_all_their_partners(repeated: Case) -> None:
    start = supervision.init(repeated[0], 0)
    assert self_training.seldom_mutual(start)  # for others are as good, not for want of partners
    found = trained(repeated)
    assert found.believed.many
    recall, precision = recall_and_precision(repeated, found.believed.posterior)
    assert recall > 0.9
    assert precision > 0.95


def test_few_partners_are_not_taken_for_many() -> None:
    parts = case(times=1, things=80)
    assert self_training.seldom_mutual(supervision.init(parts[0], 0), supervision.Config(few=0.9))
    found = trained(parts)
    assert not found.believed.many
    assert recall_and_precision(parts, found.believed.posterior)[1] > 0.9


def test_the_signs_are_needed_of_every_table(repeated: Case) -> None:
    problem, halves, _ = repeated
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


def test_a_partner_said_again_is_hidden_with_it_and_is_no_lesson_of_its_own(repeated: Case) -> None:
    problem, _, about = repeated
    once = supervision.init(problem, 0, supervision.ALL_MUTUAL)
    rows = np.flatnonzero(once.weight > 0)
    same = (about[problem.record[rows]] == about[problem.anchor[rows]][:, None]) & (problem.record[rows] >= 0)
    counts = []
    for many in (False, True):
        candidates, belief, _ = supervision.propose(problem, dataclasses.replace(once, many=np.bool_(many)))
        left = candidates.record[len(rows) :, 0] >= 0
        counts.append(int((left & same).sum()))
        assert (belief.relation[: len(rows), 0] == 1).sum() == len(rows)  # the believed one alone is a partner
        assert not (belief.relation[len(rows) :, 0] == 1).any()
    assert counts[1] < 0.3 * counts[0]


def test_where_both_have_many_each_pair_stands_for_itself(repeated: Case) -> None:
    problem, _, about = repeated
    right = about[problem.anchor][:, None] == about[np.maximum(problem.record, 0)]
    logits = np.where(problem.record >= 0, np.where(right, 2.0, -4.0), supervision.EMPTY_LOGIT)
    expected = 1 / (1 + np.exp(-np.where(np.equal(*about[problem.pair].T), 2.0, -4.0)))
    many, some = (competition.posteriors(problem, logits, np.zeros(2), np.full(2, each)) for each in (0.25, 0.15))
    np.testing.assert_allclose(many, expected, rtol=1e-4)
    assert some[expected > 0.5].max() < 0.5  # a list of four partners shares what is sure


def test_in_a_table_against_itself_partners_are_many_only_if_they_are_many_between_tables(repeated: Case) -> None:
    """All of a family like one of the other half best: copies of it are surely there, siblings by half."""
    half = repeated[1][0]
    close = (half.score > np.median(half.score[half.record >= 0])) & (half.record >= 0)
    first = np.where(close, half.record, half.size).min(axis=1, keepdims=True)
    logits = np.where(close & (half.record == first), 5.0, np.where(close, 1.0, -6.0))
    family, copies = (supervision.unpartnered(half, logits, many=many).mean() for many in (False, True))
    assert copies < family - 0.1
