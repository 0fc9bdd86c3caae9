"""Answers with what a run has learned: relates the records of tables. Trains nothing.

Every list is walked by the actor, greedily, from both ends; a reading is computed only where the actor asks for it, in
waves. A pair is related where the two directions together make it likelier than not and the actor, if it came to it
from either end, did not turn it down.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import checkpoints, configuration, environment, learner, play, prepare, progress, replicas, supervision
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.agents import actor, ranker, reward
from aco_jax.data.records import Dataset, InputError, Pairs
from aco_jax.models import judge
from aco_jax.ops import states
from aco_jax.settings import TrainConfig, learner_config
from aco_jax.types import UNRELATED, Params

Row = tuple[str, str, str, str, str, float]  # ltable, ltable_id, rtable, rtable_id, relation, probability
COLUMNS = ("ltable", "ltable_id", "rtable", "rtable_id", "relation", "probability")
CHUNK = 512  # lists walked at once
SCORED = 4  # candidates of a list whose text the reward model reads
EXAMPLES = 8  # stated relations shown with their reasons
UNLIKELY = 1e-4  # probability of a pair that nobody retrieved


@dataclass(frozen=True)
class Walked:
    """What became of all lists."""

    record: np.ndarray  # [lists, L] int32
    decision: np.ndarray  # [lists, L] int32
    logit: np.ndarray  # [lists, L] float32, with the readings that the actor asked for
    revealed: np.ndarray  # [lists, L] bool
    tokens: int  # read


@dataclass(frozen=True)
class Judged:
    """All pairs that were compared, and what is thought of them."""

    posterior: np.ndarray  # [P] float32
    stated: np.ndarray  # [P] bool, by the actor from either end
    rejected: np.ndarray  # [P] bool, by the actor from either end, and stated from neither
    related: np.ndarray  # [P] bool


def relate(workdir: Path, dataset: Dataset, pairs: Pairs | None = None) -> list[Row]:
    """The relations found between the tables; with pairs, one row for each of them.

    A pair that does not relate is "unrelated" with the probability of that. Raises InputError where the workdir
    holds no finished run.
    """
    config, agents, desk, run = restore(workdir, dataset)
    return rows_of(desk, judged(agents, desk, run, walk(config, agents, desk, run)), pairs)


def finish(workdir: Path, dataset: Dataset) -> tuple[list[Row], dict[str, Any]]:
    """Relates the run's own tables: relations.csv, and into summary.json what is estimated without labels.

    Returns the rows and the summary.
    """
    start = time.monotonic()
    config, agents, desk, run = restore(workdir, dataset)
    walked = walk(config, agents, desk, run)
    found = judged(agents, desk, run, walked)
    rows = rows_of(desk, found, None)
    write_relations(workdir / "relations.csv", rows)
    path = workdir / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["seconds"]["relating"] = round(time.monotonic() - start, 1)
    summary["tokens"]["read by the actor"] = walked.tokens
    summary["counts"] |= {
        "candidates": int((walked.record >= 0).sum()),
        "candidates read": int(walked.revealed.sum()),
        "pairs stated": len(rows),
        "of them stated by the actor": int((found.stated & found.related).sum()),
        "turned down by the actor alone": int((found.rejected & (found.posterior > 0.5)).sum()),
    }
    name = dataset.relations[0].name
    summary["label_free"] = {"catalogue": estimate(found), name: estimate(found)}
    summary["examples"] = examples(agents, desk, run, rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES])
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return rows, summary


def estimate(found: Judged) -> dict[str, float]:
    """Precision, recall and F1 that the posteriors expect of the related pairs: for people, never a reward."""
    sure, all_ = float(found.posterior[found.related].sum()), float(found.posterior.sum())
    count = int(found.related.sum())
    return {
        "precision": sure / count if count else 0.0,
        "recall": sure / all_ if all_ else 0.0,
        "f1": 2 * sure / (count + all_) if count + all_ else 0.0,
    }


def restore(workdir: Path, dataset: Dataset) -> tuple[TrainConfig, learner.Config, desks.Desk, training.Run]:
    """The run of a workdir and a desk for these tables, the run's own or others."""
    config = configuration.read(workdir, TrainConfig)
    desk = training.open_desk(config, dataset, workdir)
    agents = learner_config(config, dataset, desk.tokenizer)
    run = training.start(config, agents, desk)
    found = checkpoints.restore(workdir / "checkpoints", run)
    if found is None:
        raise InputError(
            f"{workdir / 'checkpoints'}: nothing saved, expected a run that experiments/aco.py has finished"
        )
    return config, agents, desk, found[1]


def write_relations(path: Path, rows: Sequence[Row]) -> None:
    """relations.csv: one row a pair."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], f"{row[-1]:.4f}") for row in rows)


def walk(config: TrainConfig, agents: learner.Config, desk: desks.Desk, run: training.Run) -> Walked:
    """Lets the actor walk every list, its own query's answers in view with the likeliest candidates."""
    averaged = replicas.first(run.state.averaged)
    edges = replicas.first(run.state.edges)
    log_policy = learner.policy_table(averaged.params["actor"], agents)
    greedy = jnp.argmax(log_policy, axis=1).astype(jnp.int32)
    parts = []
    count = len(desk.problem.anchor)
    with progress.bar(count, "relating", unit="list") as bar:
        for start in range(0, count, CHUNK):
            # The last chunk is filled up with lists that are walked twice, so that nothing is compiled twice.
            rows = np.arange(start, start + CHUNK) % count
            part = _walk_chunk(config, agents, desk, run, averaged, edges, greedy, rows)
            kept = min(CHUNK, count - start)
            parts.append(tuple(x[:kept] for x in part))
            bar.update(kept)
    record, decision, logit, revealed, tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Walked(record, decision, logit, revealed, int(tokens.sum()))


def judged(agents: learner.Config, desk: desks.Desk, run: training.Run, walked: Walked) -> Judged:
    """The posterior of every compared pair from both directions, and which of them the actor states."""
    problem, params = desk.problem, replicas.first(run.state.averaged.params)["ranker"]
    everything = jax.tree.map(jnp.asarray, supervision.everything(problem))
    scores = ranker.member_scores(params, agents.ranker, everything, revealed=False)[..., 0]
    fold = jnp.asarray(_folds(run, len(problem.anchor)))
    logits = np.array(judge.held_out(scores, fold, agents.ranker.folds))[:, 0]
    # What was read counts as read, wherever the candidate stands in the list.
    same = (problem.record[:, :, None] == walked.record[:, None]) & (problem.record >= 0)[:, :, None]
    read = same & walked.revealed[:, None]
    logits = np.where(read.any(axis=2), (np.where(read, walked.logit[:, None], 0)).sum(axis=2), logits)
    posterior = np.asarray(supervision.update(problem, run.believed, logits).posterior)

    def pairs_where(chosen: np.ndarray) -> np.ndarray:
        named = (same & chosen[:, None]).any(axis=2) & (problem.place >= 0)
        found = np.zeros(len(problem.pair), bool)
        found[problem.place[named]] = True
        return found

    stated = pairs_where(walked.decision > UNRELATED)
    rejected = pairs_where(walked.decision == UNRELATED) & ~stated
    return Judged(posterior, stated, rejected, related=(posterior > 0.5) & ~rejected)


def rows_of(desk: desks.Desk, found: Judged, pairs: Pairs | None) -> list[Row]:
    """Rows of the related pairs, likeliest first; or of the pairs asked for, in their order."""
    problem, dataset = desk.problem, desk.dataset
    name = dataset.relations[0].name
    if pairs is None:
        chosen = np.flatnonzero(found.related)
        chosen = chosen[np.argsort(-found.posterior[chosen], kind="stable")]
        return [_row(dataset, problem.pair[i, 0], problem.pair[i, 1], name, float(found.posterior[i])) for i in chosen]
    place = {(int(left), int(right)): i for i, (left, right) in enumerate(problem.pair)}
    rows = []
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        i = place.get((min(left, right), max(left, right)))
        p = UNLIKELY if i is None else float(found.posterior[i])
        is_related = i is not None and bool(found.related[i])
        rows.append(_row(dataset, left, right, name if is_related else "unrelated", p if is_related else 1 - p))
    return rows


def examples(agents: learner.Config, desk: desks.Desk, run: training.Run, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Some stated relations with the actor's reason for each, as the report shows them."""
    if not rows:
        return []
    dataset, params = desk.dataset, replicas.first(run.state.averaged.params)["actor"]
    left = np.array([dataset.index[row[0], row[1]] for row in rows])
    right = np.array([dataset.index[row[2], row[3]] for row in rows])
    source = actor.reason_source(
        agents.actor, jnp.zeros(len(rows), jnp.int32), jnp.asarray(desk.texts[left]), jnp.asarray(desk.texts[right])
    )
    reasons, _ = actor.give_reason(params, agents.actor, source, jax.random.key(0), temperature=0.0)
    return [
        {
            "left": dataset.text(int(a)),
            "right": dataset.text(int(b)),
            "relation": row[4],
            "probability": row[5],
            "reason": desk.tokenizer.decode(np.asarray(reason)),
        }
        for a, b, row, reason in zip(left, right, rows, reasons, strict=True)
    ]


def _walk_chunk(
    config: TrainConfig,
    agents: learner.Config,
    desk: desks.Desk,
    run: training.Run,
    averaged: learner.Averaged,
    edges: states.Edges,
    greedy: jax.Array,
    rows: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """record, decision, logit, revealed [n, L] and tokens [n] of lists `rows`."""
    still = dataclasses.replace(config, train=dataclasses.replace(config.train, temperature=0.0))
    params, anchors = averaged.params, desks.standing(desk, rows)
    batch, *_ = prepare.answers(desk, still, agents, params, run.believed, anchors, jax.random.key(0))
    batch = dataclasses.replace(batch, fold=_folds(run, len(desk.problem.anchor))[rows])
    prior = np.asarray(run.believed.prior)[desk.problem.kind[rows]]
    shift, texts = np.log(prior / (1 - prior)).astype(np.float32), jnp.asarray(desk.texts)
    ready = np.zeros(batch.candidates.record.shape, bool)
    final = None
    while True:
        problem, logit = _pose(averaged, agents, texts, batch, jnp.asarray(shift), jnp.asarray(ready))
        final, who, where = _walk(agents.environment, edges, problem, greedy, final)
        waiting = np.flatnonzero(np.asarray(who))
        if len(waiting) == 0:
            break
        batch, ready = _reveal(desk, agents, params, batch, ready, waiting, np.asarray(where)[waiting])
    found = (problem.record, final.decision, logit, final.revealed, final.tokens)
    return tuple(np.asarray(x) for x in found)


def _reveal(
    desk: desks.Desk,
    agents: learner.Config,
    params: dict[str, Params],
    batch: play.Batch,
    ready: np.ndarray,
    waiting: np.ndarray,
    where: np.ndarray,
) -> tuple[play.Batch, np.ndarray]:
    """Computes the readings that anchors `waiting` want of their candidates `where` in [0, L)."""
    row, slot = np.divmod(where, ready.shape[2])
    reading, ready = np.array(batch.candidates.reading), ready.copy()
    record = batch.candidates.record[waiting, row, slot]
    reading[waiting, row, slot] = prepare.readings(desk, agents, params["ranker"]["reader"], batch, waiting, record)
    ready[waiting, row, slot] = True
    return dataclasses.replace(batch, candidates=dataclasses.replace(batch.candidates, reading=reading)), ready


@partial(jax.jit, static_argnames="agents")
def _pose(
    averaged: learner.Averaged,
    agents: learner.Config,
    texts: jax.Array,
    batch: play.Batch,
    shift: jax.Array,
    ready: jax.Array,
) -> tuple[environment.Problem, jax.Array]:
    """The walks of n lists, and the logits [n, L] with the readings there are, before any shift."""
    params, key = averaged.params, jax.random.key(0)
    shift = shift[:, None, None, None]
    ranked = play.rank(params["ranker"], agents.ranker, batch, key, 0.0, shift)
    value, spread = _rewards(averaged, agents, texts, batch, ranked)
    problem = dataclasses.replace(play.problems(batch, ranked, value, spread), ready=play.flat(ready))
    return problem, ranked.score[..., 0] - shift[:, 0, 0]


def _rewards(
    averaged: learner.Averaged, agents: learner.Config, texts: jax.Array, batch: play.Batch, ranked: play.Ranked
) -> tuple[jax.Array, jax.Array]:
    """Reward and spread [n, L, Y]: the text of the likeliest SCORED candidates is read, others get the least of it."""
    blind = jnp.where(play.flat(batch.candidates.record >= 0), jnp.max(ranked.blind, axis=-1), -1.0)
    best = jax.lax.top_k(blind, SCORED)[1]

    def pick(x: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(play.flat(x), best.reshape(*best.shape, *(1,) * (x.ndim - 3)), axis=1)
        return chosen[:, None]

    few = dataclasses.replace(batch, candidates=jax.tree.map(pick, batch.candidates))
    every = play.all_preferences(agents.base.special, few, texts, agents.reward.relations)
    score = partial(reward.score, averaged.params["reward"], agents.reward, scale=averaged.scale, key=None)
    value, spread = jax.vmap(lambda one: score(batch=one))(every)
    place = best[:, :, None] == jnp.arange(blind.shape[1])[None, None]

    def spread_out(x: jax.Array) -> jax.Array:
        known = jnp.einsum("nsl,nsy->nly", place.astype(x.dtype), x)
        return jnp.where(place.any(axis=1)[..., None], known, jnp.min(x, axis=1, keepdims=True))

    return spread_out(value), spread_out(spread)


@partial(jax.jit, static_argnames="config")
def _walk(
    config: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
    greedy: jax.Array,
    final: environment.EnvState | None,
) -> tuple[environment.EnvState, jax.Array, jax.Array]:
    """Walks on from `final`: where each list stands, whether it waits for a reading, and of which candidate."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return greedy[state], jnp.ones(state.shape)

    episode = environment.play(config, edges, problem, policy, jax.random.key(0), final)
    place, present = jax.vmap(environment.current)(problem, episode.final)
    seen = jax.vmap(partial(environment.observe, config, edges))(problem, episode.final)
    read = config.actions[1]
    unread = ~jnp.take_along_axis(problem.ready, place[:, None], axis=1)[:, 0]
    over = jax.vmap(partial(environment.over, config))(episode.final)
    return episode.final, present & unread & ~over & (greedy[seen.state] == read), place


def _folds(run: training.Run, lists: int) -> np.ndarray:
    """The folds of cross-fitting; on other tables than the run's own every member may speak."""
    fold = np.asarray(run.believed.fold)
    return fold if len(fold) == lists else np.full(lists, -1, np.int32)


def _row(dataset: Dataset, left: int | np.integer, right: int | np.integer, relation: str, probability: float) -> Row:
    return (*dataset.key(int(left)), *dataset.key(int(right)), relation, probability)
