"""What the judge is taught of what is believed: lists with their partners and without, in other words, of one table.

A host loop calls `propose`, `reword` and `join` each round. Nothing here reads gold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from aco_jax import competition, supervision
from aco_jax.data import descriptions, listing, noise
from aco_jax.data.records import Dataset
from aco_jax.types import UNKNOWN, UNRELATED, Belief, Candidates

REWORDING = 1  # a stream of random numbers beside the rounds' own
REWORDED = (0.1, 0.5)  # from how little to how much of an anchor is said in other words
DEFAULTS = supervision.Config()


def propose(
    problem: listing.Problem, state: supervision.State, config: supervision.Config = DEFAULTS
) -> supervision.Lessons:
    """What to learn from: every believed list, then the same lists with the believed partner hidden.

    Where all tables repeat their records, what may be the partner said again is hidden with it. Returns candidates and
    beliefs [2 n, 1, K], and the fold [2 n] of each. Of a hidden match every candidate is unrelated: the answer is NULL.
    """
    rows = np.flatnonzero(np.asarray(state.weight) > 0)
    related, hidden = _answers(problem, state, rows, config)
    seen = [listing.observe(problem, rows), listing.observe(problem, rows, hidden)]
    record = np.concatenate([problem.record[rows], np.where(hidden, -1, problem.record[rows])])
    place = np.concatenate([problem.place[rows]] * 2)
    validity = np.where(record >= 0, problem.validity[np.maximum(place, 0)], 0.0)
    candidates = listing.candidates(record, np.concatenate(seen), validity)
    return _lessons(candidates, related, state, rows, config)


def reword(
    problem: listing.Problem,
    dataset: Dataset,
    index: descriptions.Index,
    state: supervision.State,
    config: supervision.Config = DEFAULTS,
) -> supervision.Lessons:
    """The lists of `propose`, about their anchors in other words; of many lists as many as `reworded`, for the same.

    What is believed where records are said again and again are the pairs that are most alike, which would teach that
    there are no others.
    """
    rng = np.random.default_rng([int(state.seed), int(state.round), REWORDING])
    believed = np.flatnonzero(np.asarray(state.weight) > 0)
    rows = np.sort(rng.permutation(believed)[: config.reworded])
    related, hidden = _answers(problem, state, rows, config)
    anchors = [
        noise.corrupt(rng, dataset.row(record), rng.uniform(*REWORDED)) for record in problem.anchor[rows].tolist()
    ]
    described = descriptions.describe(index, problem.home[rows], anchors)
    told = [problem.record[rows], np.where(hidden, -1, problem.record[rows])]
    nobody = np.zeros(len(rows), bool)
    seen, validity, _ = zip(
        *(listing.observe_new(problem, index, described, record, rows, nobody) for record in told), strict=True
    )
    candidates = listing.candidates(*map(np.concatenate, (told, seen, validity)))
    lessons, belief, fold = _lessons(candidates, related, state, rows, config)
    return lessons, dataclasses.replace(belief, weight=belief.weight * len(believed) / max(1, len(rows))), fold


def _answers(
    problem: listing.Problem, state: supervision.State, rows: np.ndarray, config: supervision.Config
) -> tuple[np.ndarray, np.ndarray]:
    """[r, K] bool: the believed partners of lists `rows`, and what is hidden where they are."""
    related = supervision.partners(problem, state, rows, config)
    return related, related | _said_again(problem, state, rows, config.alike) if state.many else related


def _lessons(
    candidates: Candidates, related: np.ndarray, state: supervision.State, rows: np.ndarray, config: supervision.Config
) -> supervision.Lessons:
    """Lists `rows` with their partners `related` [r, K], then as many without."""
    record = candidates.record
    relation = np.where(np.concatenate([related, np.zeros_like(related)])[:, None], config.relation, UNRELATED)
    belief = Belief(
        relation=np.where(record >= 0, relation, UNKNOWN).astype(np.int32),
        weight=np.concatenate([np.asarray(state.weight)[rows]] * 2).astype(np.float32),
        planted=np.zeros(len(record), bool),
    )
    return candidates, belief, np.concatenate([np.asarray(state.fold)[rows]] * 2)


def _said_again(problem: listing.Problem, state: supervision.State, rows: np.ndarray, share: float) -> np.ndarray:
    """[r, K] bool: candidates of lists `rows` that may be the believed partner said again; see `go_together`."""
    record, target = problem.record[rows], np.asarray(state.target)[rows]
    row, slot = np.nonzero(record >= 0)
    found = np.zeros(record.shape, bool)
    found[row, slot] = competition.go_together(
        problem, row, problem.anchor[rows][row], record[row, slot], (slot == target[row]).astype(np.float32), share
    )
    return found


def alone(half: listing.Problem, seed: int, config: supervision.Config = DEFAULTS) -> supervision.Lessons:
    """The lists of a table against itself, of which none has a partner where the table says nothing twice."""
    candidates = listing.everything(half)
    relation = np.where(candidates.record >= 0, UNRELATED, UNKNOWN).astype(np.int32)
    count = len(half.anchor)
    belief = Belief(relation=relation, weight=np.ones(count, np.float32), planted=np.zeros(count, bool))
    return candidates, belief, np.random.default_rng([seed, count]).integers(0, config.folds, count).astype(np.int32)


def join(
    proposed: supervision.Lessons, single: Sequence[supervision.Lessons], sure: Sequence[np.ndarray]
) -> supervision.Lessons:
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
