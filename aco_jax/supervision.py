"""What is believed without a label: the confident start, hidden matches, priors, and the fixed decision.

A host loop calls `init` once and then, each round: `propose` and `join` (what to learn), the judge's training, `update`
with its held-out logits, and the posteriors are what is believed of every pair. Nothing here reads gold. The shifted
logits of one round never enter the prior of the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import chex
import jax
import numpy as np
from flax import struct
from sklearn.isotonic import IsotonicRegression

from aco_jax.data import listing
from aco_jax.ops import calibration
from aco_jax.types import UNKNOWN, UNRELATED, Belief, Candidates

EMPTY_LOGIT = -30.0
LOW = 0.3  # of strangers' best scores: partners are seldom as unlike as these
LEAST = 1e-3  # above 0, so that what was thought before the doubt can be told from what is thought after it

Lessons = tuple[Candidates, Belief, np.ndarray]  # leaves [n, 1, K, ..], and the fold [n] of each


@dataclass(frozen=True)
class Config:
    """What stands in for labels, the same for every data set."""

    relation: int = 1  # the relation sought: "same"
    folds: int = 2  # cross-fitting; a row's posterior comes from members that never saw it
    confident: float = 0.5  # posterior from which a pair is believed; its weight grows to 1 from there
    prior_steps: int = 100  # of EM
    prior_range: float = 0.02  # estimated shares stay this far from 0 and 1
    several: float = 0.1  # share of matched records with two partners or more that makes it one-to-many
    least_lists: int = 32  # from which a table against itself tells how strangers go together
    doubtful: float = 0.4  # share of the confident start that is told from strangers, below which it is doubted
    alone: float = 0.3  # share of records as unlike all others as strangers are, above which it is
    doubted: float = 0.02  # weight that the confident start keeps where nothing tells it from strangers
    balance_steps: int = 50  # of the one-to-one balancing


@struct.dataclass
class State:
    """What is believed now.

    target [R] int32: slot of the believed partner, -1 where none; weight [R] float32; fold [R] int32;
    posterior [P] float32: of each pair, both directions seen; prior [kinds] float32: share with a partner;
    several [kinds] float32: share of matched anchors that two partners or more claim; discovered [P] float32: how
    likely a pair's records are no strangers that look like partners; round int32.
    """

    target: chex.Array
    weight: chex.Array
    fold: chex.Array
    posterior: chex.Array
    prior: chex.Array
    several: chex.Array
    discovered: chex.Array
    round: chex.Array
    seed: chex.Array


def init(problem: listing.Problem, seed: int, config: Config = Config()) -> State:
    """The confident start: pairs whose records are each other's best by text and title."""
    rows = np.arange(len(problem.anchor))
    best = problem.score.argmax(axis=1)
    back = problem.reverse[rows, best]
    returned = problem.record[back, problem.score[back].argmax(axis=1)]
    mutual = (problem.score.max(axis=1) > 0) & (returned == problem.anchor) & (problem.record[rows, best] >= 0)
    target = np.where(mutual, best, -1).astype(np.int32)
    kinds = int(problem.kind.max()) + 1
    state = State(
        target=target,
        weight=mutual.astype(np.float32),
        fold=np.zeros(len(rows), np.int32),
        posterior=np.zeros(len(problem.pair), np.float32),
        prior=np.array([mutual[problem.kind == kind].mean() for kind in range(kinds)], np.float32),
        several=np.zeros(kinds, np.float32),
        discovered=np.ones(len(problem.pair), np.float32),
        round=np.int32(0),
        seed=np.int32(seed),
    )
    return dataclasses.replace(state, fold=_folds(problem, state, config))


def temper(
    problem: listing.Problem,
    state: State,
    score: np.ndarray,
    halves: Mapping[int, listing.Problem],
    own: Mapping[int, np.ndarray],
    config: Config = Config(),
) -> State:
    """The state with how likely each pair's records are no strangers: 1 less the local false discovery rate.

    How well strangers go together is seen in a table against itself. Where few records have partners, most of those
    that look like partners are no better than such strangers. Of a pair's two tables the one counts that shows fewer
    of them: the other may say things twice. What was doubted once stays so, for a judge that has learned what a table's
    own strangers look like tells them by their table. Source: Efron 2004, Large-Scale Simultaneous Hypothesis Testing.

    Args:
        score: [R, K], of the candidates of all lists.
        halves: of the tables against themselves, by the number of the table.
        own: [R', K] scores of the candidates of their lists.
    """
    found = np.full(len(problem.pair), LEAST, np.float32)
    for kind in np.unique(problem.kind):
        lists = problem.kind == kind
        filled, table = problem.record[lists] >= 0, int(problem.home[lists][0])
        seen = np.ones(filled.shape, np.float32)
        if table in halves and min(lists.sum(), len(halves[table].anchor)) >= config.least_lists:
            strangers = np.where(halves[table].record >= 0, own[table], EMPTY_LOGIT)
            seen = _discovered(np.where(filled, score[lists], EMPTY_LOGIT), strangers)
        np.maximum.at(found, problem.place[lists][filled], seen[filled])
    found = np.minimum(found, state.discovered)
    rows, target = np.arange(len(problem.anchor)), np.asarray(state.target)
    kept = np.maximum(found, config.doubted)[np.maximum(problem.place[rows, np.maximum(target, 0)], 0)]
    return dataclasses.replace(state, discovered=found, weight=np.asarray(state.weight) * np.where(target < 0, 0, kept))


def _discovered(score: np.ndarray, strangers: np.ndarray) -> np.ndarray:
    """How likely each of the scores [n, K] is not of strangers, whose lists have scores [m, K]."""
    best, known = score.max(axis=1), strangers.max(axis=1)
    # Strangers were sought in half a table: the best of twice as many is below this quantile for a half of them. As
    # many lists again as are below it have no partner, at most.
    alone = min(1.0, 2 * float(np.mean(best < np.quantile(known, np.sqrt(0.5)))))
    weight = np.concatenate([np.full(len(best), 1 / len(best)), np.full(len(known), max(2 * alone, 1e-6) / len(known))])
    ours = np.concatenate([np.ones(len(best)), np.zeros(len(known))])
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    share = fitted.fit(np.concatenate([best, known]), ours, weight).predict(score.ravel()).reshape(score.shape)
    return np.clip(2 - 1 / np.maximum(share, 0.5), LEAST, 1).astype(np.float32)


def propose(problem: listing.Problem, state: State, config: Config = Config()) -> Lessons:
    """What to learn from: every believed list, then the same lists with the believed partner hidden.

    Returns candidates and beliefs [2 n, 1, K], and the fold [2 n] of each. Of a hidden match every
    candidate is unrelated: the answer is NULL.
    """
    rows = np.flatnonzero(np.asarray(state.weight) > 0)
    hidden = partners(problem, state, rows, config)
    seen = [listing.observe(problem, rows), listing.observe(problem, rows, hidden)]
    record = np.concatenate([problem.record[rows], np.where(hidden, -1, problem.record[rows])])
    place = np.concatenate([problem.place[rows]] * 2)
    validity = np.where(record >= 0, problem.validity[np.maximum(place, 0)], 0.0)
    candidates = listing.candidates(record, np.concatenate(seen), validity)
    relation = np.where(np.concatenate([hidden, np.zeros_like(hidden)]), config.relation, UNRELATED)
    weight = np.asarray(state.weight)[rows]
    belief = Belief(
        relation=np.where(record >= 0, relation, UNKNOWN)[:, None].astype(np.int32),
        weight=np.concatenate([weight, weight]).astype(np.float32),
        planted=np.zeros(len(record), bool),
    )
    return candidates, belief, np.concatenate([np.asarray(state.fold)[rows]] * 2)


def partners(problem: listing.Problem, state: State, rows: np.ndarray, config: Config = Config()) -> np.ndarray:
    """[r, K] bool: the believed partners of lists `rows`; a list has several where its anchor has several."""
    place = problem.place[rows]
    likely = (place >= 0) & (np.asarray(state.posterior)[np.maximum(place, 0)] > config.confident)
    return likely | (np.arange(place.shape[1])[None] == np.asarray(state.target)[rows, None])


def alone(half: listing.Problem, seed: int, config: Config = Config()) -> Lessons:
    """The lists of a table against itself, of which none has a partner where the table says nothing twice."""
    candidates = listing.everything(half)
    relation = np.where(candidates.record >= 0, UNRELATED, UNKNOWN).astype(np.int32)
    count = len(half.anchor)
    belief = Belief(relation=relation, weight=np.ones(count, np.float32), planted=np.zeros(count, bool))
    return candidates, belief, np.random.default_rng([seed, count]).integers(0, config.folds, count).astype(np.int32)


def doubtful(
    problem: listing.Problem,
    start: State,
    tempered: State,
    halves: Mapping[int, listing.Problem],
    config: Config = Config(),
) -> bool:
    """Whether most of the confident start is no better than strangers, and many records look as if they had no partner.

    Either alone is not enough: where all records have partners, those of one table may still be as alike as they.
    """
    alone = []
    for kind in np.unique(problem.kind):
        lists = problem.kind == kind
        half = halves.get(int(problem.home[lists][0]))
        if half is not None and min(lists.sum(), len(half.anchor)) >= config.least_lists:
            low = np.quantile(half.score.max(axis=1), LOW)
            alone.append(float(np.mean(problem.score[lists].max(axis=1) < low)) / LOW)
    told = float(np.sum(tempered.weight)) / max(float(np.sum(start.weight)), 1e-6)
    return told < config.doubtful and min(alone, default=0.0) > config.alone


def trust(state: State) -> float:
    """The share of what looks like partners that is no chance: of the posteriors, with strangers told apart or not."""
    found = np.asarray(state.posterior)
    before = (found / np.asarray(state.discovered)).sum()
    return float(found.sum() / before) if before else 1.0


def unpartnered(
    half: listing.Problem, logits: np.ndarray, trusted: float = 1.0, config: Config = Config()
) -> np.ndarray:
    """How likely each list [R] of a table against itself has no partner, by a judge's held-out logits [R, K].

    How clean a table is, is estimated so and never assumed: its repeated records would else be learned as strangers.
    What looks like a repeated record is one as far as what looks like a partner can be trusted to be one.
    """
    state = update(half, init(half, 0, config), logits, config)
    likely = np.where(half.place >= 0, np.asarray(state.posterior)[np.maximum(half.place, 0)], 0.0)
    return (1 - trusted * likely.max(axis=1)).astype(np.float32)


def join(proposed: Lessons, single: Sequence[Lessons], sure: Sequence[np.ndarray]) -> Lessons:
    """What was proposed, and the tables' lists against themselves with a weight as `sure` [R] as it is each.

    NULL has the weight that it had: half of it keep the hidden matches, half have the tables, each the same.
    """
    if not single:
        return proposed
    candidates, belief, fold = proposed
    weight, hidden = np.asarray(belief.weight).copy(), slice(len(belief.weight) // 2, None)
    weight[hidden] /= 2
    each = weight[hidden].sum() / len(single)
    known = dataclasses.replace(belief, weight=weight)
    others = [
        dataclasses.replace(unrelated, weight=each * unsaid / max(float(unsaid.sum()), 1e-6))
        for (_, unrelated, _), unsaid in zip(single, sure, strict=True)
    ]
    return jax.tree.map(
        lambda *parts: np.concatenate(parts),
        (candidates, known, fold),
        *((lists, weighed, folds) for (lists, _, folds), weighed in zip(single, others, strict=True)),
    )


def update(problem: listing.Problem, state: State, logits: np.ndarray, config: Config = Config()) -> State:
    """New beliefs from a judge's held-out logits [R, K] (NULL at 0), trained half on hidden matches."""
    logits = np.where(problem.record >= 0, logits, EMPTY_LOGIT).astype(np.float32)
    prior = estimate_prior(problem, logits, config)
    shifted = logits + np.log(prior / (1 - prior))[problem.kind][:, None]
    p = _null_softmax(shifted)
    several = multiplicity(problem, p)
    posterior = _pair_posterior(problem, shifted, p, several, config) * np.asarray(state.discovered)
    known = problem.place >= 0
    ours = np.where(known, posterior[np.maximum(problem.place, 0)], 0.0)
    best = ours.max(axis=1)
    believed = best > config.confident
    moved = dataclasses.replace(
        state,
        target=np.where(believed, ours.argmax(axis=1), -1).astype(np.int32),
        weight=np.where(believed, (best - config.confident) / (1 - config.confident), 0).astype(np.float32),
        posterior=posterior,
        prior=prior.astype(np.float32),
        several=several.astype(np.float32),
        round=np.int32(int(state.round) + 1),
    )
    return dataclasses.replace(moved, fold=_folds(problem, moved, config))


def estimate_prior(problem: listing.Problem, logits: np.ndarray, config: Config = Config()) -> np.ndarray:
    """Share of anchors with a partner, for each ordered pair of tables: [kinds].

    Saerens, Latinne and Decaestecker 2002, by EM from the original posteriors, whose prior is a half.
    """
    matched = _null_softmax(logits).sum(axis=1)
    shares = []
    for kind in range(int(problem.kind.max()) + 1):
        mine = (problem.kind == kind).astype(np.float32)
        shares.append(float(calibration.em_prior(matched.astype(np.float32), mine > 0, 0.5, config.prior_steps)))
    return np.clip(np.array(shares), config.prior_range, 1 - config.prior_range)


def multiplicity(problem: listing.Problem, p: np.ndarray) -> np.ndarray:
    """[kinds]: of the records that others claim (p [R, K] over a half), the share claimed by two or more.

    Kind (i, j) is about records of table i, claimed by anchors of table j: each anchor claims one at most.
    """
    rows, slots = np.nonzero((p > 0.5) & (problem.record >= 0))
    back = problem.reverse[rows, slots]
    claims = np.bincount(back, minlength=len(problem.anchor))
    return np.array(
        [
            np.sum(claims[problem.kind == kind] >= 2) / max(1, np.sum(claims[problem.kind == kind] >= 1))
            for kind in range(int(problem.kind.max()) + 1)
        ]
    )


def company(problem: listing.Problem, state: State, rows: np.ndarray) -> np.ndarray:
    """Who else goes with the anchors of lists `rows`: [r] the surest partner in a table not searched, -1 if none."""
    lists = np.full((problem.size, int(problem.table.max()) + 1), -1, np.int64)
    lists[problem.anchor, problem.table] = np.arange(len(problem.anchor))
    beside = lists[problem.anchor[rows]]
    beside[np.arange(len(rows)), problem.table[rows]] = -1
    sure = np.where(beside >= 0, np.asarray(state.weight)[beside], 0.0)
    best = beside[np.arange(len(rows)), sure.argmax(axis=1)]
    return np.where(sure.max(axis=1) > 0, problem.record[best, np.asarray(state.target)[best]], -1).astype(np.int32)


def _folds(problem: listing.Problem, state: State, config: Config) -> np.ndarray:
    """Both directions of a believed pair share a fold: else one direction would tell the other's answer.

    Lists [R] go with the record that has several partners, where there is one.
    """
    rng = np.random.default_rng([int(state.seed), int(state.round)])
    fold = rng.integers(0, config.folds, problem.size)
    rows, target = np.arange(len(problem.anchor)), np.asarray(state.target)
    slot = np.maximum(target, 0)
    partner, several = problem.record[rows, slot], partners(problem, state, rows, config).sum(axis=1) > 1
    theirs = several[problem.reverse[rows, slot]]
    key = np.where(several, problem.anchor, np.where(theirs, partner, np.minimum(problem.anchor, partner)))
    return fold[np.where(target >= 0, key, problem.anchor)].astype(np.int32)


def _pair_posterior(
    problem: listing.Problem, logits: np.ndarray, p: np.ndarray, several: np.ndarray, config: Config
) -> np.ndarray:
    """One probability a pair, from both directions.

    Where neither table has records with several partners, pairs compete for both their records (a balanced
    assignment with NULL on both sides, Sinkhorn 1967). Where one has, its records' lists tell nothing of how many
    partners are right, and the other's lists decide; where both have, the mean of the two directions.
    """
    known = problem.place >= 0
    place, count = problem.place[known], len(problem.pair)
    forward = np.broadcast_to((problem.direction[:, None] > 0), known.shape)
    kinds = np.broadcast_to(problem.kind[:, None], known.shape)
    seen = np.maximum(np.bincount(place, minlength=count), 1)
    logit = np.bincount(place, logits[known], count) / seen
    ours, theirs = (
        np.bincount(problem.place[known & side], p[known & side], count).astype(np.float32)
        for side in (forward, ~forward)
    )
    posterior = (ours + theirs) / 2
    for kind in np.unique(problem.kind[problem.direction > 0]):
        back = problem.kind[problem.reverse[(problem.kind == kind)[:, None] & known][0]]
        inside = np.unique(problem.place[known & forward & (kinds == kind)])
        single = (several[kind] < config.several, several[back] < config.several)
        if all(single) and len(inside):
            posterior[inside] = _balance(problem.pair[inside], logit[inside], problem.size, config.balance_steps)
        elif any(single):
            posterior[inside] = (ours if single[0] else theirs)[inside]
    return posterior


def _balance(pair: np.ndarray, logit: np.ndarray, size: int, steps: int) -> np.ndarray:
    weight = np.exp(np.clip(logit, EMPTY_LOGIT, 12.0))
    left, right = np.ones(size), np.ones(size)
    for _ in range(steps):
        left = 1 / (1 + np.bincount(pair[:, 0], weight * right[pair[:, 1]], size))
        right = 1 / (1 + np.bincount(pair[:, 1], weight * left[pair[:, 0]], size))
    return np.clip(weight * left[pair[:, 0]] * right[pair[:, 1]], 0, 1).astype(np.float32)


def _null_softmax(logits: np.ndarray) -> np.ndarray:
    """[R, K] -> [R, K]: softmax beside NULL at 0."""
    top = np.maximum(logits.max(axis=1, keepdims=True), 0)
    value = np.exp(logits - top)
    return value / (value.sum(axis=1, keepdims=True) + np.exp(-top))
