"""Self-training of the judge: what is believed teaches it, and what it says of lists it never saw is believed next.

On the host, before the agents' rounds; nothing here reads gold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import competition, progress, supervision, teaching
from aco_jax.data import descriptions, listing
from aco_jax.data.records import Dataset
from aco_jax.models import judge
from aco_jax.types import Params

ROUNDS = 4  # more decay
DEFAULTS = supervision.Config()


class Trained(NamedTuple):
    """The judge, what is believed, its held-out logits [R, K], and what there is to report."""

    params: Params
    believed: supervision.State
    logits: np.ndarray
    metrics: dict[str, float]


class _Taught(NamedTuple):
    params: Params
    logits: np.ndarray
    checked: supervision.Checked
    loss: float


def run(
    dataset: Dataset,
    index: descriptions.Index,
    problem: listing.Problem,
    halves: Sequence[listing.Problem],
    settings: judge.Config,
    believed: supervision.State,
    logits: np.ndarray,
    seed: int,
    rounds: int = ROUNDS,
) -> Trained:
    """Some rounds from what is believed first.

    Where mutual best pairs are few a judge is tried on all of them, and says whether partners are few or so many that
    the best is seldom mutual; a second one, told besides who is alone in its own table, has to bear that out. Then all
    are believed first.

    Args:
        dataset, index: what the lists are about; see `teaching.reword` and `within`.
        halves: each table against itself.
        logits: [R, K] what is said where nothing is believed, of which nothing can be learned.

    Returns:
        What was trained; the folds of what is believed are those that the judge was trained with.
    """
    evidence = jnp.asarray(listing.everything(problem).evidence[:, 0])
    single = [teaching.alone(half, seed) for half in halves]

    def of_themselves(params: Params) -> list[np.ndarray]:
        return [_judged(params, settings, lists.evidence[:, 0], fold) for lists, _, fold in single]

    def taught(
        believed: supervision.State, proposed: supervision.Lessons, lessons: supervision.Lessons, number: int
    ) -> _Taught:
        params = judge.init(jax.random.fold_in(jax.random.key(seed), number), settings)
        params, found = judge.fit(params, settings, *lessons, seed * ROUNDS + number)
        said = judge.judged_lists(params, settings, proposed[0].evidence[:, 0], proposed[2])[..., 0]
        checked = supervision.check(problem, believed, proposed, said)
        return _Taught(params, _judged(params, settings, evidence, believed.fold), checked, float(found["judge_loss"]))

    def repeated(every: supervision.State) -> bool:
        proposed = teaching.propose(problem, every)
        judge_of_all = taught(every, proposed, proposed, 0)
        tried = supervision.update(
            problem, every, judge_of_all.logits, supervision.ALL_MUTUAL, checked=judge_of_all.checked
        )
        said = of_themselves(judge_of_all.params)
        if not repeating(tried, halves, said):
            return False
        # What is alike may deceive it in all tables: who is alone in its own one has to be told.
        sure = [supervision.unpartnered(half, logits, many=True) for half, logits in zip(halves, said, strict=True)]
        told = taught(every, proposed, teaching.join(proposed, single, sure), 0)
        return still_repeating(halves, of_themselves(told.params))

    if rounds and seldom_mutual(believed):
        every = supervision.init(problem, seed, supervision.ALL_MUTUAL)
        if repeated(every):
            believed = dataclasses.replace(every, many=np.bool_(True))
    params, kept, metrics = judge.init(jax.random.key(seed), settings), believed.fold, {}
    for number in progress.through(range(rounds), "judging", "round"):
        if not np.any(believed.weight):
            break  # nothing to learn from
        lessons = proposed = teaching.propose(problem, believed)
        if number:  # a judge must say first who is repeated
            many = many_partners(believed)
            said = zip(halves, of_themselves(params), strict=True)
            sure = [supervision.unpartnered(half, logits, many=many) for half, logits in said]
            lessons = teaching.join(lessons, single, sure)
        if repeats(believed):
            reworded = teaching.reword(problem, dataset, index, believed)
            lessons = jax.tree.map(lambda *parts: np.concatenate(parts), lessons, reworded)
        kept = believed.fold
        params, logits, checked, loss = taught(believed, proposed, lessons, number)
        last = number == rounds - 1
        believed = supervision.update(problem, believed, logits, checked=checked, stating=last)
        if last and (own := within(dataset, index, problem, believed, params, settings)):
            believed = supervision.update(problem, believed, logits, stating=True, within=own)
        metrics = {"ranker/judge_loss": loss, "data/believed": float((believed.weight > 0).mean())}
    # What it says of a list must come from who never saw it.
    return Trained(params, dataclasses.replace(believed, fold=kept), logits, metrics)


def within(
    dataset: Dataset,
    index: descriptions.Index,
    problem: listing.Problem,
    state: supervision.State,
    params: Params,
    settings: judge.Config,
    config: supervision.Config = DEFAULTS,
) -> competition.Within | None:
    """What the judge says of pairs of one table, where records have many partners; None where they have not.

    Only records are compared that share a partner which is possible, by what is believed.
    """
    if not many_partners(state, config):
        return None
    likely = problem.pair[np.asarray(state.posterior) > config.competing.shared]
    partners = np.bincount(likely.ravel(), minlength=problem.size)
    sharing = np.zeros(problem.size, bool)
    for one, other in (likely.T, likely.T[::-1]):
        sharing[one[partners[other] > 1]] = True
    codes, logits = [np.zeros(0, np.int64)], [np.zeros(0)]
    for first, end in progress.through(list(pairwise(dataset.offsets.tolist())), "grouping", "table"):
        records = first + np.flatnonzero(sharing[first:end])
        lists = listing.within(dataset, index, problem, records)
        if lists is None:
            continue
        seen = listing.everything(lists).evidence[:, 0]
        said = judge.judged_lists(params, settings, seen, np.full(len(seen), config.folds))[..., 0]
        known = lists.place >= 0
        pair = np.sort(np.tile(records, 2)[lists.pair], axis=1).astype(np.int64)
        codes.append((pair[:, 0] * problem.size + pair[:, 1])[lists.place[known]])
        logits.append(said[known].astype(np.float64))
    code, number = np.unique(np.concatenate(codes), return_inverse=True)
    mean = np.bincount(number, np.concatenate(logits)) / np.bincount(number)
    pair = np.stack([code // problem.size, code % problem.size], axis=1).astype(np.int32)
    return competition.Within(pair, 1 / (1 + np.exp(-mean)))


def said_again(halves: Sequence[listing.Problem], params: Params, settings: judge.Config, seed: int) -> float:
    """Share of the records that find a partner in a random half of their own table, by the judge.

    A control of what is found between tables: where a table says nothing twice, whoever finds a partner in it is
    deceived by what is alike, and would be by as much of any other table.

    Args:
        halves, seed: each table against itself, and the seed, as the judge was trained with them.
    """
    found = [np.zeros(0, bool)]
    for half in halves:
        lists, _, fold = teaching.alone(half, seed)
        said = _judged(params, settings, lists.evidence[:, 0], fold)
        found.append(supervision.unpartnered(half, said) < 0.5)
    every = np.concatenate(found)
    return float(every.mean()) if len(every) else 0.0


def seldom_mutual(state: supervision.State, config: supervision.Config = DEFAULTS) -> bool:
    """Whether less than `few` of the records are in mutual best pairs, of what is believed first."""
    return bool(np.mean(state.prior) < config.start.few)


def repeating(
    tried: supervision.State,
    halves: Sequence[listing.Problem],
    logits: Sequence[np.ndarray],
    config: supervision.Config = DEFAULTS,
) -> bool:
    """Whether all tables say their records several times, by a judge that was tried on all mutual best pairs.

    Each other's best are few where few records have a partner, but also where records have so many that the best one
    likes another better. Then records are claimed by several, and of every table most find partners, or many do in
    their own.

    Args:
        tried: what is believed by that judge.
        halves: each table against itself; logits: what the judge says of their lists, [R, K] each.
    """
    found = np.min(tried.prior) >= config.start.few or min(_own(halves, logits, config), default=0.0) >= config.again
    return bool(found and np.mean(tried.several) >= config.competing.many)


def still_repeating(
    halves: Sequence[listing.Problem], logits: Sequence[np.ndarray], config: supervision.Config = DEFAULTS
) -> bool:
    """Whether records of all tables find partners in their own one, by a judge that was told who is alone there.

    Where many records share a name, or a town, a judge that was taught strangers takes all of them for partners, in
    every table; it need only be told once to find none in their own.
    """
    return min(_own(halves, logits, config), default=1.0) >= config.still


def repeats(state: supervision.State, config: supervision.Config = DEFAULTS) -> bool:
    """Whether a table says its records several times, by what is believed."""
    return bool(state.many or np.max(state.several) >= config.competing.several)


def many_partners(state: supervision.State, config: supervision.Config = DEFAULTS) -> bool:
    """Whether records of all tables have many partners, by what is believed."""
    return bool(state.many or np.min(state.several) >= config.competing.many)


def _own(halves: Sequence[listing.Problem], logits: Sequence[np.ndarray], config: supervision.Config) -> list[float]:
    """Of each table against itself the share of records with a partner there, by a judge's logits [R, K]."""
    held = [
        np.where(half.record >= 0, said, supervision.EMPTY_LOGIT).astype(np.float32)
        for half, said in zip(halves, logits, strict=True)
    ]
    return [float(supervision.estimate_prior(*each, config).mean()) for each in zip(halves, held, strict=True)]


def _judged(params: Params, settings: judge.Config, evidence: chex.Array, fold: chex.Array) -> np.ndarray:
    """[n, K]: logits of lists whose evidence is [n, K, F], by the members that never saw them."""
    return np.asarray(judge.judged(params, settings, evidence, fold))[..., 0]
