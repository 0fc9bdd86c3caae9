"""What is believed without a label: the confident start, hidden matches, priors, and the fixed decision.

A host loop calls `prepare` and `init` once and then, each round: `propose` (what to learn), the judge's
training, `update` with its held-out logits, and the posteriors are what is believed of every pair. Nothing here
reads gold. The shifted logits of one round never enter the prior of the next.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import chex
import numpy as np
from flax import struct

from aco_jax.data import evidence
from aco_jax.data.records import Dataset
from aco_jax.data.retrieval import Lists, nearest
from aco_jax.ops import calibration
from aco_jax.types import UNKNOWN, UNRELATED, Belief, Candidates

CLIP = 6.0  # standardised evidence beyond is as good as this
EMPTY_LOGIT = -30.0


@dataclass(frozen=True)
class Config:
    """What stands in for labels, the same for every data set."""

    relation: int = 1  # the relation sought: "same"
    folds: int = 2  # cross-fitting; a row's posterior comes from members that never saw it
    confident: float = 0.5  # posterior from which a pair is believed; its weight grows to 1 from there
    prior_steps: int = 100  # of EM
    prior_range: float = 0.02  # estimated shares stay this far from 0 and 1
    several: float = 0.1  # share of matched records with two partners or more that makes it one-to-many
    balance_steps: int = 50  # of the one-to-one balancing


@dataclass(frozen=True)
class Problem:
    """All lists with their evidence. R lists, K candidates, P pairs of records, each pair once.

    anchor [R], table [R], record [R, K] (-1 empty), pair [P, 2] (lower record first), place [R, K] (number of
    the pair, -1), reverse [R, K] (list of the candidate back to the anchor's table), facts [P, F], validity
    [P], score [R, K], direction [R] (1: the anchor's table is the earlier), repeats [N], kind [R] (number of
    the ordered pair of tables), home [R] (the anchor's table), mean and std [F + view] of the evidence, size N.
    """

    anchor: np.ndarray
    table: np.ndarray
    record: np.ndarray
    pair: np.ndarray
    place: np.ndarray
    reverse: np.ndarray
    facts: np.ndarray
    validity: np.ndarray
    score: np.ndarray
    direction: np.ndarray
    repeats: np.ndarray
    kind: np.ndarray
    home: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    size: int


@struct.dataclass
class State:
    """What is believed now.

    target [R] int32: slot of the believed partner, -1 where none; weight [R] float32; fold [R] int32;
    posterior [P] float32: of each pair, both directions seen; prior [kinds] float32: share with a partner;
    several [kinds] float32: share of matched anchors that two partners or more claim; round int32.
    """

    target: chex.Array
    weight: chex.Array
    fold: chex.Array
    posterior: chex.Array
    prior: chex.Array
    several: chex.Array
    round: chex.Array
    seed: chex.Array


def prepare(dataset: Dataset, index: evidence.Index, lists: Lists) -> Problem:
    """Compares every candidate pair once, and finds each pair's list in the other direction."""
    rows, slots = np.nonzero(lists.record >= 0)
    anchor, other = lists.anchor[rows].astype(np.int64), lists.record[rows, slots].astype(np.int64)
    code, number = np.unique(np.minimum(anchor, other) * dataset.size + np.maximum(anchor, other), return_inverse=True)
    pair = np.stack([code // dataset.size, code % dataset.size], axis=1).astype(np.int32)
    facts, validity = evidence.compare(index, index.records, index.records, pair[:, 0], pair[:, 1])
    place = np.full(lists.record.shape, -1, np.int32)
    place[rows, slots] = number
    tables = len(dataset.tables)
    row_of = np.full((dataset.size, tables), -1, np.int32)
    row_of[lists.anchor, lists.table] = np.arange(len(lists.anchor))
    own = dataset.table_of[lists.anchor]
    blank = Problem(
        anchor=lists.anchor,
        table=lists.table,
        record=lists.record,
        pair=pair,
        place=place,
        reverse=row_of[np.maximum(lists.record, 0), own[:, None]],
        facts=facts,
        validity=validity,
        score=np.where(place >= 0, evidence.base_score(facts)[place], -1.0).astype(np.float32),
        direction=(own < lists.table).astype(np.float32),
        repeats=index.repeats,
        kind=np.unique(own * tables + lists.table, return_inverse=True)[1].astype(np.int32),
        home=own.astype(np.int32),
        mean=np.zeros(len(evidence.NAMES), np.float32),
        std=np.ones(len(evidence.NAMES), np.float32),
        size=dataset.size,
    )
    seen = observe(blank, np.arange(len(lists.anchor)), raw=True)[lists.record >= 0]
    mean, std = seen.mean(axis=0), seen.std(axis=0) + 1e-3
    return Problem(**{**blank.__dict__, "mean": mean.astype(np.float32), "std": std.astype(np.float32)})


def observe(problem: Problem, rows: np.ndarray, hidden: np.ndarray | None = None, *, raw: bool = False) -> np.ndarray:
    """Evidence [r, K, F] of lists `rows`, standardised; hidden [r, K] bool slots are as if not there."""
    record, place = problem.record[rows], problem.place[rows]
    if hidden is not None:
        record = np.where(hidden, -1, record)
    facts = problem.facts[np.maximum(place, 0)]
    earlier = (problem.direction[rows] > 0)[:, None, None]
    facts = np.where(earlier, facts, evidence.swap(facts))
    view = _view(problem, problem.reverse[rows], record, problem.score[rows], problem.anchor[rows], rows)
    return _standardise(problem, facts, view, record, raw)


def init(problem: Problem, seed: int, config: Config = Config()) -> State:
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
        round=np.int32(0),
        seed=np.int32(seed),
    )
    return dataclasses.replace(state, fold=_folds(problem, state, config))


def propose(problem: Problem, state: State, config: Config = Config()) -> tuple[Candidates, Belief, np.ndarray]:
    """What to learn from: every believed list, then the same lists with the believed partner hidden.

    Returns candidates and beliefs [2 n, 1, K], and the fold [2 n] of each. Of a hidden match every
    candidate is unrelated: the answer is NULL.
    """
    rows = np.flatnonzero(np.asarray(state.weight) > 0)
    hidden = partners(problem, state, rows, config)
    seen = [observe(problem, rows), observe(problem, rows, hidden)]
    record = np.concatenate([problem.record[rows], np.where(hidden, -1, problem.record[rows])])
    place = np.concatenate([problem.place[rows]] * 2)
    validity = np.where(record >= 0, problem.validity[np.maximum(place, 0)], 0.0)
    candidates = _candidates(record, np.concatenate(seen), validity)
    relation = np.where(np.concatenate([hidden, np.zeros_like(hidden)]), config.relation, UNRELATED)
    weight = np.asarray(state.weight)[rows]
    belief = Belief(
        relation=np.where(record >= 0, relation, UNKNOWN)[:, None].astype(np.int32),
        weight=np.concatenate([weight, weight]).astype(np.float32),
        planted=np.zeros(len(record), bool),
    )
    return candidates, belief, np.concatenate([np.asarray(state.fold)[rows]] * 2)


def partners(problem: Problem, state: State, rows: np.ndarray, config: Config = Config()) -> np.ndarray:
    """[r, K] bool: the believed partners of lists `rows`; a list has several where its anchor has several."""
    place = problem.place[rows]
    likely = (place >= 0) & (np.asarray(state.posterior)[np.maximum(place, 0)] > config.confident)
    return likely | (np.arange(place.shape[1])[None] == np.asarray(state.target)[rows, None])


def everything(problem: Problem) -> Candidates:
    """Candidates [R, 1, K] of all lists, nothing hidden: what the judge answers each round."""
    record = problem.record
    validity = np.where(record >= 0, problem.validity[np.maximum(problem.place, 0)], 0.0)
    return _candidates(record, observe(problem, np.arange(len(record))), validity)


def update(problem: Problem, state: State, logits: np.ndarray, config: Config = Config()) -> State:
    """New beliefs from a judge's held-out logits [R, K] (NULL at 0), trained half on hidden matches."""
    logits = np.where(problem.record >= 0, logits, EMPTY_LOGIT).astype(np.float32)
    prior = estimate_prior(problem, logits, config)
    shifted = logits + np.log(prior / (1 - prior))[problem.kind][:, None]
    p = _null_softmax(shifted)
    several = multiplicity(problem, p)
    posterior = _pair_posterior(problem, shifted, p, several, config)
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


def estimate_prior(problem: Problem, logits: np.ndarray, config: Config = Config()) -> np.ndarray:
    """Share of anchors with a partner, for each ordered pair of tables: [kinds].

    Saerens, Latinne and Decaestecker 2002, by EM from the original posteriors, whose prior is a half.
    """
    matched = _null_softmax(logits).sum(axis=1)
    shares = []
    for kind in range(int(problem.kind.max()) + 1):
        mine = (problem.kind == kind).astype(np.float32)
        shares.append(float(calibration.em_prior(matched.astype(np.float32), mine > 0, 0.5, config.prior_steps)))
    return np.clip(np.array(shares), config.prior_range, 1 - config.prior_range)


def multiplicity(problem: Problem, p: np.ndarray) -> np.ndarray:
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


def company(problem: Problem, state: State, rows: np.ndarray) -> np.ndarray:
    """Who else goes with the anchors of lists `rows`: [r] the surest partner in a table not searched, -1 if none."""
    lists = np.full((problem.size, int(problem.table.max()) + 1), -1, np.int64)
    lists[problem.anchor, problem.table] = np.arange(len(problem.anchor))
    beside = lists[problem.anchor[rows]]
    beside[np.arange(len(rows)), problem.table[rows]] = -1
    sure = np.where(beside >= 0, np.asarray(state.weight)[beside], 0.0)
    best = beside[np.arange(len(rows)), sure.argmax(axis=1)]
    return np.where(sure.max(axis=1) > 0, problem.record[best, np.asarray(state.target)[best]], -1).astype(np.int32)


def observe_new(
    problem: Problem,
    index: evidence.Index,
    described: evidence.Description,
    record: np.ndarray,
    rows: np.ndarray,
    standing: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence [r, K, F], validity and plain score [r, K] of any candidates `record` [r, K], -1 where empty.

    Args:
        described: r records, each in the place of the anchor of list rows[i]; they may be new.
        rows: [r] lists.
        standing: [r] bool, described i is the anchor itself, whose compared pairs need no second look.
    """
    left, slots = np.nonzero(record >= 0)
    facts = np.zeros((*record.shape, len(evidence.FACTS)), np.float32)
    validity = np.zeros(record.shape, np.float32)
    place = _place(problem, problem.anchor[rows][left], record[left, slots])
    known = standing[left] & (place >= 0)
    earlier = (problem.direction[rows] > 0)[left[known], None]
    held = problem.facts[place[known]]
    facts[left[known], slots[known]] = np.where(earlier, held, evidence.swap(held))
    validity[left[known], slots[known]] = problem.validity[place[known]]
    left, slots = left[~known], slots[~known]
    compared = evidence.compare(index, described, index.records, left, record[left, slots])
    facts[left, slots], validity[left, slots] = compared
    row_of = np.zeros((problem.size, int(problem.table.max()) + 1), np.int64)
    row_of[problem.anchor, problem.table] = np.arange(len(problem.anchor))
    reverse = row_of[np.maximum(record, 0), problem.home[rows][:, None]]
    score = np.where(record >= 0, evidence.base_score(facts), -1.0)
    view = _view(problem, reverse, record, score, problem.anchor[rows], rows)
    return _standardise(problem, facts, view, record, False), validity, score


def neighbours(
    dataset: Dataset, index: evidence.Index, described: evidence.Description, tables: np.ndarray, k: int
) -> np.ndarray:
    """The k records of table tables[i] whose text is most like record i's, [r, k], -1 where there are fewer."""
    record = np.full((len(described), k), -1, np.int32)
    for table in np.unique(tables):
        mine = np.flatnonzero(tables == table)
        start, end = int(dataset.offsets[table]), int(dataset.offsets[table + 1])
        found = nearest(described.text[mine], index.records.text[start:end], k)[0]
        record[mine] = np.where(found >= 0, found + start, -1)
    return record


def _place(problem: Problem, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The numbers of pairs of records [n] among the compared pairs, -1 where they are not."""
    code = problem.pair[:, 0].astype(np.int64) * problem.size + problem.pair[:, 1]
    wanted = np.minimum(left, right).astype(np.int64) * problem.size + np.maximum(left, right)
    place = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    return np.where(code[place] == wanted, place, -1)


def _view(
    problem: Problem, reverse: np.ndarray, record: np.ndarray, score: np.ndarray, anchor: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    best = problem.record[np.arange(len(problem.record)), problem.score.argmax(axis=1)]
    rivals = problem.record[reverse]
    # A rival's own list towards the candidate's table is the reverse of the reverse.
    reverse_best = best[problem.reverse[reverse]] == record[..., None]
    return evidence.view(
        record,
        score,
        rivals,
        problem.score[reverse],
        reverse_best & (rivals >= 0),
        anchor,
        problem.repeats[anchor],
        problem.repeats[np.maximum(record, 0)],
        problem.direction[rows],
    )


def _standardise(problem: Problem, facts: np.ndarray, view: np.ndarray, record: np.ndarray, raw: bool) -> np.ndarray:
    value = np.concatenate([facts, view], axis=-1)
    if not raw:
        value = np.clip((value - problem.mean) / problem.std, -CLIP, CLIP)
    return np.where((record >= 0)[..., None], value, 0.0).astype(np.float32)


def _candidates(record: np.ndarray, seen: np.ndarray, validity: np.ndarray) -> Candidates:
    blank = np.zeros(record.shape, np.float32)[:, None]
    return Candidates(
        record=record[:, None].astype(np.int32),
        evidence=seen[:, None],
        validity=validity[:, None].astype(np.float32),
        reading=blank,
        tokens=blank.astype(np.int32),
    )


def _folds(problem: Problem, state: State, config: Config) -> np.ndarray:
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
    problem: Problem, logits: np.ndarray, p: np.ndarray, several: np.ndarray, config: Config
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
