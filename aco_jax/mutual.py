"""Which pairs are believed first: of the records that are each other's best those that nothing speaks against.

Whom no partner is like has a best one too, and what is believed falsely here is what self-training goes on believing.
Nothing here is learned by gradient, and nothing reads gold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aco_jax.data import evidence, listing

SHARES = (0.75, 0.5, 0.25)  # that part mutual best pairs into bands, by how alike they are
BESIDE_TEXT = (*evidence.ATTRIBUTES, *evidence.AMOUNTS)  # evidence that is little of what makes a pair the best
RIDGE = 1e-3  # added to the variances of that evidence


@dataclass(frozen=True)
class Config:
    """The same for every data set."""

    few: float = 0.5  # partners are few where less than this share of the records has one
    first: float = 0.25  # share of the mutual best pairs that is believed first where they are few: the most alike
    least_first: int = 20  # of them, where there are as many
    telling: float = 1.5  # numbers tell if best pairs are this much more often less contradictory than the second best
    agreeing: float = 0.5  # a band with surely less than this share of partners is not believed first


ALL = Config(few=0.0, agreeing=-math.inf)  # under which all are believed first but those that contradict themselves


class Best(NamedTuple):
    """Of R lists: the slot [R] of the best candidate, which of them [R] bool are mutual, which are believed first."""

    slot: np.ndarray
    mutual: np.ndarray
    first: np.ndarray


def find(problem: listing.Problem, config: Config = Config()) -> Best:
    """Pairs whose records are each other's best by text and title.

    The best one of a record without a partner is often the same thing in another size or colour: a pair whose codes or
    numbers contradict each other more than is usual is not believed first, if they tell anything of these tables; where
    partners are few only the most alike are, and elsewhere those that agree beside their text.
    """
    rows = np.arange(len(problem.anchor))
    slot = problem.score.argmax(axis=1)
    back = problem.reverse[rows, slot]
    returned = problem.record[back, problem.score[back].argmax(axis=1)]
    mutual = (problem.score.max(axis=1) > 0) & (returned == problem.anchor) & (problem.record[rows, slot] >= 0)
    kinds = [mutual & (problem.kind == kind) for kind in range(int(problem.kind.max()) + 1)]
    validity = problem.validity[np.maximum(problem.place[rows, slot], 0)]
    usual = np.median(validity[mutual]) if mutual.any() and _numbers_tell(problem, mutual, config) else 0.0
    first = mutual & (validity >= usual)
    alike = problem.score.max(axis=1) + validity
    if np.mean(shares(problem, mutual)) >= config.few:
        return Best(slot, mutual, first & _agreeing(problem, kinds, alike, config))
    for mine in kinds:
        share = max(config.first, config.least_first / max(1, mine.sum()))
        first[mine] = alike[mine] >= (np.quantile(alike[mine], max(0.0, 1 - share)) if mine.any() else 0.0)
    return Best(slot, mutual, first)


def shares(problem: listing.Problem, chosen: np.ndarray) -> np.ndarray:
    """[kinds] float32: the share of the lists of each kind that is `chosen` [R]."""
    kinds = range(int(problem.kind.max()) + 1)
    return np.array([chosen[problem.kind == kind].mean() for kind in kinds], np.float32)


def _numbers_tell(problem: listing.Problem, mutual: np.ndarray, config: Config) -> bool:
    """Whether the best pairs of lists `mutual` [R] contradict each other less often than the second best ones do."""
    _, places = _two_best(problem, mutual)
    best, second = problem.validity[places].T
    return bool(np.sum(best > second) >= config.telling * np.sum(best < second))


def _agreeing(problem: listing.Problem, kinds: list[np.ndarray], alike: np.ndarray, config: Config) -> np.ndarray:
    """[R] bool: lists whose mutual best pairs agree beside their text, so far as that tells, band by band.

    Pairs that are less `alike` [R] may be partners put in other words or strangers who share half of a title. What they
    say beside it is evidence of its own: there a band of them lies between the second best candidates, who are
    strangers, and the band most alike, as far as its share of partners is. Fisher's discriminant is fitted to each half
    of the pairs and read in the other.
    """
    band = np.zeros(len(alike), np.int64)
    for mine in kinds:
        if mine.any():  # the same pairs as from the other table, which fall into the same bands
            band[mine] = np.searchsorted(-np.quantile(alike[mine], SHARES), -alike[mine])
    lists, places = _two_best(problem, np.any(kinds, axis=0))
    said = np.moveaxis(problem.facts[places][..., BESIDE_TEXT].astype(np.float64), 1, 0)
    half, group, told = places[:, 0] % 2, band[lists], np.zeros(said.shape[:2])
    for other in (0, 1):
        partners, strangers = said[0, (half == other) & (group == 0)], said[1, half == other]
        if len(partners) < config.least_first:
            return np.ones(len(alike), bool)
        within = (np.cov(partners.T) + np.cov(strangers.T)) / 2 + RIDGE * np.eye(len(BESIDE_TEXT))
        weight = np.linalg.solve(within, partners.mean(axis=0) - strangers.mean(axis=0))
        told[:, half != other] = said[:, half != other] @ weight
    best, strange = told[0], told[1].mean()
    apart, doubted = best[group == 0].mean() - strange, []
    for number in np.unique(group[group > 0]) if apart > 0 else ():
        mine = best[group == number]
        at_most = mine.mean() - strange + 2 * mine.std() / math.sqrt(len(mine))
        if at_most < config.agreeing * apart:
            doubted.append(number)
    return ~np.isin(band, doubted)


def _two_best(problem: listing.Problem, mutual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the lists `mutual` [R] that have two candidates [n], and the numbers of their two best pairs [n, 2]."""
    lists = np.flatnonzero(mutual & ((problem.record >= 0).sum(axis=1) > 1))
    order = np.argsort(-problem.score[lists], axis=1, kind="stable")[:, :2]
    return lists, np.take_along_axis(problem.place[lists], order, axis=1)
