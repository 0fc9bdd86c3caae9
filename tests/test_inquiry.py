"""What the language models do for the host: chunks, what is found, what lies nearest, and the order of subqueries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import desk as desks
from aco_jax import inquiry, prepare, settings, supervision, train
from aco_jax.agents import base
from aco_jax.data import records, retrieval, telling, tokens
from aco_jax.settings import TrainConfig

ROWS = np.arange(0, 24, 3)


@pytest.fixture(scope="module")
def team(shops: Path, tiny: TrainConfig) -> inquiry.Staff:
    """Agents that have learned nothing, at the desk of two shops."""
    dataset = records.read_folder(shops, relations=records.SAME)
    desk = desks.open_desk(tiny, dataset)
    agents = settings.learner_config(tiny, dataset, desk.tokenizer)
    return inquiry.staff(desk, tiny, agents, train.parameters(train.start(tiny, agents, desk), agents), ROWS)


@pytest.fixture(scope="module")
def asked(team: inquiry.Staff) -> inquiry.Asked:
    return inquiry.ask(team, desks.standing(team.desk, ROWS), jax.random.key(0))


@pytest.mark.parametrize("count", [0, 3, inquiry.CHUNK, inquiry.CHUNK + 1])
def test_chunks_give_what_the_whole_gives(count: int) -> None:
    x, y = np.arange(2 * count).reshape(count, 2), np.arange(count)
    found = inquiry.chunked(lambda x, y: jnp.asarray(x).sum(axis=1) + y, x, y)
    np.testing.assert_array_equal(found, x.sum(axis=1) + y)


def test_what_lies_nearest_is_what_the_embeddings_say(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    searched = team.desk.problem.table[ROWS]
    own = np.asarray(base.embed(team.params["base"], team.agents.base, jnp.asarray(asked.source)))
    for i, table in enumerate(searched):
        first, end = team.desk.dataset.offsets[table : table + 2]
        best = first + np.argsort(-(team.vectors[first:end] @ own[i]), kind="stable")
        assert set(asked.similar[i]) == set(best[: team.depth])


def test_a_record_lies_nearest_to_itself(team: inquiry.Staff) -> None:
    found = inquiry.nearest(team, team.desk.asks, team.desk.dataset.table_of)
    np.testing.assert_array_equal(found[:, 0], np.arange(team.desk.dataset.size))


def test_of_large_tables_a_part_is_embedded(
    team: inquiry.Staff, asked: inquiry.Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry, "POOL", 4)
    rows, problem = ROWS[:1], team.desk.problem
    small = inquiry.staff(team.desk, team.config, team.agents, team.params, rows)
    resembling = problem.record[rows][problem.record[rows] >= 0]
    assert set(resembling) <= set(small.pool)
    assert len(small.pool) < team.desk.dataset.size
    np.testing.assert_allclose(small.vectors, team.vectors[small.pool], rtol=1e-5, atol=1e-6)
    searched = problem.table[ROWS]
    found = inquiry.nearest(small, asked.source, searched)
    named = found != retrieval.EMPTY
    assert set(found[named]) <= set(small.pool)
    assert (team.desk.dataset.table_of[found] == searched[:, None])[named].all()


def test_queries_keep_to_their_table(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    searched = team.desk.problem.table[ROWS]
    np.testing.assert_array_equal(asked.query.table, searched)
    for found in (asked.found, asked.similar):
        assert ((found < 0) | (team.desk.dataset.table_of[found] == searched[:, None])).all()


def test_a_base_that_does_not_ask_finds_what_the_records_own_words_find(team: inquiry.Staff) -> None:
    config = dataclasses.replace(team.config, train=dataclasses.replace(team.config.train, ask=False))
    own = inquiry.ask(dataclasses.replace(team, config=config), desks.standing(team.desk, ROWS), jax.random.key(0))
    lists = team.desk.problem
    expected = inquiry.lexical(team.desk, team.desk.asks[lists.anchor[ROWS]], lists.table[ROWS], team.depth)
    np.testing.assert_array_equal(own.found, expected)
    assert (own.found >= 0).any()


def test_what_is_asked_counts_beside_the_anchors_own_words(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    """BM25 adds what each word tells, so the order is that of both texts' scores together."""
    desk, size = team.desk, team.desk.dataset.size
    split = inquiry.split(team, desks.standing(desk, ROWS), asked, jax.random.key(1))
    for i, table in enumerate(desk.problem.table[ROWS].tolist()):
        for words, best in ((asked.query.tokens, asked.found), (split.subquery[:, 1], split.found[:, 1])):
            total = np.zeros(size)
            for text in (asked.source[i], words[i]):
                (found,), (score,) = retrieval.search(desk.lexical, [desk.tokenizer.decode(text)], table, size)
                np.add.at(total, found[found >= 0], score[found >= 0])
            there = best[i][best[i] >= 0]
            np.testing.assert_allclose(total[there], np.sort(total)[::-1][: len(there)], rtol=1e-5)


def test_subqueries_stand_in_the_order_of_their_merits(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    params = team.params | {"ranker": team.params["ranker"] | {"merits": np.array([0.3, 2.0, -1.0], np.float32)}}
    cold = dataclasses.replace(team.config, train=dataclasses.replace(team.config.train, temperature=0.0))
    team = dataclasses.replace(team, params=params, config=cold)
    split = inquiry.split(team, desks.standing(team.desk, ROWS), asked, jax.random.key(1))
    score = split.merits @ params["ranker"]["merits"]
    assert (np.diff(score, axis=1) <= 0).all()
    again = inquiry.merits(team, asked, split.subquery, split.found)
    np.testing.assert_allclose(split.merits, again, atol=1e-5)


def test_merits_by_hand(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    asked = jax.tree.map(lambda x: x[:1], asked)
    words = np.resize(team.desk.asks[0, 3:7], (1, 2, team.agents.rewriter.length)).astype(np.int32)
    other = np.setdiff1d(np.arange(team.desk.dataset.size), asked.found[0])[:1]
    found = np.full((1, 2, team.depth), -1, np.int32)
    found[0, 0, :2] = [asked.found[0, 0], other[0]]
    merits = inquiry.merits(team, asked, words, found)
    np.testing.assert_allclose(merits[0, :, 0], 0.0, atol=1e-5)
    np.testing.assert_allclose(merits[0, :, 2], [0.5, 0.0])
    assert (merits[..., 1] <= 0).all()


def test_without_rewrites_nothing_is_split(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    none = dataclasses.replace(team.config, train=dataclasses.replace(team.config.train, rewrites=0))
    team = dataclasses.replace(team, config=none)
    split = inquiry.split(team, desks.standing(team.desk, ROWS), asked, jax.random.key(0))
    assert split.subquery.shape[:2] == (len(ROWS), 0)


def test_likelihoods_take_a_third_record_in_where_there_is_one(team: inquiry.Staff) -> None:
    texts, record, third = team.desk.texts, np.array([30, 31, 32]), np.array([-1, 5, -1])
    params, agents = team.params["base"], team.agents
    found = inquiry.likelihoods(agents, params, texts[:3], texts, record, third)
    two = base.likelihood(params, agents.base, (texts[:3], texts[record]))
    three = base.likelihood(params, agents.base, (texts[:3], texts[record], texts[[5, 5, 5]]))
    np.testing.assert_allclose(found, np.where(third >= 0, three, two), atol=1e-4)
    assert abs(two[1] - three[1]) > 1e-4


def test_readings_are_the_gap_to_the_anchor_and_what_is_likelier_together(
    team: inquiry.Staff, asked: inquiry.Asked
) -> None:
    desk, believed = team.desk, supervision.init(team.desk.problem, 0)
    anchors = desks.standing(desk, ROWS)
    batch, _ = prepare.answers(team, believed, anchors, asked, inquiry.unsplit(team, asked))
    anchor, record, nobody = np.array([0, 0, 2]), np.array([30, 41, 33]), np.full(len(ROWS), -1)
    own = inquiry.own_readings(team, batch, np.arange(len(ROWS)))
    found = inquiry.readings(team, batch, nobody, anchor, record, own)
    reader, text = team.params["ranker"]["reader"], np.array(batch.text)[anchor]
    theirs = inquiry.relevances(reader, team.agents, asked.written[anchor], desk.asks[record])
    itself = inquiry.relevances(reader, team.agents, asked.written[anchor], asked.source[anchor])
    together = base.likelihood(team.params["base"], team.agents.base, (text, desk.texts[record]))
    np.testing.assert_allclose(found, np.clip(theirs - itself + together, -3, 3), atol=1e-4)


def test_a_reason_is_worth_how_well_it_tells_its_record_less_its_price(
    team: inquiry.Staff, asked: inquiry.Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words that the other record does not say count for nothing, nor does saying a word again."""
    desk, anchors = team.desk, desks.standing(team.desk, ROWS)
    batch, _ = prepare.answers(team, supervision.init(desk.problem, 0), anchors, asked, inquiry.unsplit(team, asked))
    record = np.asarray(batch.candidates.record)[:, 0, 0]
    theirs = [desk.tokenizer.decode(desk.texts[r]) for r in record]
    common = [
        " ".join(
            word for word in dict.fromkeys(telling.plain(text)) if word in telling.plain(desk.tokenizer.decode(own))
        )
        for text, own in zip(theirs, batch.text, strict=True)
    ]
    words = [f"{text} zebra {text}" for text in common]
    words[1], words[2] = "zebra", ""
    said = tokens.pad(desk.tokenizer.encode_lists(words), 80)
    lists = zip(common, desk.problem.table[ROWS].tolist(), strict=True)
    best = np.stack([retrieval.search(desk.lexical, [text], table, inquiry.DEPTH)[0][0] for text, table in lists])
    rank = np.where(best == record[:, None], 1 / (1 + np.arange(inquiry.DEPTH)), 0).sum(axis=1)
    rank[[1, 2]] = 0

    def given(*args: object) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(ROWS), 1), np.int32), said

    monkeypatch.setattr(inquiry, "reasons", given)
    found, tells = prepare.give_reasons(team, batch, np.zeros(len(ROWS), int), jax.random.key(0))
    assert rank.any()
    np.testing.assert_allclose(found.reason_value, rank - prepare.REASON_COST * (said > 0).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(tells, rank, rtol=1e-6)


def test_the_reward_model_reads_no_record_that_is_to_stay_unseen(
    team: inquiry.Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, hidden, read = team.desk, desks.unseen(team.desk, team.config), []
    monkeypatch.setattr(desks.play, "respond", lambda _, ours, theirs, relation: read.extend([*ours, *theirs]))
    desks._pairs_to_read(desk, np.random.default_rng(0), 200, hidden)
    texts = [{row.tobytes() for row in desk.texts[which]} for which in (hidden, ~hidden)]
    assert texts[0] - texts[1]
    assert {row.tobytes() for row in read} <= texts[1]


def test_anchors_prepared_in_parts_are_what_they_are_together(team: inquiry.Staff) -> None:
    """So that each of several processes may prepare a part; some are planted, and words are drawn."""
    believed, count = supervision.init(team.desk.problem, 0), 6
    run = dataclasses.replace(team.config.train, replicas=1, merge_every=1, anchors_per_step=count, planted=0.5)
    config = dataclasses.replace(team.config, train=run)
    anchors = desks.choose(team.desk, config, believed, np.random.default_rng(1), 0)
    assert 0 < anchors.planted.sum() < count
    keys = jax.random.split(jax.random.key(2), count)
    first, last = np.arange(2), np.arange(2, count)
    whole, *parts = (
        prepare.prepare(team, believed, anchors.take(part), keys[part]) for part in (np.arange(count), first, last)
    )
    again = prepare.prepare(team, believed, anchors, jax.random.split(jax.random.key(3), count))
    chex.assert_trees_all_close(whole, jax.tree.map(lambda *x: np.concatenate(x), *parts), rtol=1e-4, atol=1e-5)
    assert (again[0].written != whole[0].written).any()


def test_no_lesson_is_made_of_what_is_to_stay_unseen(team: inquiry.Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    answers: list[int] = []
    for name in ("denoise", "ask", "rewrite", "explain"):
        write = getattr(desks.tasks, name)

        def listen(rng, setting, records, *args, write=write, **others):
            drawn.extend(records)
            known = [given for given in args if isinstance(given, np.ndarray)]
            answers.extend(int(record) for partners in known for record in partners[partners >= 0])
            return write(rng, setting, records, *args, **others)

        monkeypatch.setattr(desks.tasks, name, listen)
    desks.lessons(team.desk, team.config, 1, 8, 8)
    desks.reasons(team.desk, team.config, team.agents.actor)
    unseen = desks.unseen(team.desk, team.config)
    assert 0 < unseen.sum() < 0.3 * len(unseen)
    assert not unseen[drawn].any()
    assert len(set(answers)) > 20
    assert not unseen[answers].any()
    assert len(set(drawn)) > 20


def test_hidden_partners_are_no_candidates_and_what_lies_near_is(team: inquiry.Staff, asked: inquiry.Asked) -> None:
    """Of what is found the hidden is taken away, in all rows; the embeddings bring what nothing else does."""
    anchors, split = desks.standing(team.desk, ROWS), inquiry.unsplit(team, asked)
    open_ = prepare.search(team, anchors, asked, split)
    hidden = open_[:, 0, :2]
    assert (hidden >= 0).all()
    found = prepare.search(team, dataclasses.replace(anchors, hidden=hidden), asked, split)
    for kept, before, gone in zip(found, open_, hidden, strict=True):
        assert not set(gone.tolist()) & set(kept.ravel().tolist())
        assert set(before[0].tolist()) - set(gone.tolist()) - {-1} <= set(kept.ravel().tolist())
    nothing = dataclasses.replace(asked, found=np.full_like(asked.found, -1))
    bare = dataclasses.replace(
        team.desk, problem=dataclasses.replace(team.desk.problem, record=np.full_like(team.desk.problem.record, -1))
    )
    alone = prepare.search(dataclasses.replace(team, desk=bare), anchors, nothing, split)
    width = alone.shape[2]
    np.testing.assert_array_equal(alone[:, 0], asked.similar[:, :width])


def test_what_the_first_row_has_no_room_for_is_a_candidate_where_a_subquery_finds_it(
    team: inquiry.Staff, asked: inquiry.Asked
) -> None:
    anchors, split, room = desks.standing(team.desk, ROWS), inquiry.unsplit(team, asked), team.config.train.candidates
    roomy = dataclasses.replace(
        team, config=dataclasses.replace(team.config, train=dataclasses.replace(team.config.train, candidates=2 * room))
    )
    more = prepare.search(roomy, anchors, asked, split)[:, 0, room:]
    assert (more >= 0).any()
    found = np.full_like(split.found, -1)
    found[:, 0, :room] = more
    record = prepare.search(team, anchors, asked, dataclasses.replace(split, found=found))
    np.testing.assert_array_equal(record[:, 1], more)
