"""A table against itself: its halves, who it repeats, and what its lists weigh among the lessons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax import supervision, teaching
from aco_jax.data import descriptions, listing, records, retrieval


@pytest.fixture(scope="module")
def clean_and_repeated():
    """Sixteen things, of which table b says each twice."""
    rows = [
        f"item {word} code{k}{k}{k}"
        for k, word in enumerate(["oak", "elm", "ash", "fir", "yew", "box", "bay", "fig"] * 2)
    ]
    left = pd.DataFrame({"id": range(16), "name": rows}).astype(str)
    right = pd.DataFrame({"id": range(32), "name": [row for row in rows for _ in range(2)]}).astype(str)
    dataset = records.from_frames({"a": left, "b": right})
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=4, depth=4))
    return dataset, problem, listing.halves(dataset, index, problem, 0)


def test_a_table_whose_records_have_nothing_in_common_has_no_halves():
    rows = ["aba", "cdc", "efe", "ghg"]
    frames = {name: pd.DataFrame({"id": list("0123"), "name": rows}) for name in "ab"}
    dataset = records.from_frames(frames)
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=4, depth=4))
    assert listing.halves(dataset, index, problem, 0) == []


def test_halves_part_a_table_and_keep_its_evidence(clean_and_repeated):
    dataset, problem, halves = clean_and_repeated
    assert [half.size for half in halves] == [16, 32]
    for half in halves:
        first = half.home == 0
        assert first.sum() == half.size // 2
        assert (half.record[first].max(), half.record[~first].max()) < (half.size, half.size // 2)
        np.testing.assert_array_equal(half.mean, problem.mean)
    again = listing.halves(dataset, descriptions.fit(dataset), problem, 0)
    np.testing.assert_array_equal(halves[1].record, again[1].record)
    assert (listing.halves(dataset, descriptions.fit(dataset), problem, 1)[1].record != again[1].record).any()


def test_a_table_is_looked_at_within_without_anybody_beside_itself(clean_and_repeated):
    dataset, problem, _ = clean_and_repeated
    index, records = descriptions.fit(dataset), np.arange(17, 48, 2)  # every other one of table b
    lists = listing.within(dataset, index, problem, records)
    assert lists is not None
    assert lists.size == 2 * len(records)
    left, right = np.tile(records, 2)[lists.pair].T
    assert (left != right).all()
    np.testing.assert_array_equal(lists.mean, problem.mean)
    filled = lists.record >= 0
    assert (np.diff(filled.astype(int), axis=1) <= 0).all()  # empty slots come last
    assert listing.within(dataset, index, problem, records[:1]) is None


def test_who_is_repeated_is_no_stranger(clean_and_repeated):
    """A judge that knows equal text finds the copies in table b, and nobody in table a."""
    halves = clean_and_repeated[2]
    clean, repeated = (
        supervision.unpartnered(half, np.where((half.score > 0.99) & (half.record >= 0), 6.0, -6.0)) for half in halves
    )
    assert clean.min() > 0.9
    found = halves[1].score.max(axis=1) > 0.99
    assert found.any()
    assert (~found).any()
    assert repeated[found].max() < 0.1
    assert repeated[~found].min() > 0.9


def test_lists_of_one_table_take_half_the_weight_of_null(clean_and_repeated):
    _, problem, halves = clean_and_repeated
    proposed = teaching.propose(problem, supervision.init(problem, 0))
    single = [teaching.alone(half, 0) for half in halves]
    sure = [np.linspace(0.5, 1.0, len(fold), dtype=np.float32) for _, _, fold in single]
    candidates, belief, fold = teaching.join(proposed, single, sure)
    count, before = len(proposed[2]), np.asarray(proposed[1].weight)
    matched, hidden, rest = np.split(np.asarray(belief.weight), [count // 2, count])
    np.testing.assert_allclose(matched, before[: count // 2])
    np.testing.assert_allclose(hidden, before[count // 2 :] / 2)
    first, second = np.split(rest, [16])
    np.testing.assert_allclose([first.sum(), second.sum()], hidden.sum() / 2, rtol=1e-5)
    np.testing.assert_allclose(first / first[0], sure[0] / sure[0][0], rtol=1e-5)
    assert len(fold) == len(candidates.record) == count + 48
    assert (belief.relation[count:] <= 0).all()
    assert (np.bincount(fold[count:]) > 8).all()
    assert teaching.join(proposed, [], []) is proposed
