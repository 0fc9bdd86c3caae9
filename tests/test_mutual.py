"""What is believed first: mutual best pairs, the most alike of few, and none that something speaks against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_tables import NAMES, problem_of

from aco_jax import mutual
from aco_jax.data import descriptions, listing, records, retrieval


def test_of_few_mutual_pairs_the_most_alike_are_believed_first():
    names = [f"{name} about {name}" for name in NAMES]
    problem = problem_of({"a": names, "b": [f"{name} fresh" for name in names[:3]]})
    found = mutual.find(problem, mutual.Config(few=1.1, least_first=1))
    rows, alike = np.flatnonzero(found.first), problem.score.max(axis=1)
    assert len(rows) == 2  # one pair, from both ends
    assert alike[rows] == pytest.approx(alike[mutual.find(problem).first].max())
    np.testing.assert_allclose(mutual.shares(problem, found.mutual), [3 / 4, 1])
    assert mutual.find(problem, mutual.Config(few=0.87, least_first=1)).first.sum() == 6  # partners are not few


@pytest.mark.parametrize("few", [0.0, 2.0])
def test_what_contradicts_itself_is_not_believed_first(few):
    """One thing is said most alike but for its code; where all codes differ that says nothing."""

    def first(names, other_names):
        problem = problem_of({"a": names, "b": other_names})
        found = mutual.find(problem, mutual.Config(few=few, first=0.75, least_first=1))
        assert found.mutual.all()
        return set(problem.anchor[found.first].tolist())

    apple = "red sweet crisp dessert apple of the old orchard"
    ours, theirs = (
        [f"{apple} a100", *NAMES[1:]],
        [f"{apple} z911", *(f"{name} ripe fresh" for name in NAMES[1:])],
    )
    assert first(ours, theirs) == {1, 2, 3, 5, 6, 7}
    others = [name[:-4] + code for name, code in zip(NAMES, ("z911", "y822", "x733", "w644"), strict=True)]
    assert len(first(NAMES, others)) == (8 if few == 0 else 6)


@pytest.mark.parametrize(("telling", "anchors"), [(0.0, {0, 1, 4, 5}), (1.5, set(range(8)))])
def test_numbers_that_strangers_share_sooner_than_partners_tell_nothing(telling, anchors):
    """Of a plum 300 the plum is 400 in the other table, and the fig 300: contradictions choose nothing there."""
    ours = ["red sweet apple", "green juicy pear", "blue dark ripe plum 300", "grey soft dry fig 400"]
    theirs = ["red sweet apple", "green juicy pear", "blue dark ripe plum 400", "grey soft dry fig 300"]
    problem = problem_of({"a": ours, "b": [f"{name} fresh" for name in theirs]})
    found = mutual.find(problem, mutual.Config(few=0.0, telling=telling))
    assert set(problem.anchor[found.first].tolist()) == anchors


def half_said(makers):
    """120 things of 30 makers: the first 60 are said in nearly the same words, of the others half of the words.

    Of the others the makers are "the same", "other" ones, "some" of either, or "nobody" says any.
    """
    rng, count = np.random.default_rng(0), 120
    words = [f"{first}{last}" for first in ("mor", "tel", "rud", "vin", "sap") for last in range(100)]
    titles = rng.choice(words, (count, 8))
    kept = np.where(np.arange(count) < count // 2, 7, 4)
    heard = np.where(np.arange(8) < kept[:, None], titles, rng.choice(words, titles.shape))
    maker = np.arange(count) % 30
    changed = {"other": kept == 4, "some": (kept == 4) & (np.arange(count) % 2 == 0)}.get(makers, np.zeros(count, bool))
    theirs = np.where(changed, (maker + 7) % 30, maker)
    tables = {
        name: pd.DataFrame(
            {
                "id": [str(row) for row in range(count)],
                "title": [" ".join(title) for title in said],
                "maker": [f"house of {'abcdefghijklmnopqrstuvwxyzäöüß'[number] * 4}" for number in by],
            }
        )
        for name, said, by in (("a", titles, maker), ("b", heard, theirs))
    }
    if makers == "nobody":
        tables = {name: table.drop(columns="maker") for name, table in tables.items()}
    dataset = records.from_frames(tables)
    index = descriptions.fit(dataset)
    return listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text, index.records.title]))


@pytest.mark.parametrize(("makers", "believed"), [("other", 60), ("the same", 120), ("nobody", 120)])
def test_pairs_that_are_less_alike_are_believed_first_where_they_agree_beside_their_text(makers, believed):
    problem = half_said(makers)
    found = mutual.find(problem)
    partner = problem.record[np.arange(240), found.slot]
    right = np.abs(problem.anchor - partner) == 120  # what is said in half of the words is the best one all the same
    assert found.mutual[right].mean() > 0.9
    anchors = set((problem.anchor[found.first & right] % 120).tolist())
    assert len(anchors & set(range(60))) == 60
    assert len(anchors) == pytest.approx(believed, abs=6)
    assert set(problem.anchor[mutual.find(problem, mutual.ALL).first].tolist()) == set(problem.anchor[found.mutual])


@pytest.mark.parametrize(("agreeing", "believed"), [(0.2, 90), (0.8, 90), (0.95, 60)])
def test_a_band_is_believed_unless_surely_too_few_of_it_are_partners(agreeing, believed):
    """What has the same maker is more alike by that too: of the third band most are partners, of the last none."""
    problem = half_said("some")
    found = mutual.find(problem, mutual.Config(agreeing=agreeing))
    assert len(set((problem.anchor[found.first] % 120).tolist())) == pytest.approx(believed, abs=6)


def test_of_too_few_pairs_nothing_beside_their_text_is_asked():
    problem = half_said("other")
    found = mutual.find(problem, mutual.Config(least_first=100))
    np.testing.assert_array_equal(found.first, found.mutual)
