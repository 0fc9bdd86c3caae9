"""The ranker: reads, judges and orders candidates and subqueries.

    score(subquery) = w . (relevance, validity, gain)
    score(q, d) = evidence(d) + w . (validity, gain, relevance x revealed, relevance x revealed x evidence)

evidence() is the judge, an ensemble of small networks on what the facts say; relevance is how likely the query is given
the record under the reader, a distilled language model; gain is what reading the candidate would tell. NULL, "none of
these", stands at logit 0.

Sources: Xia et al. 2008, ListMLE; Ponte and Croft 1998 (query likelihood); Lindley 1956 (information gain).
"""

from __future__ import annotations

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.models import distillation, judge, lora, transformer
from aco_jax.ops import likelihood, masking, policy_gradient, ranking, rowwise
from aco_jax.types import UNRELATED, Belief, Candidates, Metrics, Params, Ranking

VERDICT_EDGES = (-0.5, 0.5)  # of a standardised reading: against, undecided, for


@dataclass(frozen=True)
class Config:
    """Judge, reader, and how orders are drawn."""

    model: transformer.Config  # the reader
    judge: judge.Config
    folds: int = 2  # member e learns from the anchors of fold e modulo this
    temperature: float = 0.3  # of the sampled order
    distil_weight: float = 0.5  # of the teacher in the reader's loss
    bits: int = 8  # of the reader's weights at inference, 8 or 4
    rank: int = 0  # of the reader's adapters of a trunk that others share; 0: the reader is its own
    duplicate_start: float = 2.0  # standard deviations
    duplicate_full: float = 3.0


@struct.dataclass
class SftBatch:
    """What was asked for which record: examples of the base's `ask`."""

    source: chex.Array  # [b, S] int32
    target: chex.Array  # [b, T] int32, end included


def init(key: chex.PRNGKey, config: Config) -> Params:
    """{'reader', 'judge' with a leading axis E, 'weights' [E, Y, 4], 'verdict' [Y + 1, 3], 'merits' [3]}."""
    reader_key, judge_key = jax.random.split(key)
    relations = config.judge.relations
    return {
        "reader": lora.fresh(reader_key, config.model, config.rank),
        "judge": judge.init(judge_key, config.judge),
        "weights": jnp.zeros((config.judge.members, relations, 4)),
        "verdict": jnp.zeros((relations + 1, len(VERDICT_EDGES) + 1)),
        "merits": jnp.ones(3),
    }


def rank(
    params: Params,
    config: Config,
    candidates: Candidates,
    key: chex.PRNGKey,
    temperature: chex.Numeric = 0.0,
    revealed: bool = True,
) -> Ranking:
    """Orders the L = (M + 1) * K candidates of each anchor by their best relation, leaves [B, ..].

    Args:
        temperature: of the Plackett-Luce sample; 0 sorts.
        revealed: whether the readings count.
    """
    score = jnp.mean(member_scores(params, config, candidates, revealed), axis=0)
    top, mask = _top(score, candidates)
    keys = jax.random.split(key, top.shape[0])
    order = jax.vmap(ranking.sample_permutation, (0, 0, 0, None))(keys, top, mask, jnp.float32(temperature))
    heat = jnp.maximum(temperature, 1e-3)
    log_prob = jax.vmap(ranking.plackett_luce_log_prob)(top / heat, order, mask)
    return Ranking(score=score, permutation=order, log_prob=log_prob)


def member_scores(params: Params, config: Config, candidates: Candidates, revealed: bool) -> chex.Array:
    """Each member's logits of each relation, [E, B, M + 1, K, Y]."""
    return _scores(params, config, candidates, revealed)[0]


def loss(
    params: Params, config: Config, candidates: Candidates, belief: Belief, fold: chex.Array
) -> tuple[chex.Array, Metrics]:
    """ListMLE with and without the readings: believed partners first, then NULL, then the rest.

    Candidates of which nothing is believed are left out, and so are anchors of weight 0.

    Args:
        fold: [B] int32; a member learns from the anchors of its own fold, nobody from fold -1: by planted anchors
            the agents are measured, and their records are learned from as they stand.

    Returns:
        loss (nats an anchor) and metrics: MRR of the first partner, and how much relevance, validity and gain
        each contribute to the scores (logits, mean absolute).
    """
    count = config.judge.members
    own = fold[None] == jnp.arange(count)[:, None] % config.folds
    weight = own * belief.weight[None]
    total = jnp.zeros(())
    terms: dict[str, chex.Array] = {}
    for revealed in (False, True):
        scores, terms = _scores(params, config, candidates, revealed)
        losses = jax.vmap(lambda score: jax.vmap(_list_loss)(score, candidates, belief))(scores)
        total = total + jnp.sum(losses * weight) / jnp.maximum(jnp.sum(weight), 1e-6) / 2
    verdict = _verdict_loss(params, candidates, belief, fold)
    top, mask = _top(judge.held_out(scores, fold, config.folds), candidates)
    related = (belief.relation > UNRELATED).reshape(mask.shape) & (belief.weight > 0)[:, None]
    metrics = {"list_mle": total, "mrr": ranking.mean_reciprocal_rank(top, related, mask), "verdict": verdict}
    filled = candidates.record >= 0
    shares = {
        f"{name}_share": masking.masked_mean(jnp.abs(jnp.mean(term, axis=(0, -1))), filled)
        for name, term in terms.items()
    }
    return total + verdict, metrics | shares


def policy_loss(
    params: Params,
    config: Config,
    candidates: Candidates,
    permutation: chex.Array,
    advantage: chex.Array,
    fold: chex.Array,
) -> chex.Array:
    """-advantage x log p(the order that was sampled), permutation [B, L], advantage [B]; the mean over anchors.

    `fold` [B] is that of `loss`: an order was sampled from the members that do not learn from the anchor.
    """
    score = judge.held_out(member_scores(params, config, candidates, revealed=False), fold, config.folds)
    top, mask = _top(score, candidates)
    log_prob = jax.vmap(ranking.plackett_luce_log_prob)(top / config.temperature, permutation, mask)
    return jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(log_prob, advantage))


@jax.jit
def rank_subqueries(
    params: Params, merits: chex.Array, key: chex.PRNGKey, temperature: chex.Numeric = 0.0
) -> chex.Array:
    """An order [B, M] of each request's subqueries by their relevance, validity and gain [B, M, 3].

    Args:
        key: [], or [B], one of each request.
        temperature: 0 sorts.
    """
    score = merits @ params["merits"]
    keys = rowwise.keys(key, score.shape[0])
    everyone = jnp.ones(score.shape, bool)
    return jax.vmap(ranking.sample_permutation, (0, 0, 0, None))(keys, score, everyone, jnp.float32(temperature))


def subquery_loss(params: Params, config: Config, merits: chex.Array, advantage: chex.Array) -> chex.Array:
    """-advantage x log p(the subqueries in their order), merits [B, M, 3], advantage [B]; the mean over requests."""
    score = merits @ params["merits"] / config.temperature
    as_they_are = jnp.broadcast_to(jnp.arange(score.shape[1]), score.shape)
    log_prob = jax.vmap(ranking.plackett_luce_log_prob)(score, as_they_are, jnp.ones(score.shape, bool))
    return jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(log_prob, advantage))


def read(params: Params, config: Config, queries: chex.Array, records: chex.Array) -> chex.Array:
    """Relevance: mean log-probability (nats a token) of queries [n, T] given records [n, S], [n]."""
    log_prob, mask = transformer.sequence_log_prob(params, config.model, records, queries)
    return jax.vmap(likelihood.length_normalised)(log_prob, mask)


def reader_loss(
    params: Params, config: Config, batch: SftBatch, teacher: Params, teacher_model: transformer.Config
) -> tuple[chex.Array, Metrics]:
    """Token cross-entropy of queries given their records, mixed with the KL of the base's distribution to the reader's.

    The teacher, a base of configuration `teacher_model` over the same tokens, gets no gradient.
    """
    return distillation.sequence_loss(
        params["reader"], config.model, teacher, teacher_model, batch.source, batch.target, config.distil_weight
    )


def penalty(params: Params, config: Config, subqueries: chex.Array) -> chex.Array:
    """How near-duplicate each request's subqueries [B, M, T] are, [B] in [0, 1].

    The cosine of two subqueries of one request, in standard deviations from such cosines pooled over the requests.
    """
    count = subqueries.shape[1]
    if count < 2:
        return jnp.zeros(subqueries.shape[0])
    tokens = subqueries.reshape(-1, subqueries.shape[-1])
    vectors = transformer.embed(params["reader"], config.model, tokens).reshape(*subqueries.shape[:2], -1)
    cosine = jnp.einsum("bmd,bnd->bmn", vectors, vectors)
    above, below = jnp.triu_indices(count, k=1)
    pairs = cosine[:, above, below]
    found = ranking.duplicate_penalty(
        pairs, jnp.mean(pairs), jnp.std(pairs), config.duplicate_start, config.duplicate_full
    )
    return jax.lax.stop_gradient(jnp.mean(found, axis=1))


def _scores(
    params: Params, config: Config, candidates: Candidates, revealed: bool
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Logits [E, .., Y], and what of them validity, gain and relevance make."""
    # Fitted on whole catalogues by `judge.fit`: learning on from a few dozen anchors a step cost it 2 points of F1.
    evidence = jax.lax.stop_gradient(judge.member_scores(params["judge"], config.judge, candidates.evidence))
    reading = jnp.broadcast_to((candidates.reading * revealed)[None, ..., None], evidence.shape)
    validity = jnp.broadcast_to(candidates.validity[None, ..., None], evidence.shape)
    items = [validity - 0.5, _gain(params["verdict"], evidence), reading, reading * jnp.tanh(evidence / 4)]
    weights = params["weights"][:, None, None, None]
    first, second, third, fourth = (weights[..., i] * x for i, x in enumerate(items))
    terms = {"validity": first, "gain": second, "relevance": third + fourth}
    return evidence + sum(terms.values()), terms


def _gain(verdict: chex.Array, score: chex.Array) -> chex.Array:
    """Information gain (nats) of reading a candidate whose relation y has logit score[.., y], same shape."""
    given = jax.nn.softmax(jax.lax.stop_gradient(verdict), axis=-1)
    p = jax.nn.sigmoid(score)

    def one(p: chex.Array, y: chex.Array) -> chex.Array:
        return ranking.information_gain(jnp.stack([1 - p, p]), given[jnp.stack([jnp.zeros_like(y), y + 1])])

    relation = jnp.broadcast_to(jnp.arange(score.shape[-1]), score.shape)
    return jax.vmap(one)(p.reshape(-1), relation.reshape(-1)).reshape(score.shape)


def _verdict_loss(params: Params, candidates: Candidates, belief: Belief, fold: chex.Array) -> chex.Array:
    """Cross-entropy of the binned reading given the believed relation; of anchors that are learned from."""
    known = (belief.relation >= 0) & (candidates.record >= 0) & ((belief.weight > 0) & (fold >= 0))[:, None, None]
    verdict = jnp.digitize(candidates.reading, jnp.asarray(VERDICT_EDGES))
    log_p = jax.nn.log_softmax(params["verdict"], axis=-1)[jnp.maximum(belief.relation, 0), verdict]
    return -masking.masked_mean(log_p, known)


def _list_loss(scores: chex.Array, candidates: Candidates, belief: Belief) -> chex.Array:
    """One anchor: the mean over relations of ListMLE with levels partner 0, NULL 1, the rest 2."""
    mask = ((candidates.record >= 0) & (belief.relation >= 0)).reshape(-1)
    stated = belief.relation.reshape(-1)

    def relation(score: chex.Array, y: chex.Array) -> chex.Array:
        level = jnp.append(jnp.where(stated == y + 1, 0, 2), 1)
        return ranking.list_mle(jnp.append(score, 0.0), level, jnp.append(mask, True), levels=2)

    flat = scores.reshape(-1, scores.shape[-1]).T
    return jnp.mean(jax.vmap(relation)(flat, jnp.arange(flat.shape[0])))


def _top(score: chex.Array, candidates: Candidates) -> tuple[chex.Array, chex.Array]:
    """Each candidate's best relation [B, L] and which are filled."""
    rows = score.shape[0]
    return jnp.max(score, axis=-1).reshape(rows, -1), (candidates.record >= 0).reshape(rows, -1)
