"""How pairs of records compete: one probability a pair, from what a judge says of the lists of both its records.

Pairs compete for both their records, table by table; where there is a third, pairs of three records that go together
bring one another (`ops.matching`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aco_jax.data import listing
from aco_jax.ops import matching

ALIKE = 1e-5  # of rounding


@dataclass(frozen=True)
class Config:
    """When a record may have several partners, and how three tables agree; the same for every data set."""

    several: float = 0.1  # share of matched records with two partners or more that makes it several
    many: float = 0.2  # the same share, in both tables, that makes them many
    turns: int = 7  # of competing and of agreeing over three tables
    violation: float = 0.05  # prior weight of two pairs of three records without the third
    possible: float = 1e-3  # probability from which a pair is looked at with a third record
    shared: float = 0.05  # the same where partners are many


class Within(NamedTuple):
    """Pairs of records of one table [Q, 2], lower record first, and how likely each says the same thing twice [Q]."""

    pair: np.ndarray
    probability: np.ndarray


class Rivals(NamedTuple):
    """The pairs of two tables as they compete: their numbers [n], their logits [n], and for the left records and the
    right ones the weight of a further partner and which pairs [n] may be there together."""

    inside: np.ndarray
    logit: np.ndarray
    further: tuple[float, float]
    together: tuple[np.ndarray | bool, np.ndarray | bool]


def posteriors(
    problem: listing.Problem,
    logits: np.ndarray,
    shift: np.ndarray,
    several: np.ndarray,
    config: Config = Config(),
    *,
    stating: bool = False,
) -> np.ndarray:
    """[P] float32: one probability a pair, by competing and agreeing in turns.

    Args:
      logits: [R, K] of the lists, the prior log odds `shift` [kinds] that an anchor has a partner among them.
      several: [kinds] the `multiplicity` of what the lists say.
      stating: see `supervision.update`.
    """
    alike = multiplicity(problem, null_softmax(logits), alike=True) if stating else None
    compared = (problem.direction > 0) & (problem.place >= 0).any(axis=1)  # two tables may have nothing in common
    found = [
        _between(problem, logits, shift, several, alike, config, kind) for kind in np.unique(problem.kind[compared])
    ]
    count = len(problem.pair)

    def compete(brought: np.ndarray) -> np.ndarray:
        posterior = np.zeros(count)
        for rivals in found:
            pair, logit = problem.pair[rivals.inside], rivals.logit + brought[rivals.inside]
            posterior[rivals.inside] = matching.marginals(pair, logit, problem.size, rivals.further, rivals.together)
        return posterior

    posterior = compete(np.zeros(count))
    if len(found) > 1:
        threes, _ = matching.corners(problem.pair, posterior > config.possible)
        message = np.zeros(threes.shape)
        for _ in range(config.turns):
            message = (message + matching.agreement(posterior[threes], message, config.violation)) / 2
            posterior = compete(np.bincount(threes.ravel(), message.ravel(), count))
    return posterior.astype(np.float32)


def in_groups(problem: listing.Problem, posterior: np.ndarray, within: Within, config: Config = Config()) -> np.ndarray:
    """[P] float32: pairs where records have many partners, between each by itself and what groups make of them.

    There no pair competes with another, unless a table says that their records in it are two different things: pairs of
    one table tell, beside those of two, which records form a group. Groups are as sure of their errors as of the rest,
    so that what a pair is believed at is the mean of both.
    """
    pairs, each = np.concatenate([problem.pair, within.pair]), np.concatenate([posterior, within.probability])
    together = matching.grouped(pairs, each, config.violation, config.turns, config.shared)[: len(posterior)]
    return ((posterior + together) / 2).astype(np.float32)


def multiplicity(problem: listing.Problem, p: np.ndarray, *, alike: bool = False) -> np.ndarray:
    """[kinds]: of the records that others claim (p [R, K] over a half), the share claimed by two or more.

    Kind (i, j) is about records of table i, claimed by anchors of table j: each anchor claims one at most. `alike`
    counts those claims only that `go_together`.
    """
    rows, slots = np.nonzero((p > 0.5) & (problem.record >= 0))
    back = problem.reverse[rows, slots]
    if alike:
        kept = go_together(problem, back, problem.anchor[back], problem.anchor[rows], p[rows, slots])
        back = back[kept]
    claims = np.bincount(back, minlength=len(problem.anchor))
    return np.array(
        [
            np.sum(claims[problem.kind == kind] >= 2) / max(1, np.sum(claims[problem.kind == kind] >= 1))
            for kind in range(int(problem.kind.max()) + 1)
        ]
    )


def go_together(
    problem: listing.Problem,
    group: np.ndarray,
    record: np.ndarray,
    partner: np.ndarray,
    strength: np.ndarray,
    share: float = 1.0,
) -> np.ndarray:
    """[n] bool: the surest partner of each group, and those that may be further ones of the same record.

    A record that its own table says twice is at least as like its copy as like a record of another table. So a further
    partner must be as like the surest one as that is like their record, or `share` of it, by text and title.
    """
    order, surest = np.argsort(strength, kind="stable"), np.zeros(group.max(initial=-1) + 1, np.int64)
    surest[group[order]] = order
    first = partner[surest[group]]
    own, other = listing.likeness(problem, partner, first), listing.likeness(problem, record, first)
    return (partner == first) | (own >= share * other - ALIKE)


def _between(
    problem: listing.Problem,
    logits: np.ndarray,
    shift: np.ndarray,
    several: np.ndarray,
    alike: np.ndarray | None,
    config: Config,
    kind: int,
) -> Rivals:
    """The pairs of two tables that compete.

    Where records of one table alone have several partners, the other table's lists tell: in a list with two partners
    each has half of what is sure. Where records of both have, a pair is as likely as its two lists say on
    average; where they have many, each pair stands for itself, for a list shares what is sure among all partners.
    Logits hold the prior log odds `shift` [kinds] that an anchor has a partner.
    """
    known = problem.place >= 0
    ours = known & (problem.kind == kind)[:, None]
    sides = (kind, problem.kind[problem.reverse[ours][0]])
    theirs = known & (problem.kind == sides[1])[:, None]
    many = [bool(several[side] >= config.several) for side in sides]
    telling = ours | theirs if many[0] == many[1] else theirs if many[0] else ours
    inside, number = np.unique(problem.place[telling], return_inverse=True)
    logit = np.bincount(number, logits[telling]) / np.bincount(number)
    if all(many):
        if min(several[side] for side in sides) < config.many:
            average = np.clip(np.bincount(number, null_softmax(logits)[telling]) / 2, 1e-6, 1 - 1e-6)
            logit = np.log(average / (1 - average))
        return Rivals(inside, logit, (matching.MOST, matching.MOST), (True, True))
    odds = float(np.exp(shift[list(sides)].mean()))

    def further(side: int, more: bool) -> float:
        if alike is None:
            return matching.MOST if more else matching.LEAST
        return matching.further_weight(float((several if more else alike)[side]), odds)

    def together(side: int, more: bool) -> np.ndarray | bool:
        if more or alike is None:
            return True
        kept, found = np.flatnonzero(logit > np.log(config.possible)), np.zeros(len(logit), bool)
        record, partner = problem.pair[inside[kept]].T[:: 1 - 2 * side]
        found[kept] = go_together(problem, record, record, partner, logit[kept])
        return found

    return Rivals(
        inside,
        logit,
        (further(sides[0], many[0]), further(sides[1], many[1])),
        (together(0, many[0]), together(1, many[1])),
    )


def null_softmax(logits: np.ndarray) -> np.ndarray:
    """[R, K] -> [R, K]: softmax beside NULL at 0."""
    top = np.maximum(logits.max(axis=1, keepdims=True), 0)
    value = np.exp(logits - top)
    return value / (value.sum(axis=1, keepdims=True) + np.exp(-top))
