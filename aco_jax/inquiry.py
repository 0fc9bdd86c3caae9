"""What the language models do on the host's behalf: ask, split, find, read, and give reasons.

    anchor -> base -> query -> rewriter, int8 -> subqueries -> ranker's order -> what each finds
    anchor -> base's encoder -> what lies nearest

Queries and subqueries are searched for beside the anchor's own words.

All arrays go through in chunks of one size, so that nothing is compiled twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax import learner_state, play, processes
from aco_jax.agents import actor, base, ranker, rewriter
from aco_jax.data import retrieval, tasks, telling
from aco_jax.desk import Anchors, Desk
from aco_jax.models import quantization, transformer
from aco_jax.ops import rowwise
from aco_jax.settings import TrainConfig
from aco_jax.types import Params, Query

CHUNK, FEW = 256, 16  # rows that a model reads at once; that a large one does
LARGE = 50_000_000  # weights in the layers of a large model
DEPTH = 10  # least answers of a text that are looked at
POOL = 8192  # records up to which all are embedded
GROUPS = 64  # groups of records whose likelihood is computed at once
CLIP = 3.0  # nats a token


@dataclass(frozen=True)
class Staff:
    """The agents as they are now, and the desk they work at."""

    desk: Desk
    config: TrainConfig
    agents: learner_state.Config
    params: dict[str, Params]
    pool: np.ndarray  # [n] int32 records, ascending: those that are looked at by what they mean
    vectors: np.ndarray  # [n, D] float32, the base's embeddings of them

    @property
    def depth(self) -> int:
        """Answers of a text."""
        return max(self.config.train.candidates, DEPTH)


@struct.dataclass
class Asked:
    """What the base asked about n anchors, and what was found at once."""

    source: np.ndarray  # [n, S] int32
    written: np.ndarray  # [n, T] int32, guardrails and query
    query: Query  # leaves [n, ..]
    found: np.ndarray  # [n, depth] int32 records found by the anchor's words and the query's, -1 where there are fewer
    similar: np.ndarray  # [n, depth] int32 records whose embedding is nearest to the anchor's


@struct.dataclass
class Split:
    """What the rewriter made of n queries, best first; nothing but 0 where it was not asked to."""

    source: np.ndarray  # [n, M, S] int32
    subquery: np.ndarray  # [n, M, T] int32
    merits: np.ndarray  # [n, M, 3] float32, relevance, validity and gain of each
    found: np.ndarray  # [n, M, depth] int32 records found by the anchor's words and the subquery's, -1 where fewer


def staff(
    desk: Desk,
    config: TrainConfig,
    agents: learner_state.Config,
    params: dict[str, Params],
    rows: np.ndarray,
    by_parts: bool = False,
) -> Staff:
    """The agents with these parameters, to be asked about lists `rows`.

    Of large tables not all records are embedded, for that would take longer than the rest of a round: those that
    resemble the anchors by their words are, and POOL others.

    Args:
        by_parts: whether all processes call this, each embeds a part of the records, and all have the whole.
    """
    pool = np.arange(desk.dataset.size)
    if len(pool) > POOL:
        pool = np.union1d(desk.problem.record[rows], np.linspace(0, len(pool) - 1, POOL, dtype=int))
        pool = pool[pool >= 0]

    def embedded(part: np.ndarray) -> np.ndarray:
        return embeddings(agents, params["base"], desk.asks[pool[part]])

    return Staff(desk, config, agents, params, pool, processes.by_parts(embedded, len(pool), by_parts))


def ask(team: Staff, anchors: Anchors, key: jax.Array) -> Asked:
    """One query an anchor, for the relation sought and the table of its list, searched for with the anchor's words.

    `key` is [], or [n], one of each anchor, as in `split` and `reasons`.
    """
    desk, agents, params = team.desk, team.agents, team.params["base"]
    owner, searched = desk.problem.anchor[anchors.row], desk.problem.table[anchors.row]
    source = tasks.ask_sources(desk.setting, anchors.rows, owner, np.ones(len(owner), np.int32))
    asked = base.generate_queries(params, agents.base, source, key, team.config.train.temperature, searched)
    query, written = jax.tree.map(np.asarray, asked)
    # What the query says counts beside the anchor's own words, which find most: it stresses some and adds others.
    found = lexical(desk, source, searched, team.depth, beside=query.tokens if team.config.train.ask else None)
    return Asked(source, written, query, found, nearest(team, source, searched))


def split(team: Staff, anchors: Anchors, asked: Asked, key: jax.Array) -> Split:
    """What the rewriter, its weights in int8, makes of the queries, in the ranker's order."""
    desk, agents, train = team.desk, team.agents, team.config.train
    if not train.rewrites:
        return unsplit(team, asked)
    owner, searched = desk.problem.anchor[anchors.row], desk.problem.table[anchors.row]
    source = tasks.rewrite_sources(desk.setting, anchors.rows, owner, asked.query.tokens, train.rewrites)
    writing, ordering = rowwise.split(rowwise.keys(key, len(owner)), 2).T
    small = quantization.quantize(team.params["rewriter"], agents.rewriter.bits)
    subquery = np.asarray(rewriter.rewrite(small, agents.rewriter, source, writing, train.temperature).tokens)
    each = np.swapaxes(subquery, 0, 1)
    found = np.stack([lexical(desk, asked.source, searched, team.depth, beside=words) for words in each], axis=1)
    merit = merits(team, asked, subquery, found)
    heat = agents.ranker.temperature if train.temperature else 0.0
    ranked = ranker.rank_subqueries(team.params["ranker"], merit, ordering, heat)
    order = np.asarray(ranked)[..., None]
    return Split(*(np.take_along_axis(part, order, axis=1) for part in (source, subquery, merit, found)))


def merits(team: Staff, asked: Asked, subquery: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What the ranker goes by in ordering subqueries [n, M, T], of which `found` [n, M, depth] came: [n, M, 3].

    Relevance: how likely the query is given the subquery, nats a token, less the mean of the request. Validity: less
    what the subquery invents or loses. Gain: the share of its answers that the query did not find.
    """
    desk, count = team.desk, subquery.shape[1]
    written = np.repeat(asked.written, count, axis=0)
    texts = np.pad(subquery, ((0, 0), (0, 0), (0, desk.asks.shape[1] - subquery.shape[2])))
    read = relevances(team.params["ranker"]["reader"], team.agents, written, texts.reshape(len(written), -1))
    read = read.reshape(len(subquery), count)
    wrong = np.asarray(_penalty(subquery, asked.source, desk.facts))
    fresh = (found >= 0) & ~(found[..., None] == asked.found[:, None, None]).any(axis=-1)
    gain = fresh.sum(axis=-1) / np.maximum((found >= 0).sum(axis=-1), 1)
    return np.stack([read - read.mean(axis=1, keepdims=True), -wrong, gain], axis=-1).astype(np.float32)


def unsplit(team: Staff, asked: Asked) -> Split:
    """The queries as they are: no subquery was made yet."""
    shape = len(asked.source), team.config.train.rewrites
    lengths = team.agents.rewriter.source_length, team.agents.rewriter.length
    source, subquery = (np.zeros((*shape, length), np.int32) for length in lengths)
    nobody = np.full((*shape, team.depth), retrieval.EMPTY, np.int32)
    return Split(source, subquery, np.zeros((*shape, 3), np.float32), nobody)


def lexical(
    desk: Desk, words: np.ndarray, searched: np.ndarray, k: int, beside: np.ndarray | None = None
) -> np.ndarray:
    """What texts [n, T] find, [n, k], by their words and those of what stands `beside` them, [n, T']."""
    texts = [desk.tokenizer.decode(row) for row in words]
    if beside is not None:
        texts = [f"{text} {desk.tokenizer.decode(row)}" for text, row in zip(texts, beside, strict=True)]
    return found_by(desk, texts, searched, k)


def found_by(desk: Desk, texts: Sequence[str], searched: np.ndarray, k: int) -> np.ndarray:
    """What n texts find in the tables searched [n], [n, k], by their words."""
    found = np.full((len(texts), k), retrieval.EMPTY, np.int32)
    for table in np.unique(searched):
        mine = np.flatnonzero(searched == table)
        found[mine] = retrieval.search(desk.lexical, [texts[i] for i in mine.tolist()], int(table), k)[0]
    return found


def nearest(team: Staff, source: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """The records of the tables searched [n] whose embedding is nearest to that of row tokens [n, S], [n, depth]."""
    offsets = np.searchsorted(team.pool, team.desk.dataset.offsets).astype(np.int32)
    queries = embeddings(team.agents, team.params["base"], source)
    # A part of large tables is filled up to a multiple of POOL, so that a few more records compile nothing anew.
    missing = -len(team.pool) % POOL if len(team.pool) > POOL else 0
    vectors = jnp.asarray(np.pad(team.vectors, ((0, missing), (0, 0))))
    find = partial(retrieval.top_k, embeddings=vectors, k=team.depth, block=CHUNK)
    ranges = offsets[searched], offsets[searched + 1]
    found = chunked(lambda queries, first, end: find(queries, first=first, end=end)[0], queries, *ranges)
    return np.where(found >= 0, team.pool[found], retrieval.EMPTY).astype(np.int32)


def embeddings(agents: learner_state.Config, params: Params, tokens: np.ndarray) -> np.ndarray:
    """The base's embeddings of row tokens [n, S], [n, D]."""
    return chunked(partial(_embed, params, config=agents.base), tokens)


def own_readings(team: Staff, batch: play.Batch, anchor: np.ndarray) -> np.ndarray:
    """How likely the queries of anchors (numbers in the batch) [n] are to the reader given the anchors themselves: [n].

    What else is read of an anchor is measured by it, in nats a token.
    """
    reader = team.params["ranker"]["reader"]
    return relevances(reader, team.agents, batch.written[anchor], batch.ask_source[anchor])


def readings(
    team: Staff, batch: play.Batch, company: np.ndarray, anchor: np.ndarray, record: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """What reading says of pairs (anchor number in the batch, record) [n] each, nats a token, clipped: [n].

    It is how much likelier the anchor's query is to the ranker's reader, its weights in int8, given the record than
    given the anchor itself (below 0), and how much likelier to the base the records are together than apart (above 0
    where they belong together).

    Args:
        company: [B] a third record that is believed to go with the anchor, -1 where there is none.
        own: [B] `own_readings` of the anchors that the pairs have.
    """
    desk, agents, reader = team.desk, team.agents, team.params["ranker"]["reader"]
    theirs = relevances(reader, agents, batch.written[anchor], desk.asks[record])
    together = likelihoods(agents, team.params["base"], batch.text[anchor], desk.texts, record, company[anchor])
    return np.clip(theirs - own[anchor] + together, -CLIP, CLIP)


def likelihoods(
    agents: learner_state.Config,
    params: Params,
    anchor: np.ndarray,
    texts: np.ndarray,
    record: np.ndarray,
    third: np.ndarray,
) -> np.ndarray:
    """`base.likelihood` of anchors [n, T] with records [n] of texts [N, T] and, where third [n] >= 0, with those."""
    run = partial(_together, params, config=agents.base)
    found = np.zeros(len(record), np.float32)
    for more in (False, True):
        mine = np.flatnonzero((third >= 0) == more)
        parts = [anchor[mine], texts[record[mine]], *([texts[third[mine]]] if more else [])]
        if len(mine):
            found[mine] = chunked(run, *parts, size=GROUPS)
    return found


def relevances(reader: Params, agents: learner_state.Config, queries: np.ndarray, records: np.ndarray) -> np.ndarray:
    """`ranker.read` of n pairs, [n], the reader's weights in as few bits as it works in."""
    return read_by(quantization.quantize(reader, agents.ranker.bits), agents, queries, records)


def read_by(reader: Params, agents: learner_state.Config, queries: np.ndarray, records: np.ndarray) -> np.ndarray:
    """`ranker.read` of n pairs, [n], by a reader as it is."""
    return chunked(partial(_read, reader, config=agents.ranker), queries, records, size=at_once(agents.ranker.model))


def reasons(
    agents: learner_state.Config,
    params: Params,
    ours: np.ndarray,
    theirs: np.ndarray,
    key: jax.Array,
    temperature: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The actor's reasons for stating relation 1 of n pairs of texts [n, T]: what it read, and its tokens."""
    first = jnp.zeros(len(ours), jnp.int32)
    source = actor.reason_source(agents.actor, first, jnp.asarray(ours), jnp.asarray(theirs))
    reason, _ = actor.give_reason(params, agents.actor, source, key, temperature=temperature)
    return np.asarray(source), np.asarray(reason)


def in_words(desk: Desk, reason: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """What reasons [n, T] for pairs of texts [n, T'] say: the words that both texts say whole, each once."""
    read = [[desk.tokenizer.decode(row) for row in rows] for rows in (reason, ours, theirs)]
    return [telling.said_by_both(*each) for each in zip(*read, strict=True)]


def at_once(model: transformer.Config) -> int:
    """Rows that a model reads at once: a few of a large one, for a chunk is filled up."""
    return FEW if model.layer_weights > LARGE else CHUNK


def chunked(run: Callable[..., jax.Array], *arrays: np.ndarray, size: int = CHUNK) -> np.ndarray:
    """`run` of arrays [n, ..], `size` rows at a time; the last chunk is filled up with zeros."""
    count, found = len(arrays[0]), []
    for start in range(0, max(count, 1), size):
        parts = [x[start : start + size] for x in arrays]
        missing = size - len(parts[0])
        found.append(np.asarray(run(*(np.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) for x in parts))))
    return np.concatenate(found)[:count]


@partial(jax.jit, static_argnames="config")
def _embed(params: Params, tokens: jax.Array, config: base.Config) -> jax.Array:
    return base.embed(params, config, tokens)


@partial(jax.jit, static_argnames="config")
def _together(params: Params, *records: jax.Array, config: base.Config) -> jax.Array:
    return base.likelihood(params, config, records)


@partial(jax.jit, static_argnames="config")
def _read(reader: Params, queries: jax.Array, records: jax.Array, config: ranker.Config) -> jax.Array:
    return ranker.read(quantization.dequantize(reader), config, queries, records)


_penalty = jax.jit(rewriter.penalty)
