"""What is believed without a label: the confident start, hidden matches, priors, and the fixed decision.

A host loop calls `init` once and then, each round, has a judge trained (`teaching`) and calls `update` with its
held-out logits, and the posteriors are what is believed of every pair. Nothing here reads gold. The shifted logits of
one round never enter the prior of the next.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import chex
import numpy as np
from flax import struct

from aco_jax import competition, mutual
from aco_jax.data import listing
from aco_jax.ops import calibration
from aco_jax.types import UNRELATED, Belief, Candidates

EMPTY_LOGIT = -30.0

Lessons = tuple[Candidates, Belief, np.ndarray]  # leaves [n, 1, K, ..], and the fold [n] of each


@struct.dataclass
class Checked:
    """How a judge does on the lists that were proposed, by its members that never saw them.

    temperature [] float32: by which its logits should be divided, 1 where it could be surer; seen, hidden [kinds]
    float32: mean probability of a partner, where one is believed and where it is hidden, nan where none is believed.
    """

    temperature: chex.Array
    seen: chex.Array
    hidden: chex.Array


@dataclass(frozen=True)
class Config:
    """What stands in for labels, the same for every data set."""

    relation: int = 1  # the relation sought: "same"
    folds: int = 2  # cross-fitting; a row's posterior comes from members that never saw it
    start: mutual.Config = dataclasses.field(default_factory=mutual.Config)
    again: float = 0.3  # share of each table's records that find a partner in their own, if all tables repeat theirs
    still: float = 0.05  # the same share of each, by a judge that was told who is alone there
    alike: float = 0.85  # a partner said again is at least so much as like it as the anchor is
    reworded: int = 2048  # lists whose anchors are said in other words, where a table repeats its records
    confident: float = 0.5  # posterior from which a pair is believed; its weight grows to 1 from there
    prior_steps: int = 100  # of EM
    apart: float = 0.05  # least difference that the scaled average is divided by
    prior_range: float = 0.02  # estimated shares stay this far from 0 and 1
    competing: competition.Config = dataclasses.field(default_factory=competition.Config)


ALL_MUTUAL = Config(start=mutual.ALL)  # under which all mutual best pairs are believed first, and all count


@struct.dataclass
class State:
    """What is believed now.

    target [R] int32: slot of the believed partner, -1 where none; weight [R] float32; fold [R] int32;
    posterior [P] float32: of each pair, both directions seen; prior [kinds] float32: share with a partner;
    several [kinds] float32: share of matched anchors that two partners or more claim; checked: of the last judge;
    temperature [] float32: what its logits were divided by at most; many [] bool: all tables repeat their records, see
    `self_training.repeating`; round int32.
    """

    target: chex.Array
    weight: chex.Array
    fold: chex.Array
    posterior: chex.Array
    prior: chex.Array
    several: chex.Array
    checked: Checked
    temperature: chex.Array
    many: chex.Array
    round: chex.Array
    seed: chex.Array


def init(problem: listing.Problem, seed: int, config: Config = Config()) -> State:
    """The confident start: what `mutual.find` believes, and the shares of records that are each other's best."""
    best = mutual.find(problem, config.start)
    prior = mutual.shares(problem, best.mutual)
    state = State(
        target=np.where(best.first, best.slot, -1).astype(np.int32),
        weight=best.first.astype(np.float32),
        fold=np.zeros(len(problem.anchor), np.int32),
        posterior=np.zeros(len(problem.pair), np.float32),
        prior=prior,
        several=np.zeros(len(prior), np.float32),
        checked=unchecked(len(prior)),
        temperature=np.float32(1),
        many=np.bool_(False),
        round=np.int32(0),
        seed=np.int32(seed),
    )
    return dataclasses.replace(state, fold=_folds(problem, state, config))


def partners(problem: listing.Problem, state: State, rows: np.ndarray, config: Config = Config()) -> np.ndarray:
    """[r, K] bool: the believed partners of lists `rows`; a list has several where its anchor has several."""
    place = problem.place[rows]
    likely = (place >= 0) & (np.asarray(state.posterior)[np.maximum(place, 0)] > config.confident)
    return likely | (np.arange(place.shape[1])[None] == np.asarray(state.target)[rows, None])


def unpartnered(
    half: listing.Problem, logits: np.ndarray, config: Config = Config(), *, many: bool = False
) -> np.ndarray:
    """How likely each list [R] of a table against itself has no partner, by a judge's held-out logits [R, K].

    How clean a table is, is estimated so and never assumed: its repeated records would else be learned as strangers.
    Unless records have `many` partners between tables, the likes of a record share what is sure here too: in its own
    table they are its family as often as its copies.
    """
    if not many:
        config = dataclasses.replace(config, competing=dataclasses.replace(config.competing, many=math.inf))
    state = update(half, init(half, 0, config), logits, config)
    likely = np.where(half.place >= 0, np.asarray(state.posterior)[np.maximum(half.place, 0)], 0.0)
    return (1 - likely.max(axis=1)).astype(np.float32)


def unchecked(kinds: int) -> Checked:
    """What is known of a judge that nobody has checked: nothing is changed by it."""
    return Checked(np.float32(1), np.full(kinds, np.nan, np.float32), np.full(kinds, np.nan, np.float32))


def carry_checked(checked: Checked, before: Sequence[str], after: Sequence[str]) -> Checked:
    """What is known of a judge that was checked between the tables `before`, by name, for the kinds of those `after`.

    Of two tables that it was not checked between nothing is known, but for the temperature.
    """
    known = {pair: kind for kind, pair in enumerate(itertools.permutations(before, 2))}
    place = np.array([known.get(pair, -1) for pair in itertools.permutations(after, 2)])
    seen, hidden = (np.append(each, np.float32(np.nan))[place] for each in (checked.seen, checked.hidden))
    return Checked(checked.temperature, seen, hidden)


def check(problem: listing.Problem, state: State, proposed: Lessons, logits: np.ndarray) -> Checked:
    """What the judge's held-out logits [2 n, K] of what was proposed say of the judge itself."""
    candidates, belief, _ = proposed
    logits = np.where(candidates.record[:, 0] >= 0, logits, -np.inf)
    weight = np.asarray(belief.weight, np.float64)
    temperature = max(1.0, calibration.choice_temperature(logits, belief.relation[:, 0] > UNRELATED, weight))
    matched = competition.null_softmax(logits / temperature).sum(axis=1).reshape(2, -1)
    kinds = int(problem.kind.max()) + 1
    mine = problem.kind[np.asarray(state.weight) > 0] == np.arange(kinds)[:, None]
    share = mine * weight[: mine.shape[1]]
    total = share.sum(axis=1)
    seen, hidden = (np.where(total > 0, share @ each / np.where(total > 0, total, 1), np.nan) for each in matched)
    return Checked(np.float32(temperature), seen.astype(np.float32), hidden.astype(np.float32))


def update(
    problem: listing.Problem,
    state: State,
    logits: np.ndarray,
    config: Config = Config(),
    *,
    checked: Checked | None = None,
    stating: bool = False,
    within: competition.Within | None = None,
) -> State:
    """New beliefs from a judge's held-out logits [R, K] (NULL at 0), trained half on hidden matches.

    Args:
        checked: of the judge, if it is not the one that `state` knows. Where few records of a table have partners
            in another, what is believed falsely and taught next soon is most of what is believed; there beliefs are by
            the judge's own temperature, and where few of any table have by a careful prior too.
        stating: whether the beliefs are those that are stated. There a further partner of one record must outweigh how
            rare it is and, where a table seldom repeats its records, be like the first. In learning there is none
            in such tables; in others it stands for itself, for the first judge knows one partner only, and would
            teach the next that there are no others.
        within: pairs of one table, where partners are many; see `competition.in_groups`.
    """
    there = problem.record >= 0
    logits = np.where(there, logits, EMPTY_LOGIT).astype(np.float32)
    prior, checked = estimate_prior(problem, logits, config), checked or state.checked
    few = (prior < config.start.few) & (not state.many)
    temperature = np.where(few, checked.temperature, 1)
    logits = np.where(there, logits / temperature[problem.kind][:, None], EMPTY_LOGIT)
    if few.all():
        prior = careful_prior(problem, logits, checked, prior, config)
    prior = of_the_smaller(problem, prior, _claimed(problem, logits, prior)[2], config)
    shift, shifted, several = _claimed(problem, logits, prior)
    posterior = competition.posteriors(problem, shifted, shift, several, config.competing, stating=stating)
    if within is not None:
        posterior = competition.in_groups(problem, posterior, within, config.competing)
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
        checked=checked,
        temperature=np.float32(temperature.max()),
        round=np.int32(int(state.round) + 1),
    )
    return dataclasses.replace(moved, fold=_folds(problem, moved, config))


def estimate_prior(problem: listing.Problem, logits: np.ndarray, config: Config = Config()) -> np.ndarray:
    """Share of anchors with a partner, for each ordered pair of tables: [kinds].

    Saerens, Latinne and Decaestecker 2002, by EM from the original posteriors, whose prior is a half.
    """
    matched = competition.null_softmax(logits).sum(axis=1)
    shares = []
    for kind in range(int(problem.kind.max()) + 1):
        mine = (problem.kind == kind).astype(np.float32)
        shares.append(float(calibration.em_prior(matched.astype(np.float32), mine > 0, 0.5, config.prior_steps)))
    return np.clip(np.array(shares), config.prior_range, 1 - config.prior_range)


def careful_prior(
    problem: listing.Problem, logits: np.ndarray, checked: Checked, prior: np.ndarray, config: Config = Config()
) -> np.ndarray:
    """[kinds]: by the scaled average, which takes off what the judge sees where nothing is to be found.

    `prior` stays of a kind of which nothing is believed, or where the judge sees as much as where there is a partner.
    """
    matched, found = competition.null_softmax(logits).sum(axis=1), prior.copy()
    for kind in np.flatnonzero(checked.seen - checked.hidden > config.apart):
        mean = matched[problem.kind == kind].mean()
        found[kind] = calibration.scaled_average(mean, checked.seen[kind], checked.hidden[kind])
    return np.clip(found, config.prior_range, 1 - config.prior_range)


def of_the_smaller(
    problem: listing.Problem, prior: np.ndarray, several: np.ndarray, config: Config = Config()
) -> np.ndarray:
    """[kinds]: `prior`, in a larger table at least what the smaller asks for, if few records have `several` partners.

    As many records of the one table have a partner then as of the other. In the larger, where most have none, a judge
    that is too careful loses them first.
    """
    lists, back = np.bincount(problem.kind), np.arange(len(prior))
    rows, slots = np.nonzero(problem.place >= 0)
    back[problem.kind[rows]] = problem.kind[problem.reverse[rows, slots]]
    asked = prior[back] * lists[back] / lists
    once = np.maximum(several, several[back]) < config.competing.several
    return np.where(once & (lists[back] < lists), np.maximum(prior, asked), prior)


def company(problem: listing.Problem, state: State, rows: np.ndarray) -> np.ndarray:
    """Who else goes with the anchors of lists `rows`: [r] the surest partner in a table not searched, -1 if none."""
    lists = np.full((problem.size, int(problem.table.max()) + 1), -1, np.int64)
    lists[problem.anchor, problem.table] = np.arange(len(problem.anchor))
    beside = lists[problem.anchor[rows]]
    beside[np.arange(len(rows)), problem.table[rows]] = -1
    sure = np.where(beside >= 0, np.asarray(state.weight)[beside], 0.0)
    best = beside[np.arange(len(rows)), sure.argmax(axis=1)]
    return np.where(sure.max(axis=1) > 0, problem.record[best, np.asarray(state.target)[best]], -1).astype(np.int32)


def _claimed(
    problem: listing.Problem, logits: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log odds of `prior` [kinds], logits [R, K] with them, and the multiplicity [kinds] of what these say."""
    shift = np.log(prior / (1 - prior))
    shifted = logits + shift[problem.kind][:, None]
    return shift, shifted, competition.multiplicity(problem, competition.null_softmax(shifted))


def _folds(problem: listing.Problem, state: State, config: Config) -> np.ndarray:
    """Both directions of a believed pair share a fold: else one direction would tell the other's answer.

    Lists [R] go with the record that has several partners, where there is one; where both records have several the two
    directions may fall apart, for what hangs together would be most of the table.
    """
    rng = np.random.default_rng([int(state.seed), int(state.round)])
    fold = rng.integers(0, config.folds, problem.size)
    rows, target = np.arange(len(problem.anchor)), np.asarray(state.target)
    slot = np.maximum(target, 0)
    partner, several = problem.record[rows, slot], partners(problem, state, rows, config).sum(axis=1) > 1
    theirs = several[problem.reverse[rows, slot]]
    key = np.where(several, problem.anchor, np.where(theirs, partner, np.minimum(problem.anchor, partner)))
    return fold[np.where(target >= 0, key, problem.anchor)].astype(np.int32)
