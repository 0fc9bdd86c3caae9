"""How well the searches and readings of a round did, where the answer is known: for rewards and for the record."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax import inquiry, play
from aco_jax.data import retrieval
from aco_jax.desk import Anchors, Desk
from aco_jax.ops import ranking
from aco_jax.types import UNRELATED, Query


@struct.dataclass
class Noted:
    """What is measured of n anchors beside their batch."""

    read: np.ndarray  # [n, M + 1, K] bool, the candidates that were read
    outside: np.ndarray  # [n] bool, whether the query's best answer lies outside its guardrails
    answered: np.ndarray  # [n] bool, whether it is known which record is the answer
    reason: np.ndarray  # [n] reciprocal rank of the candidate by the reason's words alone, nan where there is none
    hits: dict[str, np.ndarray]  # what was searched by -> [n] bool, whether it found the known answer


def measured(batch: play.Batch, noted: Noted, unseen: np.ndarray) -> dict[str, float]:
    """What the host measured of a round: a batch of leaves [n, ..], and which anchors [n] no lesson was made of.

    Recalls are shares of the planted answers among the DEPTH first that each text finds, those to unseen records apart:
    `data/raw_recall` is by the anchor's own text, `rewriter/recall` by any of its subqueries.
    """
    relation, reading, read = batch.belief.relation, batch.candidates.reading, noted.read
    answered, told = noted.answered, ~np.isnan(noted.reason)
    recalls = {name: float(hit[answered].mean()) for name, hit in noted.hits.items() if answered.any()}
    fresh = answered & unseen
    of_fresh = {f"{name}_unseen": float(hit[fresh].mean()) for name, hit in noted.hits.items() if fresh.any()}
    return {
        "base/query_outside": float(noted.outside.mean()),
        "actor/reason_mrr": float(noted.reason[told].mean()) if told.any() else 0.0,
        **recalls,
        **of_fresh,
        "ranker/reading_gap": _gap(reading[read & (relation > UNRELATED)], reading[read & (relation == UNRELATED)]),
        "tokens/asked": float((batch.ask_source > 0).sum() + (batch.written > 0).sum()),
        "tokens/rewritten": float((batch.subquery > 0).sum()),
        "tokens/read": float(batch.candidates.tokens[read].sum()),
    }


def lost(anchors: Anchors, asked: inquiry.Asked, raw: np.ndarray) -> np.ndarray:
    """What each query finds less of its planted answer than `raw` [n, DEPTH] does, the anchor's own words: [n] float32.

    It is the difference of the reciprocal ranks, of the query within its guardrails, and below 0 where it finds more; a
    hidden answer is sought like any other. Of other anchors nobody knows: there it is 1 where the query found nothing.
    """
    partner = np.maximum(anchors.truth[:, 0], anchors.hidden[:, 0])
    found = asked.found[:, : inquiry.DEPTH]
    inside = np.where(_inside(asked.query, found), found, retrieval.EMPTY)
    more = reciprocal_rank(raw, partner) - reciprocal_rank(inside, partner)
    return np.where(anchors.planted & (partner >= 0), more, silent(asked)).astype(np.float32)


def own_words(team: inquiry.Staff, anchors: Anchors, asked: inquiry.Asked) -> np.ndarray:
    """What planted anchors find by their own words, [n, DEPTH]; for others nothing is looked up."""
    planted, searched = anchors.planted, team.desk.problem.table[anchors.row]
    found = np.full((len(planted), inquiry.DEPTH), retrieval.EMPTY, np.int32)
    found[planted] = inquiry.lexical(team.desk, asked.source[planted], searched[planted], inquiry.DEPTH)
    return found


def hits(
    anchors: Anchors, asked: inquiry.Asked, split: inquiry.Split, record: np.ndarray, raw: np.ndarray
) -> dict[str, np.ndarray]:
    """Whether the known answer is among the DEPTH first that each text finds, [n] bool each."""
    depth = inquiry.DEPTH
    found = {
        "data/raw_recall": raw,
        "base/query_recall": asked.found[:, :depth],
        "base/dense_recall": asked.similar[:, :depth],
        "rewriter/recall": split.found[:, :, :depth].reshape(len(record), -1),
        "data/recall": record.reshape(len(record), -1),
    }
    answer = anchors.truth[:, :1]
    return {name: np.count_nonzero(among(each, answer), axis=1) > 0 for name, each in found.items()}


def outside(desk: Desk, asked: inquiry.Asked, searched: np.ndarray) -> np.ndarray:
    """Whether the best answer of a query lies outside its guardrails, [n]."""
    table = desk.dataset.table_of[np.maximum(asked.found[:, 0], 0)]
    return ~_inside(asked.query, asked.found[:, : inquiry.DEPTH])[:, 0] | (table != searched)


def among(record: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which records [n, ..] are one of the known [n, P] of their row; -1 is none."""
    beside = known.reshape(len(known), *[1] * (record.ndim - 1), -1)
    return ((record[..., None] == beside) & (beside >= 0)).any(axis=-1)


def silent(asked: inquiry.Asked) -> np.ndarray:
    """Which queries found nothing within their guardrails, [n] bool."""
    return np.asarray(~_inside(asked.query, asked.found[:, : inquiry.DEPTH]).any(axis=1))


def reciprocal_rank(found: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """1 / rank of partners [n] among answers [n, k], best first; 0 where one is not among them."""
    order = -jnp.arange(found.shape[1], dtype=jnp.float32)
    return np.asarray(_ranks(order, found == partner[:, None], found >= 0))


def _inside(query: Query, found: np.ndarray) -> np.ndarray:
    """Which answers [n, k] rank high enough for the guardrail: relevance falls linearly with the rank."""
    relevance = 1 - np.arange(found.shape[1]) / found.shape[1]
    return (found >= 0) & (relevance[None] >= query.least_relevance[:, None])


def _gap(ours: np.ndarray, others: np.ndarray) -> float:
    """Mean reading of believed partners less that of the others, nats a token."""
    return float(ours.mean() - others.mean()) if len(ours) and len(others) else 0.0


_ranks = jax.jit(jax.vmap(ranking.reciprocal_rank, (None, 0, 0)))
