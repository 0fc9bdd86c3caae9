"""The host's half of a round: what was asked is compared, read and believed; then arrays for the jitted half."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import inquiry, learner_state, outcomes, play, processes, supervision
from aco_jax.data import descriptions, evidence, listing, retrieval, tasks
from aco_jax.desk import ANCHORS, KEYS, Anchors, Desk, choose, unseen
from aco_jax.ops import rowwise
from aco_jax.settings import TrainConfig
from aco_jax.types import UNKNOWN, UNRELATED, Belief, Candidates, Params

READ = 2  # candidates of an anchor that are read before it is played
REASON_COST = 0.02  # of each token of a reason, where finding its record first is worth 1


def round_material(
    desk: Desk,
    config: TrainConfig,
    agents: learner_state.Config,
    params: dict[str, Params],
    believed: supervision.State,
    number: int,
    lists: np.ndarray | None = None,
    before: int = 0,
    by_parts: bool = False,
) -> tuple[play.Batch, dict[str, float]]:
    """Everything a round plays, leaves [R, merge_every, ..], and what the host measured of it.

    Args:
        number: of the round, from 0.
        lists: those that may be played; all of them by default.
        before: rounds that were played before, on these tables or others: no draw comes twice.
        by_parts: whether all processes call this, each prepares a part of the anchors, and all have the whole.
    """
    run, seed = config.train, before + number
    shape = (run.replicas, run.merge_every, run.anchors_per_step)
    rng = np.random.default_rng([config.seed, ANCHORS, seed])
    anchors = choose(desk, config, believed, rng, number, lists)
    count = len(anchors.row)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), KEYS + seed), count)
    team = inquiry.staff(desk, config, agents, params, anchors.row, by_parts)

    def prepared(part: np.ndarray) -> tuple[play.Batch, outcomes.Noted]:
        return prepare(team, believed, anchors.take(part), keys[part])

    batch, noted = processes.by_parts(prepared, count, by_parts)
    batch = dataclasses.replace(batch, query=seed * count + np.arange(count, dtype=np.int32))
    metrics = outcomes.measured(batch, noted, unseen(desk, config)[desk.problem.anchor[anchors.row]])
    return jax.tree.map(lambda x: np.asarray(x).reshape(*shape, *x.shape[1:]), batch), metrics


def next_planted(
    desk: Desk,
    config: TrainConfig,
    agents: learner_state.Config,
    params: dict[str, Params],
    believed: supervision.State,
    number: int,
) -> play.Batch:
    """A round that nothing was learned from, of planted anchors only, whose answers are known: leaves [n, ..]."""
    only = dataclasses.replace(config, train=dataclasses.replace(config.train, planted=1.0))
    material, _ = round_material(desk, only, agents, params, believed, number)
    # Not -1: an axis may be empty.
    return jax.tree.map(lambda x: jnp.asarray(x.reshape(math.prod(x.shape[:3]), *x.shape[3:])), material)


def prepare(
    team: inquiry.Staff, believed: supervision.State, anchors: Anchors, keys: jax.Array
) -> tuple[play.Batch, outcomes.Noted]:
    """Asks about anchors, looks at the answers, reads the best of them, and gives reasons: leaves [n, ..].

    Args:
        keys: [n], for nothing that is drawn depends on which anchors are prepared together.
    """
    desk, (asking, splitting, explaining) = team.desk, rowwise.split(keys, 3).T
    asked = inquiry.ask(team, anchors, asking)
    split = inquiry.split(team, anchors, asked, splitting)
    batch, score = answers(team, believed, anchors, asked, split)
    raw = outcomes.own_words(team, anchors, asked)
    batch = dataclasses.replace(batch, lost=outcomes.lost(anchors, asked, raw))
    record = batch.candidates.record
    company = supervision.company(desk.problem, believed, anchors.row)
    anchor, row, slot = _worth_reading(record, score)
    reading = np.zeros(record.shape, np.float32)
    own = inquiry.own_readings(team, batch, np.arange(len(record)))
    reading[anchor, row, slot] = inquiry.readings(team, batch, company, anchor, record[anchor, row, slot], own)
    batch = dataclasses.replace(batch, candidates=dataclasses.replace(batch.candidates, reading=reading))
    place = np.argmax(np.where(record[:, 0] >= 0, score[:, 0], -1.0), axis=1)
    batch, tells = give_reasons(team, batch, place, explaining)
    read = np.zeros(record.shape, bool)
    read[anchor, row, slot] = True
    outside, hits = outcomes.outside(desk, asked, batch.searched), outcomes.hits(anchors, asked, split, record, raw)
    return batch, outcomes.Noted(read, outside, anchors.planted & (anchors.truth[:, 0] >= 0), tells, hits)


def answers(
    team: inquiry.Staff,
    believed: supervision.State,
    anchors: Anchors,
    asked: inquiry.Asked,
    split: inquiry.Split,
) -> tuple[play.Batch, np.ndarray]:
    """The answers to what was asked about n anchors, nothing read yet and no reasons given.

    Returns the batch, and the candidates' plain scores [n, M + 1, K].
    """
    desk, problem, query = team.desk, team.desk.problem, asked.query
    owner, searched = problem.anchor[anchors.row], problem.table[anchors.row]
    record = search(team, anchors, asked, split)
    candidates, reverse, score = look(desk, anchors, record)
    kind = problem.kind[anchors.row]
    known = (anchors.truth >= 0).any(axis=1)
    missing = anchors.planted & known & ~outcomes.among(record, anchors.truth).any(axis=(1, 2))
    count, more = len(owner), team.agents.environment.bins.relations - 1
    batch = play.Batch(
        anchor=owner,
        text=tasks.encode(desk.setting, anchors.rows, owner, desk.texts.shape[1]),
        query=np.zeros(count, np.int32),
        ask_source=asked.source,
        written=asked.written,
        searched=searched,
        rewrite_source=split.source,
        subquery=split.subquery,
        merits=split.merits,
        candidates=candidates,
        belief=believe(anchors, record),
        fold=np.where(anchors.planted, -1, np.asarray(believed.fold)[anchors.row]).astype(np.int32),
        missed=np.pad(missing[:, None].astype(np.float32), ((0, 0), (0, more))),
        reverse=reverse,
        shares=np.stack([np.asarray(believed.prior)[kind], np.asarray(believed.several)[kind]], axis=1),
        lost=outcomes.silent(asked).astype(np.float32),
        least_relevance=query.least_relevance,
        reason_source=np.zeros((count, 1), np.int32),
        reason=np.zeros((count, 1), np.int32),
        reason_value=np.zeros(count, np.float32),
    )
    return batch, score


def search(team: inquiry.Staff, anchors: Anchors, asked: inquiry.Asked, split: inquiry.Split) -> np.ndarray:
    """Candidates of the query and of each subquery: [n, M + 1, K], -1 where empty, none twice.

    Row 0 fuses what the query finds with what is near the anchor, by the base's embedding and, twice, by what resembles
    it as a whole; further rows are the subqueries' own.
    """
    problem = team.desk.problem
    searched, planted = problem.table[anchors.row], anchors.planted[:, None]
    standing = problem.record[anchors.row][:, : team.depth]
    whole = np.where(planted, _resembling(team.desk, anchors, searched, standing.shape[1]), standing)
    first = retrieval.fuse([asked.found, asked.similar, whole, whole], team.depth)[0]
    record = np.concatenate([first[:, None], split.found], axis=1)
    record[outcomes.among(record, anchors.hidden)] = -1
    return _first_only(record[:, :, : team.config.train.candidates])


def look(desk: Desk, anchors: Anchors, record: np.ndarray) -> tuple[Candidates, np.ndarray, np.ndarray]:
    """Evidence of candidates [n, M + 1, K], their reverse support and their plain score, [n, M + 1, K] each."""
    problem, flat = desk.problem, record.reshape(len(record), -1)
    described = descriptions.describe(desk.index, _tables_of(desk, anchors.row), anchors.rows)
    seen, validity, score = listing.observe_new(problem, desk.index, described, flat, anchors.row, ~anchors.planted)
    reverse = seen[..., evidence.NAMES.index("reverse margin")]
    shape = record.shape
    lengths = (desk.asks > 0).sum(axis=1)[np.maximum(record, 0)]
    candidates = Candidates(
        record=record.astype(np.int32),
        evidence=seen.reshape(*shape, -1),
        validity=validity.reshape(shape),
        reading=np.zeros(shape, np.float32),
        tokens=np.where(record >= 0, lengths, 0).astype(np.int32),
    )
    return candidates, reverse.reshape(shape), score.reshape(shape)


def believe(anchors: Anchors, record: np.ndarray, relation: int = 1) -> Belief:
    """What is believed of candidates [n, M + 1, K]: the known partners are `relation`, the others unrelated.

    Of those that it is unsure of nothing is.
    """
    stated = np.where(outcomes.among(record, anchors.truth), relation, UNRELATED)
    held = (record >= 0) & ~outcomes.among(record, anchors.unsure)
    return Belief(
        relation=np.where(held, stated, UNKNOWN).astype(np.int32),
        weight=anchors.weight,
        planted=anchors.planted,
    )


def give_reasons(
    team: inquiry.Staff, batch: play.Batch, place: np.ndarray, key: jax.Array
) -> tuple[play.Batch, np.ndarray]:
    """The batch with a sampled reason for stating relation 1 of candidate `place` [n] of row 0, and what it is worth.

    A reason is worth what it tells: the reciprocal rank of the candidate where its table is searched by the reason's
    words alone, less REASON_COST a token. Beside the batch stand these ranks' reciprocals [n], nan where nothing is
    stated. `key` is [] or [n].

    The reward model is not asked: it learned that a response with words at its end is worse, and learning by what it
    said of reasons emptied all of them.
    """
    desk, params = team.desk, team.params
    stated = batch.candidates.record[np.arange(len(place)), 0, place]
    theirs = desk.texts[np.maximum(stated, 0)]
    source, reason = inquiry.reasons(team.agents, params["actor"], batch.text, theirs, key, 1.0)
    there = stated >= 0
    said = inquiry.in_words(desk, reason, batch.text, theirs)
    tells = outcomes.reciprocal_rank(inquiry.found_by(desk, said, batch.searched, inquiry.DEPTH), stated)
    value = np.where(there, tells - REASON_COST * (reason > 0).sum(axis=1), 0.0).astype(np.float32)
    batch = dataclasses.replace(batch, reason_source=source, reason=reason, reason_value=value)
    return batch, np.where(there, tells, np.nan).astype(np.float32)


def _tables_of(desk: Desk, lists: np.ndarray) -> np.ndarray:
    """The table that the anchor of each list stands in, whose columns its words have."""
    return desk.dataset.table_of[desk.problem.anchor[lists]].astype(np.int32)


def _resembling(desk: Desk, anchors: Anchors, searched: np.ndarray, k: int) -> np.ndarray:
    """TF-IDF neighbours of planted rows, [n, k]; of other rows nothing."""
    found = np.full((len(searched), k), -1, np.int32)
    new = np.flatnonzero(anchors.planted)
    if len(new) == 0:
        return found
    words = [anchors.rows[int(i)] for i in new]
    described = descriptions.describe(desk.index, _tables_of(desk, anchors.row[new]), words)
    found[new] = listing.neighbours(desk.dataset, desk.index, described, searched[new], k)
    return found


def _first_only(record: np.ndarray) -> np.ndarray:
    """Empties every slot whose record stands in an earlier slot of the same anchor."""
    flat = record.reshape(len(record), -1)
    same = (flat[:, :, None] == flat[:, None, :]) & np.tri(flat.shape[1], k=-1, dtype=bool)
    return np.where(same.any(axis=2), -1, flat).reshape(record.shape)


def _worth_reading(record: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The READ candidates of each anchor with the best plain scores, as indices of [n, M + 1, K].

    To the others a reading says 0: reading all of them takes longer than the rest of a round.
    """
    flat = np.where(record >= 0, score, -np.inf).reshape(len(record), -1)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :READ]
    anchor, place = np.nonzero(np.isfinite(np.take_along_axis(flat, best, axis=1)))
    row, slot = np.divmod(best[anchor, place], record.shape[2])
    return anchor, row, slot
