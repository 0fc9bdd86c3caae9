"""Supervision: the confident start, hidden matches, the prior, one-to-one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from aco_jax import supervision
from aco_jax.data import descriptions, listing, records, retrieval

NAMES = ["red apple a100", "green pear b200", "blue plum c300", "grey fig d400"]


@pytest.fixture(scope="module")
def parts():
    left = pd.DataFrame({"id": list("0123"), "name": NAMES, "text": [f"about {n}" for n in NAMES]})
    other = [f"{n} fresh" for n in NAMES[:3]]
    right = pd.DataFrame({"id": list("012"), "name": other, "text": [f"more of {n}" for n in other]})
    dataset = records.from_frames({"a": left, "b": right})
    index = descriptions.fit(dataset)
    lists = retrieval.candidates(dataset, [index.records.text], k=4, depth=4)
    return dataset, index, listing.prepare(dataset, index, lists)


def logits_of(problem, pairs, high=6.0, low=-6.0):
    alike = [
        [(min(a, b), max(a, b)) in pairs for b in row] for a, row in zip(problem.anchor, problem.record, strict=True)
    ]
    return np.where(np.array(alike), high, low)


def likely(problem, state):
    return {(int(a), int(b)) for a, b in problem.pair[state.posterior > 0.5]}


def test_start_is_the_mutual_best(parts):
    problem = parts[2]
    state = supervision.init(problem, 0)
    rows = np.flatnonzero(state.target >= 0)
    believed = {(int(problem.anchor[r]), int(problem.record[r, state.target[r]])) for r in rows}
    assert {(0, 4), (1, 5), (2, 6), (4, 0), (5, 1), (6, 2)} == believed
    partner = {int(problem.anchor[r]): int(state.fold[r]) for r in rows}
    assert all(partner[a] == partner[a + 4] for a in range(3))  # both directions share a fold


def test_hidden_match_leaves_only_null(parts):
    problem = parts[2]
    candidates, belief, _ = supervision.propose(problem, supervision.init(problem, 0))
    half = len(belief.weight) // 2
    assert ((belief.relation[:half] == 1).sum(axis=(1, 2)) == 1).all()
    assert (belief.relation[half:] < 1).all()
    gone = belief.relation[:half] == 1
    assert (candidates.record[half:][gone] == -1).all()
    assert (candidates.evidence[half:][gone] == 0).all()
    assert not belief.planted.any()


def test_prior_and_decision_one_to_one(parts):
    problem = parts[2]
    gold = {(0, 4), (1, 5), (2, 6)}
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold))
    np.testing.assert_allclose(state.prior, [0.75, 0.98], atol=0.05)  # three of four, three of three
    assert likely(problem, state) == gold
    assert ((state.posterior >= 0) & (state.posterior <= 1)).all()


@pytest.fixture(scope="module")
def repeated():
    """Table b says each record of a twice; with the pairs that are right."""
    rows = [f"item {k} code{k}{k}{k}" for k in range(4)]
    left = pd.DataFrame({"id": list("0123"), "name": rows})
    right = pd.DataFrame({"id": list("01234567"), "name": [r for r in rows for _ in range(2)]})
    dataset = records.from_frames({"a": left, "b": right})
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=8, depth=8))
    return problem, {(k, 4 + 2 * k + n) for k in range(4) for n in range(2)}


def test_two_claims_are_seen_and_both_kept(repeated):
    problem, gold = repeated
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold))
    np.testing.assert_allclose(sorted(state.several), [0.0, 1.0])
    assert likely(problem, state) == gold


def test_where_one_table_repeats_the_other_side_says_how_likely_a_pair_is(repeated):
    """A record's two partners share its softmax, so that of 6 and 2 one would seem lost: 0.02 against 0.98."""
    problem, gold = repeated
    logits = logits_of(problem, gold)
    logits[(problem.anchor == 0)[:, None] & (problem.record == 5)] = 2.0
    state = supervision.update(problem, supervision.init(problem, 0), logits)
    assert likely(problem, state) == gold
    shift = np.log(state.prior / (1 - state.prior))
    for number in range(4, 12):
        row = int(np.flatnonzero(problem.anchor == number)[0])
        odds = np.exp(logits[row] + shift[problem.kind[row]])[problem.record[row] == (number - 4) // 2].sum()
        pair = (problem.pair == [(number - 4) // 2, number]).all(axis=1)
        np.testing.assert_allclose(state.posterior[pair], odds / (1 + odds), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first", ["once", "twice"])
def test_both_directions_of_every_believed_pair_share_a_fold(first, seed):
    """Also where a record has several partners, in whichever table they are."""
    rows = [f"item {k} code{k}{k}{k}" for k in range(4)]
    tables = {"once": rows, "twice": [r for r in rows for _ in range(2)]}
    frames = {
        name: pd.DataFrame({"id": [str(k) for k in range(len(tables[name]))], "name": tables[name]})
        for name in sorted(tables, key=lambda name: name != first)
    }
    dataset = records.from_frames(frames)
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=8, depth=8))
    gold = {(a, b) for a, b in map(tuple, problem.pair.tolist()) if dataset.text(a) == dataset.text(b)}
    state = supervision.update(problem, supervision.init(problem, seed), logits_of(problem, gold))
    assert likely(problem, state) == gold
    fold = dict(zip(problem.anchor.tolist(), state.fold.tolist(), strict=True))
    assert all(fold[a] == fold[b] for a, b in gold)


def test_all_partners_are_hidden_together(repeated):
    problem, gold = repeated
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold))
    ours = np.flatnonzero(problem.direction > 0)
    assert (supervision.partners(problem, state, ours).sum(axis=1) == 2).all()
    candidates, belief, _ = supervision.propose(problem, state)
    half = len(belief.weight) // 2
    stated = belief.relation[:half] == 1
    assert sorted(stated.sum(axis=(1, 2))) == [1] * 8 + [2] * 4
    assert (candidates.record[half:][stated] == -1).all()
    assert (belief.relation[half:] < 1).all()


def test_company_is_the_surest_partner_in_a_table_not_searched():
    """Shop c repeats a's first two records and b's third; what is believed of a list stands in the state."""
    shops = {"a": [0, 1, 2], "b": [0, 2, 3], "c": [0, 1, 2]}
    frames = {
        name: pd.DataFrame({"id": numbers, "name": [f"{NAMES[i]} {name}" for i in numbers]})
        for name, numbers in shops.items()
    }
    dataset = records.from_frames({name: frame.astype(str) for name, frame in frames.items()})
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=3, depth=3))
    rows = np.arange(len(problem.anchor))
    state = supervision.init(problem, 0)
    state = state.replace(weight=np.where(rows % 3 == 0, 0, state.weight))
    found = supervision.company(problem, state, rows)
    believed = {
        (int(problem.anchor[r]), int(problem.table[r])): int(problem.record[r, state.target[r]])
        for r in rows
        if state.weight[r] > 0
    }
    for r in rows:
        others = {believed.get((int(problem.anchor[r]), t), -1) for t in range(3) if t != problem.table[r]}
        assert found[r] in (others - {-1} or {-1})
    assert (found >= 0).any()
    assert (found < 0).any()


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


def test_halves_part_a_table_and_keep_its_evidence(clean_and_repeated):
    dataset, problem, halves = clean_and_repeated
    assert [half.size for half in halves.values()] == [16, 32]
    for half in halves.values():
        first = half.home == 0
        assert first.sum() == half.size // 2
        assert (half.record[first].max(), half.record[~first].max()) < (half.size, half.size // 2)
        np.testing.assert_array_equal(half.mean, problem.mean)
    again = listing.halves(dataset, descriptions.fit(dataset), problem, 0)
    np.testing.assert_array_equal(halves[1].record, again[1].record)
    assert (listing.halves(dataset, descriptions.fit(dataset), problem, 1)[1].record != again[1].record).any()


def test_who_is_repeated_is_no_stranger(clean_and_repeated):
    """A judge that knows equal text finds the copies in table b, and nobody in table a."""
    halves = clean_and_repeated[2]
    clean, repeated = (
        supervision.unpartnered(half, np.where((half.score > 0.99) & (half.record >= 0), 6.0, -6.0))
        for half in halves.values()
    )
    assert clean.min() > 0.9
    found = halves[1].score.max(axis=1) > 0.99
    assert found.any()
    assert (~found).any()
    assert repeated[found].max() < 0.1
    assert repeated[~found].min() > 0.9


def test_lists_of_one_table_take_half_the_weight_of_null(clean_and_repeated):
    _, problem, halves = clean_and_repeated
    proposed = supervision.propose(problem, supervision.init(problem, 0))
    single = [supervision.alone(half, 0) for half in halves.values()]
    sure = [np.linspace(0.5, 1.0, len(fold), dtype=np.float32) for _, _, fold in single]
    candidates, belief, fold = supervision.join(proposed, single, sure)
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
    assert supervision.join(proposed, [], []) is proposed


def catalogues(shared: int):
    """Two tables of 120 made-up titles, of which `shared` stand in both; other titles have a word or two in common."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rt"]
    titles = [" ".join(rng.choice(words, 6, replace=False)) for _ in range(240 - shared)]
    right = [" ".join(title.split()[:5]) for title in titles[:shared]] + titles[120:]
    dataset = records.from_frames(
        {
            name: pd.DataFrame({"id": [str(i) for i in range(120)], "title": rows})
            for name, rows in (("a", titles[:120]), ("b", right))
        }
    )
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=4, depth=4))
    # Another table words things otherwise: whatever is compared across is a little less alike.
    return listing.halves(dataset, index, problem, 0), dataclasses.replace(problem, score=0.9 * problem.score)


@pytest.mark.parametrize(("shared", "doubted"), [(8, True), (110, False)])
def test_a_start_among_strangers_is_doubted_but_for_those_that_are_alike(shared, doubted):
    """The first `shared` records of both tables are the same; what else is mutual is chance, as within a table."""
    halves, problem = catalogues(shared)
    start = supervision.init(problem, 0)
    own = {table: half.score for table, half in halves.items()}
    found = supervision.temper(problem, start, problem.score, halves, own)
    assert supervision.doubtful(problem, start, found, halves) == doubted
    rows = np.flatnonzero(start.weight)
    partner = problem.record[rows, start.target[rows]]
    same = np.minimum(problem.anchor[rows], partner) + 120 == np.maximum(problem.anchor[rows], partner)
    same &= np.minimum(problem.anchor[rows], partner) < shared
    assert same.sum() == 2 * shared
    assert found.weight[rows][same].mean() > 0.9
    assert not doubted or found.weight[rows][~same].mean() < 0.3
    # One mind about a pair in both its lists, and the posterior shares the doubt.
    told = supervision.update(problem, found, np.where(problem.score > 0, 4.0, -4.0))
    sure = supervision.update(problem, start, np.where(problem.score > 0, 4.0, -4.0))
    np.testing.assert_allclose(told.posterior, sure.posterior * found.discovered, rtol=1e-6)
    assert supervision.trust(start) == 1
    share = told.posterior.sum() / sure.posterior.sum()
    assert supervision.trust(told) == pytest.approx(share, rel=1e-4)


def test_of_two_tables_the_one_with_fewer_repeats_says_what_strangers_look_like():
    """Table b says everything twice: its own lists alone would have every pair be a chance."""
    rng = np.random.default_rng(1)
    words = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("rst", "lmp", "nkt", "sch")]
    titles = [" ".join(rng.choice(words, 6, replace=False)) for _ in range(80)]
    left = pd.DataFrame({"id": [str(i) for i in range(80)], "title": titles})
    right = pd.DataFrame({"id": [str(i) for i in range(80)], "title": [t for t in titles[:40] for _ in range(2)]})
    dataset = records.from_frames({"a": left, "b": right})
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=4, depth=4))
    halves, start = listing.halves(dataset, index, problem, 0), supervision.init(problem, 0)
    own = {table: half.score for table, half in halves.items()}
    found = supervision.temper(problem, start, problem.score, halves, own)
    equal = problem.score[problem.place >= 0] > 0.99
    assert found.discovered[problem.place[problem.place >= 0][equal]].min() > 0.9
