"""The host's half of a round: ask, rewrite, search, compare, read; then arrays for the jitted half."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax import learner, play, supervision
from aco_jax.agents import actor, base, ranker, reward, rewriter
from aco_jax.data import evidence, retrieval, tasks
from aco_jax.desk import ANCHORS, KEYS, Anchors, Desk, choose
from aco_jax.models import quantization
from aco_jax.settings import TrainConfig
from aco_jax.types import UNKNOWN, UNRELATED, Belief, Candidates, Params, Query

CHUNK = 256  # rows that a model reads at once on the host's behalf
READING_SHIFT, READING_CLIP = 1.0, 3.0  # nats a token


def round_material(
    desk: Desk,
    config: TrainConfig,
    agents: learner.Config,
    params: dict[str, Params],
    believed: supervision.State,
    number: int,
    lists: np.ndarray | None = None,
    before: int = 0,
) -> tuple[play.Batch, dict[str, float]]:
    """Everything a round plays, leaves [R, merge_every, ..], and what the host measured of it.

    Args:
        number: of the round, from 0.
        lists: those that may be played; all of them by default.
        before: rounds that were played before, on these tables or others: no draw comes twice.
    """
    run, seed = config.train, before + number
    shape = (run.replicas, run.merge_every, run.anchors_per_step)
    rng = np.random.default_rng([config.seed, ANCHORS, seed])
    anchors = choose(desk, config, believed, rng, number, lists)
    key = jax.random.fold_in(jax.random.key(config.seed), KEYS + seed)
    batch, metrics = prepare(desk, config, agents, params, believed, anchors, key)
    first = seed * len(anchors.row)
    batch = dataclasses.replace(batch, query=np.arange(first, first + len(anchors.row), dtype=np.int32))
    return jax.tree.map(lambda x: np.asarray(x).reshape(*shape, *x.shape[1:]), batch), metrics


def prepare(
    desk: Desk,
    config: TrainConfig,
    agents: learner.Config,
    params: dict[str, Params],
    believed: supervision.State,
    anchors: Anchors,
    key: jax.Array,
) -> tuple[play.Batch, dict[str, float]]:
    """Asks about anchors, looks at the answers, reads all of them, and gives reasons: leaves [n, ..]."""
    keys = jax.random.split(key)
    asked = ask(desk, config, agents, params, anchors, keys[0])
    split = subqueries(desk, config, agents, params, anchors, asked, keys[1])
    batch, found, score = answers(desk, config, believed, anchors, asked, split)
    record = batch.candidates.record
    anchor, row, slot = np.nonzero(record >= 0)
    reader = params["ranker"]["reader"]
    reading = np.zeros(record.shape, np.float32)
    reading[anchor, row, slot] = readings(desk, agents, reader, batch, anchor, record[anchor, row, slot])
    batch = dataclasses.replace(batch, candidates=dataclasses.replace(batch.candidates, reading=reading))
    place = np.argmax(np.where(record[:, 0] >= 0, score[:, 0], -1.0), axis=1)
    batch = give_reasons(desk, agents, params, anchors, batch, place, jax.random.fold_in(key, 2))
    relation = batch.belief.relation
    metrics = {
        "base/query_outside": float(_outside(desk, batch, found).mean()),
        "base/query_recall": _recall(anchors, found[:, 0]),
        "rewriter/recall": _recall(anchors, found[:, 1:].reshape(len(record), -1)),
        "data/recall": _recall(anchors, record.reshape(len(record), -1)),
        "ranker/reading_gap": _gap(reading[relation > UNRELATED], reading[relation == UNRELATED]),
        "tokens/asked": float((batch.ask_source > 0).sum() + (batch.written > 0).sum()),
        "tokens/rewritten": float((batch.subquery > 0).sum()),
        "tokens/read": float(batch.candidates.tokens.sum()),
    }
    return batch, metrics


@struct.dataclass
class Asked:
    """What the base asked about n anchors."""

    source: np.ndarray  # [n, S] int32
    written: np.ndarray  # [n, T] int32, guardrails and query
    query: Query  # leaves [n, ..]


@struct.dataclass
class Split:
    """What the rewriter made of n queries; nothing but 0 where it was not asked to."""

    source: np.ndarray  # [n, M, S] int32
    subquery: np.ndarray  # [n, M, T] int32


def ask(
    desk: Desk,
    config: TrainConfig,
    agents: learner.Config,
    params: dict[str, Params],
    anchors: Anchors,
    key: jax.Array,
) -> Asked:
    """One query an anchor, for the relation sought and the table of its list."""
    owner, searched = desk.problem.anchor[anchors.row], desk.problem.table[anchors.row]
    source = tasks.ask_sources(desk.setting, anchors.rows, owner, np.ones(len(owner), np.int32))
    asked = base.generate_queries(params["base"], agents.base, source, key, config.train.temperature, searched)
    query, written = jax.tree.map(np.asarray, asked)
    return Asked(source, written, query)


def answers(
    desk: Desk, config: TrainConfig, believed: supervision.State, anchors: Anchors, asked: Asked, split: Split
) -> tuple[play.Batch, np.ndarray, np.ndarray]:
    """The answers to what was asked about n anchors, nothing read yet and no reasons given.

    Returns the batch, what each text found by itself [n, M + 1, 10], and the candidates' plain scores [n, M + 1, K].
    """
    problem, query = desk.problem, asked.query
    owner, searched = problem.anchor[anchors.row], problem.table[anchors.row]
    record, found = search(desk, config, anchors, query, split.subquery)
    candidates, reverse, score = look(desk, anchors, record)
    kind = problem.kind[anchors.row]
    missing = anchors.planted & (anchors.truth >= 0) & ~(record == anchors.truth[:, None, None]).any(axis=(1, 2))
    count, more = len(owner), len(desk.dataset.relations) - 1
    batch = play.Batch(
        anchor=owner,
        text=tasks.encode(desk.setting, anchors.rows, owner, config.model.text_length),
        query=np.zeros(count, np.int32),
        ask_source=asked.source,
        written=asked.written,
        searched=searched,
        rewrite_source=split.source,
        subquery=split.subquery,
        candidates=candidates,
        belief=believe(anchors, record),
        fold=np.where(anchors.planted, -1, np.asarray(believed.fold)[anchors.row]).astype(np.int32),
        missed=np.pad(missing[:, None].astype(np.float32), ((0, 0), (0, more))),
        reverse=reverse,
        shares=np.stack([np.asarray(believed.prior)[kind], np.asarray(believed.several)[kind]], axis=1),
        silent=(~_inside(query, found[:, 0]).any(axis=1)).astype(np.float32),
        least_relevance=query.least_relevance,
        reason_source=np.zeros((count, 1), np.int32),
        reason=np.zeros((count, 1), np.int32),
        reason_value=np.zeros(count, np.float32),
    )
    return batch, found, score


def subqueries(
    desk: Desk,
    config: TrainConfig,
    agents: learner.Config,
    params: dict[str, Params],
    anchors: Anchors,
    asked: Asked,
    key: jax.Array,
) -> Split:
    """What the rewriter, its weights in int8, makes of the queries."""
    owner = desk.problem.anchor[anchors.row]
    source = tasks.rewrite_sources(desk.setting, anchors.rows, owner, asked.query.tokens)
    small = quantization.quantize(params["rewriter"])
    found = rewriter.rewrite(small, agents.rewriter, source, key, config.train.temperature)
    return Split(np.repeat(source[:, None], config.train.rewrites, axis=1), np.asarray(found.tokens))


def unsplit(config: TrainConfig, agents: learner.Config, asked: Asked) -> Split:
    """The queries as they are: no subquery was made yet."""
    shape = len(asked.source), config.train.rewrites
    lengths = agents.rewriter.source_length, agents.rewriter.length
    return Split(*(np.zeros((*shape, length), np.int32) for length in lengths))


def search(
    desk: Desk, config: TrainConfig, anchors: Anchors, query: Query, subquery: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of the query and of each subquery.

    Row 0 fuses what the query finds with what resembles the anchor as a whole; further rows are the subqueries' own.

    Returns:
        record [n, M + 1, K], -1 where empty, each record in the first row that found it only; and what each text
        found by itself, [n, M + 1, 10].
    """
    problem, depth = desk.problem, max(config.train.candidates, 10)
    searched = problem.table[anchors.row]
    words = [query.tokens, *np.swapaxes(subquery, 0, 1)]
    found = np.stack([_lexical(desk, tokens_of, searched, depth) for tokens_of in words], axis=1)
    whole = np.where(
        anchors.planted[:, None], _resembling(desk, anchors, searched, depth), problem.record[anchors.row][:, :depth]
    )
    rows = [found[:, m] for m in range(found.shape[1])]
    rows[0] = retrieval.fuse([rows[0], whole, whole], depth)[0]
    record = np.stack(rows, axis=1)
    record[record == anchors.hidden[:, None, None]] = -1
    return _first_only(record)[:, :, : config.train.candidates], found[:, :, :10]


def look(desk: Desk, anchors: Anchors, record: np.ndarray) -> tuple[Candidates, np.ndarray, np.ndarray]:
    """Evidence of candidates [n, M + 1, K], their reverse support and their plain score, [n, M + 1, K] each."""
    problem, flat = desk.problem, record.reshape(len(record), -1)
    described = evidence.describe(desk.index, _tables_of(desk, anchors), anchors.rows)
    seen, validity, score = supervision.observe_new(problem, desk.index, described, flat, anchors.row, ~anchors.planted)
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


def readings(
    desk: Desk, agents: learner.Config, reader: Params, batch: play.Batch, anchor: np.ndarray, record: np.ndarray
) -> np.ndarray:
    """The ranker's readings, its weights in int8, of pairs (anchor number in the batch, record), [n] each.

    A reading is how much likelier the anchor's query is given the record than given the anchor itself, in nats a
    token, moved so that a partner stands above 0, and clipped.
    """
    asked, number = np.unique(anchor, return_inverse=True)
    own = relevances(reader, agents, batch.written[asked], batch.ask_source[asked])[number]
    theirs = relevances(reader, agents, batch.written[anchor], desk.asks[record])
    return np.clip(theirs - own + READING_SHIFT, -READING_CLIP, READING_CLIP)


def relevances(reader: Params, agents: learner.Config, queries: np.ndarray, records: np.ndarray) -> np.ndarray:
    """`ranker.read` of n pairs, CHUNK at a time, padded so that nothing is compiled twice."""
    small = quantization.quantize(reader)
    run = partial(_read_chunk, small, config=agents.ranker)
    found = []
    for start in range(0, len(queries), CHUNK):
        part = [x[start : start + CHUNK] for x in (queries, records)]
        short = CHUNK - len(part[0])
        padded = [np.pad(x, ((0, short), (0, 0))) for x in part]
        found.append(np.asarray(run(*padded))[: CHUNK - short])
    return np.concatenate([np.zeros(0, np.float32), *found])


def believe(anchors: Anchors, record: np.ndarray, relation: int = 1) -> Belief:
    """What is believed of candidates [n, M + 1, K]: the known partner is `relation`, all others unrelated."""
    partner = (record == anchors.truth[:, None, None]) & (record >= 0)
    stated = np.where(partner, relation, UNRELATED)
    return Belief(
        relation=np.where(record >= 0, stated, UNKNOWN).astype(np.int32),
        weight=anchors.weight,
        planted=anchors.planted,
    )


def give_reasons(
    desk: Desk,
    agents: learner.Config,
    params: dict[str, Params],
    anchors: Anchors,
    batch: play.Batch,
    place: np.ndarray,
    key: jax.Array,
) -> play.Batch:
    """The batch with a sampled reason for stating relation 1 of candidate `place` [n] of row 0, and its worth."""
    record = batch.candidates.record
    ours = tasks.encode(desk.setting, anchors.rows, desk.problem.anchor[anchors.row].tolist(), desk.texts.shape[1])
    theirs = desk.texts[np.maximum(record[np.arange(len(place)), 0, place], 0)]
    source, reason = reasons(agents, params["actor"], ours, theirs, key, 1.0)
    value = _worth(params["reward"], agents, ours, theirs, reason)
    return dataclasses.replace(
        batch, reason_source=np.asarray(source), reason=np.asarray(reason), reason_value=np.asarray(value)
    )


def reasons(
    agents: learner.Config, params: Params, ours: np.ndarray, theirs: np.ndarray, key: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The actor's reasons for stating relation 1 of n pairs of texts [n, T]: what it read, and its tokens."""
    first = jnp.zeros(len(ours), jnp.int32)
    source = actor.reason_source(agents.actor, first, jnp.asarray(ours), jnp.asarray(theirs))
    return source, actor.give_reason(params, agents.actor, source, key, temperature)[0]


@partial(jax.jit, static_argnames="config")
def _read_chunk(reader: Params, queries: jax.Array, records: jax.Array, config: ranker.Config) -> jax.Array:
    return ranker.read(quantization.dequantize(reader), config, queries, records)


@partial(jax.jit, static_argnames="agents")
def _worth(params: Params, agents: learner.Config, ours: jax.Array, theirs: jax.Array, reason: jax.Array) -> jax.Array:
    """Reward of the response with the reason less that without, [n]."""
    special, length = agents.base.special, agents.actor.reason_length
    both = [play.respond(special, ours, theirs, 1, given, length) for given in (reason, None)]
    value = reward.text_value(params, agents.reward, jnp.concatenate(both))
    return value[: len(ours)] - value[len(ours) :]


def _tables_of(desk: Desk, anchors: Anchors) -> np.ndarray:
    """The table whose columns a row has: a planted copy keeps those of the record it was made of."""
    own = desk.dataset.table_of[desk.problem.anchor[anchors.row]]
    return np.where(anchors.planted, desk.problem.table[anchors.row], own).astype(np.int32)


def _lexical(desk: Desk, words: np.ndarray, searched: np.ndarray, k: int) -> np.ndarray:
    """What texts [n, T] find by their words, [n, k]; an empty text finds nothing."""
    texts = [desk.tokenizer.decode(row) for row in words]
    found = np.full((len(words), k), -1, np.int32)
    for table in np.unique(searched):
        mine = np.flatnonzero((searched == table) & words.any(axis=1))
        if len(mine) == 0:
            continue
        found[mine] = retrieval.search(desk.lexical, [texts[i] for i in mine], int(table), k)[0]
    return found


def _resembling(desk: Desk, anchors: Anchors, searched: np.ndarray, k: int) -> np.ndarray:
    """TF-IDF neighbours of planted rows, [n, k]; of other rows nothing."""
    found = np.full((len(searched), k), -1, np.int32)
    copies = np.flatnonzero(anchors.planted)
    if len(copies) == 0:
        return found
    described = evidence.describe(desk.index, _tables_of(desk, anchors)[copies], [anchors.rows[int(i)] for i in copies])
    found[copies] = supervision.neighbours(desk.dataset, desk.index, described, searched[copies], k)
    return found


def _first_only(record: np.ndarray) -> np.ndarray:
    """Empties every slot whose record stands in an earlier slot of the same anchor."""
    flat = record.reshape(len(record), -1)
    same = (flat[:, :, None] == flat[:, None, :]) & np.tri(flat.shape[1], k=-1, dtype=bool)
    return np.where(same.any(axis=2), -1, flat).reshape(record.shape)


def _inside(query: Query | play.Batch, found: np.ndarray) -> np.ndarray:
    """Which answers [n, k] rank high enough for the guardrail: relevance falls linearly with the rank."""
    relevance = 1 - np.arange(found.shape[1]) / found.shape[1]
    return (found >= 0) & (relevance[None] >= query.least_relevance[:, None])


def _outside(desk: Desk, batch: play.Batch, found: np.ndarray) -> np.ndarray:
    """Whether the best answer of a query lies outside its guardrails, [n]."""
    table = desk.dataset.table_of[np.maximum(found[:, 0, 0], 0)]
    return ~_inside(batch, found[:, 0])[:, 0] | (table != batch.searched)


def _recall(anchors: Anchors, found: np.ndarray) -> float:
    """Share of planted answers among what was found."""
    asked = anchors.planted & (anchors.truth >= 0)
    return float((found[asked] == anchors.truth[asked][:, None]).any(axis=1).mean()) if asked.any() else 0.0


def _gap(ours: np.ndarray, others: np.ndarray) -> float:
    """Mean reading of believed partners less that of the others, nats a token."""
    return float(ours.mean() - others.mean()) if len(ours) and len(others) else 0.0
