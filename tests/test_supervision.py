"""Supervision: the confident start, hidden matches, the prior, one-to-one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from small_tables import NAMES, likely, logits_of, problem_of, said_twice

from aco_jax import competition, mutual, supervision, teaching
from aco_jax.data import descriptions, listing, records, retrieval


@pytest.fixture(scope="module")
def parts():
    left = pd.DataFrame({"id": list("0123"), "name": NAMES, "text": [f"about {n}" for n in NAMES]})
    other = [f"{n} fresh" for n in NAMES[:3]]
    right = pd.DataFrame({"id": list("012"), "name": other, "text": [f"more of {n}" for n in other]})
    dataset = records.from_frames({"a": left, "b": right})
    index = descriptions.fit(dataset)
    lists = retrieval.candidates(dataset, [index.records.text], k=4, depth=4)
    return dataset, index, listing.prepare(dataset, index, lists)


def test_start_is_the_mutual_best(parts):
    problem = parts[2]
    state = supervision.init(problem, 0)
    rows = np.flatnonzero(state.target >= 0)
    believed = {(int(problem.anchor[r]), int(problem.record[r, state.target[r]])) for r in rows}
    assert {(0, 4), (1, 5), (2, 6), (4, 0), (5, 1), (6, 2)} == believed
    assert (state.weight > 0).tolist() == (state.target >= 0).tolist()
    np.testing.assert_allclose(state.prior, [3 / 4, 1])  # the shares of all that are mutual
    partner = {int(problem.anchor[r]): int(state.fold[r]) for r in rows}
    assert all(partner[a] == partner[a + 4] for a in range(3))  # both directions share a fold


def test_a_judge_is_checked_on_what_it_was_taught(parts):
    """Believed partners are seen at three to one, and where they are hidden another at one to three."""
    problem = parts[2]
    state = supervision.init(problem, 0)
    proposed = teaching.propose(problem, state)
    half = len(proposed[1].weight) // 2
    logits = np.full(problem.record[np.concatenate([np.flatnonzero(state.weight > 0)] * 2)].shape, -30.0)
    partner = np.asarray(proposed[1].relation[:half, 0] == 1)
    logits[:half][partner] = np.log(3.0)
    rival = proposed[0].record[half:, 0] >= 0
    logits[half:][np.arange(half), rival.argmax(axis=1)] = np.log(1 / 3)
    found = supervision.check(problem, state, proposed, logits)
    assert found.temperature == 1  # all are right: it could be surer, and is not made so
    np.testing.assert_allclose(found.seen, 3 / 4, rtol=1e-5)
    np.testing.assert_allclose(found.hidden, 1 / 4, rtol=1e-5)
    logits[half:][np.arange(half), rival.argmax(axis=1)] = np.log(9.0)
    too_sure = supervision.check(problem, state, proposed, logits)
    assert too_sure.temperature > 2
    cooled = 9 ** (1 / float(too_sure.temperature))
    np.testing.assert_allclose(too_sure.hidden, cooled / (1 + cooled), rtol=0.02)  # beside others at -30


def test_the_careful_prior_takes_off_what_is_seen_where_nothing_is(parts):
    problem = parts[2]
    logits, prior = np.full(problem.record.shape, -30.0), np.full(2, 0.7)
    logits[:, 0] = 0.0  # every list sees a partner at even odds
    checked = supervision.Checked(1.0, np.full(2, 0.9), np.full(2, 0.4))
    np.testing.assert_allclose(supervision.careful_prior(problem, logits, checked, prior), 0.2, rtol=1e-5)
    for blind in (np.full(2, 0.42), np.full(2, np.nan)):  # no better with a partner than without; none believed
        checked = supervision.Checked(1.0, blind, np.full(2, 0.4))
        np.testing.assert_array_equal(supervision.careful_prior(problem, logits, checked, prior), prior)


def test_a_larger_table_has_as_many_with_a_partner_as_the_smaller():
    """Three tables of 2, 4 and 8 records: kinds are (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)."""
    names = [f"item {k} code{k}{k}{k}" for k in range(8)]
    problem = problem_of({"a": names[:2], "b": names[:4], "c": names}, k=8)
    prior, seldom = np.array([0.9, 0.5, 0.3, 0.8, 0.3, 0.1]), np.array([0.0, 0.0, 0.0, 0.05, 0.0, 0.05])
    expected = [0.9, 0.5, 0.45, 0.8, 0.3, 0.4]  # .9 * 2 / 4; 4 asks for .8 * 4 / 8; .5 * 2 / 8 is less than is there
    np.testing.assert_allclose(supervision.of_the_smaller(problem, prior, seldom), expected)
    often = seldom + np.array([0.2, 0, 0, 0, 0, 0.2])  # either end suffices
    np.testing.assert_allclose(supervision.of_the_smaller(problem, prior, often), prior)


def test_few_partners_are_believed_with_care(parts):
    problem = parts[2]
    state, checked = supervision.init(problem, 0), supervision.Checked(2.0, np.full(2, 0.9), np.full(2, 0.1))
    rare, common = (logits_of(problem, gold) for gold in ({(0, 4)}, {(0, 4), (1, 5), (2, 6)}))
    for logits, few in ((rare, 0.5), (common, 1.0)):
        config = supervision.Config(start=mutual.Config(few=few))
        logits = np.where(problem.record >= 0, logits, supervision.EMPTY_LOGIT)
        by_em = supervision.estimate_prior(problem, logits)
        careful = supervision.careful_prior(problem, logits / 2, checked, by_em)
        by_em, careful = (supervision.of_the_smaller(problem, each, np.zeros(2)) for each in (by_em, careful))
        assert (np.abs(careful - by_em) > 0.01).any()
        learned = supervision.update(problem, state, logits, config, checked=checked)
        np.testing.assert_allclose(learned.prior, careful, rtol=1e-5)
        # What is stated is by the judge that was checked last, and by one that was not, as it says.
        stated = supervision.update(problem, learned, logits, config, stating=True)
        np.testing.assert_allclose(stated.prior, careful, rtol=1e-5)
        assert (learned.temperature, stated.temperature) == (2.0, 2.0)
        unchecked = supervision.update(problem, state, logits, config, stating=True)
        np.testing.assert_allclose(unchecked.prior, by_em, rtol=1e-5)
    repeated = dataclasses.replace(state, many=np.bool_(True))
    assert supervision.update(problem, repeated, rare, checked=checked).temperature == 1
    many = supervision.update(problem, state, common, checked=checked)
    np.testing.assert_array_equal(many.prior, supervision.update(problem, state, common).prior)
    assert many.temperature == 1


def test_the_lists_of_a_table_with_few_partners_are_by_the_judges_own_temperature(parts):
    """Three of four records of one table have a partner, three of the other's three; the prior is by what it says."""
    problem = parts[2]
    surer = np.where(problem.kind == 1, 1.5, 1)[:, None]  # the lists of both must not say the same
    logits = surer * logits_of(problem, {(0, 4), (1, 5), (2, 6)})
    logits = np.where(problem.record >= 0, logits, supervision.EMPTY_LOGIT)
    checked, state = supervision.Checked(2.0, np.full(2, 0.9), np.full(2, 0.1)), supervision.init(problem, 0)
    by_em = supervision.estimate_prior(problem, logits)
    assert by_em[0] < 0.9 < by_em[1]
    config = supervision.Config(start=mutual.Config(few=0.9))
    for stating in (False, True):
        found = supervision.update(problem, state, logits, config, checked=checked, stating=stating)
        np.testing.assert_allclose(found.prior, by_em, rtol=1e-6)
        assert found.temperature == 2
        shift = np.log(by_em / (1 - by_em))
        shifted = logits / np.array([2, 1])[problem.kind][:, None] + shift[problem.kind][:, None]
        several = competition.multiplicity(problem, competition.null_softmax(shifted))
        expected = competition.posteriors(problem, shifted, shift, several, stating=stating)
        np.testing.assert_allclose(found.posterior, expected, atol=1e-6)


def test_prior_and_decision_one_to_one(parts):
    problem = parts[2]
    gold = {(0, 4), (1, 5), (2, 6)}
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold))
    np.testing.assert_allclose(state.prior, [0.75, 0.98], atol=0.05)  # three of four, three of three
    assert likely(problem, state) == gold
    assert ((state.posterior >= 0) & (state.posterior <= 1)).all()


@pytest.fixture(scope="module")
def repeated():
    return said_twice()


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


def test_what_is_stated_has_further_partners_only_where_they_outweigh_their_rarity():
    """Of eight records one has two partners for sure: a doubtful second of another is learned from, and not stated."""
    names = [f"item {k} code{k}{k}{k}" for k in range(8)]
    problem = problem_of({"a": names, "b": [*names, names[0], names[1]]}, k=8)
    gold = {(k, 8 + k) for k in range(8)} | {(0, 16)}
    logits = logits_of(problem, gold)
    logits[(problem.anchor == 17)[:, None] & (problem.record == 1)] = -1.0
    first = supervision.init(problem, 0)
    learned, stated = (supervision.update(problem, first, logits, stating=stating) for stating in (False, True))
    assert likely(problem, learned) == gold | {(1, 17)}
    assert likely(problem, stated) == gold


def test_where_both_tables_repeat_a_pair_is_as_likely_as_its_two_lists_say_on_average():
    rows = [f"item {k} code{k}{k}{k}" for k in range(4) for _ in range(2)]
    problem = problem_of({"a": rows, "b": rows}, k=8)
    logits = np.random.default_rng(0).normal(0, 2, problem.record.shape)
    # Each record is the one that two of the other table think of first.
    logits[np.arange(16), np.where(problem.record % 8 == 2 * (problem.anchor % 8 // 4)[:, None], 9, 0).argmax(1)] = 9.0
    config = supervision.Config(competing=competition.Config(many=2.0))  # several, but never many
    state = supervision.update(problem, supervision.init(problem, 0), logits, config, stating=True)
    assert (state.several == 1).all()
    shifted = logits + np.log(state.prior / (1 - state.prior))[problem.kind][:, None]
    odds = np.exp(shifted)
    alone = odds / (1 + odds.sum(axis=1, keepdims=True))
    for pair, found in zip(problem.pair, state.posterior, strict=True):
        both = [
            alone[problem.anchor == one][problem.record[problem.anchor == one] == other]
            for one, other in (pair, pair[::-1])
        ]
        np.testing.assert_allclose(found, np.concatenate(both).sum() / 2, atol=1e-4)


def three_shops():
    """Three tables that say the same four records, and the pairs that are right."""
    problem = problem_of({name: [f"{text} {name}" for text in NAMES] for name in "abc"})
    gold = {(first * 4 + k, second * 4 + k) for k in range(4) for first, second in ((0, 1), (0, 2), (1, 2))}
    return problem, gold


def test_two_of_three_tables_may_have_nothing_in_common():
    """Tables a and c share no word; what b has with each of them is found."""
    names = {
        "a": ["aba bab", "cdc dcd"],
        "b": ["aba bab", "cdc dcd", "xyx yxy", "zwz wzw"],
        "c": ["xyx yxy", "zwz wzw"],
    }
    problem = problem_of(names)
    gold = {(0, 2), (1, 3), (4, 6), (5, 7)}
    state = supervision.update(problem, supervision.init(problem, 0), logits_of(problem, gold), stating=True)
    assert likely(problem, state) == gold


def doubted(problem, gold, pair, logit):
    logits = logits_of(problem, gold)
    either = (problem.anchor[:, None] == pair[0]) & (problem.record == pair[1])
    return np.where(either | ((problem.anchor[:, None] == pair[1]) & (problem.record == pair[0])), logit, logits)


@pytest.mark.parametrize(("violation", "stated"), [(0.05, True), (1.0, False)])
def test_two_sure_pairs_of_three_records_bring_the_doubtful_third(violation, stated):
    """Records 0, 4 and 8 are the same; of 4 and 8 their own lists say rather no."""
    problem, gold = three_shops()
    logits = doubted(problem, gold, (4, 8), -3.0)
    config = supervision.Config(competing=competition.Config(violation=violation))
    state = supervision.update(problem, supervision.init(problem, 0), logits, config, stating=True)
    assert ((4, 8) in likely(problem, state)) == stated
    assert gold - {(4, 8)} <= likely(problem, state)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first", ["once", "twice"])
def test_both_directions_of_every_believed_pair_share_a_fold(first, seed):
    """Also where a record has several partners, in whichever table they are."""
    rows = [f"item {k} code{k}{k}{k}" for k in range(4)]
    tables = {"once": rows, "twice": [r for r in rows for _ in range(2)]}
    order = sorted(tables, key=lambda name: name != first)
    problem = problem_of({name: tables[name] for name in order}, k=8)
    said = [text for name in order for text in tables[name]]
    gold = {(a, b) for a, b in map(tuple, problem.pair.tolist()) if said[a] == said[b]}
    state = supervision.update(problem, supervision.init(problem, seed), logits_of(problem, gold))
    assert likely(problem, state) == gold
    fold = dict(zip(problem.anchor.tolist(), state.fold.tolist(), strict=True))
    assert all(fold[a] == fold[b] for a, b in gold)


def test_company_is_the_surest_partner_in_a_table_not_searched():
    """Shop c repeats a's first two records and b's third; what is believed of a list stands in the state."""
    shops = {"a": [0, 1, 2], "b": [0, 2, 3], "c": [0, 1, 2]}
    problem = problem_of({name: [f"{NAMES[i]} {name}" for i in numbers] for name, numbers in shops.items()}, k=3)
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


def test_of_several_the_surest_goes_along():
    """Of four tables two are beside a list; each pair of tables is believed by another weight."""
    problem = problem_of({name: [f"{text} {name}" for text in NAMES] for name in "abcd"}, k=3)
    tables = np.repeat(np.arange(4), len(NAMES))
    weight = 0.1 + 0.1 * np.asarray(problem.kind, np.float32) % 0.8
    state = supervision.init(problem, 0).replace(weight=weight)
    rows = np.arange(len(problem.anchor))
    found = supervision.company(problem, state, rows)
    sure = {(int(a), int(t)): float(w) for a, t, w in zip(problem.anchor, problem.table, weight, strict=True)}
    for row in rows:
        anchor = int(problem.anchor[row])
        beside = [t for t in range(4) if t not in (tables[anchor], problem.table[row])]
        assert tables[found[row]] == max(beside, key=lambda table, a=anchor: sure[a, table])


def test_an_empty_slot_stays_empty_at_any_temperature(parts):
    """A list of one candidate and ten empty slots has the odds of that candidate."""
    problem = parts[2]
    wide = np.full((len(problem.anchor), 10), -1, np.int32)
    padded = dataclasses.replace(
        problem,
        **{name: np.concatenate([getattr(problem, name), wide], axis=1) for name in ("record", "place", "reverse")},
        score=np.concatenate([problem.score, wide.astype(np.float32)], axis=1),
    )
    checked = supervision.Checked(8.0, np.full(2, 0.9), np.full(2, 0.1))
    found = [
        supervision.update(each, supervision.init(each, 0), np.where(each.record >= 0, -4.0, 0.0), checked=checked)
        for each in (problem, padded)
    ]
    assert found[0].temperature == 8
    np.testing.assert_allclose(found[1].prior, found[0].prior, rtol=1e-5)
    np.testing.assert_allclose(found[1].posterior, found[0].posterior, rtol=1e-4)


def test_what_is_known_of_a_judge_goes_with_the_names_of_the_tables():
    kinds = {
        pair: n / 10 for n, pair in enumerate([("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")])
    }
    checked = supervision.Checked(
        np.float32(2), *(np.array(list(kinds.values()), np.float32) + each for each in (0, 1))
    )
    fewer = supervision.carry_checked(checked, "abc", "ca")
    np.testing.assert_allclose(fewer.seen, [kinds["c", "a"], kinds["a", "c"]])
    np.testing.assert_allclose(fewer.hidden, [1 + kinds["c", "a"], 1 + kinds["a", "c"]])
    other = supervision.carry_checked(checked, "abc", "bad")
    np.testing.assert_allclose(other.seen[[0, 2]], [kinds["b", "a"], kinds["a", "b"]])
    assert np.isnan(other.seen[[1, 3, 4, 5]]).all()
    assert fewer.temperature == other.temperature == 2
