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
from aco_jax.agents import ranker, reward
from aco_jax.data.records import Dataset, InputError, Pairs
from aco_jax.models import judge
from aco_jax.ops import states
from aco_jax.settings import TrainConfig, learner_config
from aco_jax.types import UNRELATED, Candidates, Params

Row = tuple[str, str, str, str, str, float]  # ltable, ltable_id, rtable, rtable_id, relation, probability
COLUMNS = ("ltable", "ltable_id", "rtable", "rtable_id", "relation", "probability")
CHUNK = 256  # lists walked at once
EXAMPLES = 8  # stated relations shown with their reasons
_NOTHING, _READING, _ROWS = 0, 1, 2  # what a list waits for
KEPT = "judged.npz"  # what was found of the run's own tables
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

    pair: np.ndarray  # [P, 2] int32 records
    posterior: np.ndarray  # [P] float32
    stated: np.ndarray  # [P] bool, by the actor from either end
    rejected: np.ndarray  # [P] bool, by the actor from either end, and stated from neither
    related: np.ndarray  # [P] bool


def relate(workdir: Path, dataset: Dataset, pairs: Pairs | None = None) -> list[Row]:
    """The relations found between the tables; with pairs, one row for each of them.

    A pair that does not relate is "unrelated" with the probability of that. Raises InputError where the workdir
    holds no finished run.
    """
    kept = _kept(workdir, dataset)
    if kept is None:
        config, agents, desk, run = restore(workdir, dataset)
        kept = judged(agents, desk, run, walk(config, agents, desk, run) if config.train.rounds else None)
    return rows_of(dataset, kept, pairs)


def finish(workdir: Path, dataset: Dataset) -> tuple[list[Row], dict[str, Any]]:
    """Relates the run's own tables: relations.csv, and into summary.json what is estimated without labels.

    Returns the rows and the summary.
    """
    start = time.monotonic()
    config, agents, desk, run = restore(workdir, dataset)
    walked = walk(config, agents, desk, run) if config.train.rounds else None
    found = judged(agents, desk, run, walked)
    rows = rows_of(dataset, found, None)
    write_relations(workdir / "relations.csv", rows)
    np.savez(workdir / KEPT, fingerprint=np.array(dataset.fingerprint), **dataclasses.asdict(found))
    path = workdir / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["seconds"]["relating"] = round(time.monotonic() - start, 1)
    if walked is not None:
        summary["tokens"]["read by the actor"] = walked.tokens
        summary["counts"] |= {
            "candidates": int((walked.record >= 0).sum()),
            "candidates read": int(walked.revealed.sum()),
        }
    summary["counts"] |= {
        "pairs stated": len(rows),
        "of them stated by the actor": int((found.stated & found.related).sum()),
        "turned down by the actor alone": int((found.rejected & (found.posterior > 0.5)).sum()),
    }
    name = dataset.relations[0].name
    summary["label_free"] = {"catalogue": estimate(found), name: estimate(found)}
    if walked is not None and not walked.revealed.any():
        summary["notes"].append("No reading was asked for when the tables were related: none was worth its price.")
    shown = rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES] if walked is not None else []
    summary["examples"] = examples(config, agents, desk, run, shown)
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
    """The run of a workdir and a desk for these tables, the run's own or others.

    Of others the judge says what is believed, as it was fitted; the run's own tables must still be there.
    """
    config = configuration.read(workdir, TrainConfig)
    if not (workdir / "summary.json").is_file():
        raise InputError(f"{workdir}: not finished, expected a run that experiments/aco.py has finished")
    own = configuration.load(config.data, workdir, config.seed)
    desk = training.open_desk(config, own, workdir)
    agents = learner_config(config, own, desk.tokenizer)
    found = checkpoints.restore(workdir / "checkpoints", training.start(config, agents, desk))
    if found is None:
        raise InputError(f"{workdir / 'checkpoints'}: nothing saved, expected those of a finished run")
    run = found[1]
    if own.fingerprint == dataset.fingerprint:
        return config, agents, desk, run
    other = training.open_desk(config, dataset, workdir)
    agents = learner_config(config, dataset, desk.tokenizer)
    run, _ = training.judge_again(config, agents, other, training.carry_folds(desk, run.believed.fold, other), run)
    return config, agents, other, run


def _kept(workdir: Path, dataset: Dataset) -> Judged | None:
    """What `finish` found of these very tables, if it did."""
    path = workdir / KEPT
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["fingerprint"]) != dataset.fingerprint:
            return None
        return Judged(**{field.name: arrays[field.name] for field in dataclasses.fields(Judged)})


def write_relations(path: Path, rows: Sequence[Row]) -> None:
    """relations.csv: one row a pair."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], f"{row[-1]:.4f}") for row in rows)


def walk(config: TrainConfig, agents: learner.Config, desk: desks.Desk, run: training.Run) -> Walked:
    """Lets the actor walk every list in waves.

    In a wave each list goes on until it ends or wants what is not there: a reading, or the rewriter's rows. What is
    wanted is then computed for those lists alone, and the next wave has only them.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, temperature=0.0))
    lists = _Lists(config, agents, desk, run)
    going = np.arange(len(desk.problem.anchor))
    with progress.bar(len(going), "relating", unit="list") as bar:
        while len(going):
            parts = [lists.advance(rows) for rows in _blocks(going)]
            wants, where = (np.concatenate(part) for part in zip(*parts, strict=True))
            lists.read(going[wants == _READING], where[wants == _READING])
            lists.rewrite(going[wants == _ROWS])
            bar.update(int((wants == _NOTHING).sum()))
            going = going[wants != _NOTHING]
    return lists.walked()


def judged(agents: learner.Config, desk: desks.Desk, run: training.Run, walked: Walked | None) -> Judged:
    """The posterior of every compared pair from both directions, and which of them the actor states.

    Where no actor was trained nothing was walked, and the posterior alone decides.
    """
    problem, params = desk.problem, training.parameters(run, agents)["ranker"]
    logits = np.array(_logits(params, agents.ranker, supervision.everything(problem), run.believed.fold))
    if walked is None:
        posterior = np.asarray(supervision.update(problem, run.believed, logits).posterior)
        nobody = np.zeros(len(problem.pair), bool)
        return Judged(problem.pair, posterior, nobody, nobody, related=posterior > 0.5)
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
    return Judged(problem.pair, posterior, stated, rejected, related=(posterior > 0.5) & ~rejected)


def rows_of(dataset: Dataset, found: Judged, pairs: Pairs | None) -> list[Row]:
    """Rows of the related pairs, likeliest first; or of the pairs asked for, in their order."""
    name = dataset.relations[0].name
    if pairs is None:
        chosen = np.flatnonzero(found.related)
        chosen = chosen[np.argsort(-found.posterior[chosen], kind="stable")]
        return [_row(dataset, found.pair[i, 0], found.pair[i, 1], name, float(found.posterior[i])) for i in chosen]
    place = {(int(left), int(right)): i for i, (left, right) in enumerate(found.pair)}
    rows = []
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        i = place.get((min(left, right), max(left, right)))
        p = UNLIKELY if i is None else float(found.posterior[i])
        is_related = i is not None and bool(found.related[i])
        rows.append(_row(dataset, left, right, name if is_related else "unrelated", p if is_related else 1 - p))
    return rows


def examples(
    config: TrainConfig, agents: learner.Config, desk: desks.Desk, run: training.Run, rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Some stated relations with the actor's reason for each, as the report shows them."""
    if not rows:
        return []
    dataset, params = desk.dataset, training.parameters(run, agents)["actor"]
    left = np.array([dataset.index[row[0], row[1]] for row in rows])
    right = np.array([dataset.index[row[2], row[3]] for row in rows])
    # As many rows as a round has, so that what was compiled for the rounds serves here.
    count = config.train.replicas * config.train.merge_every * config.train.anchors_per_step
    ours, theirs = (desk.texts[np.resize(records, count)] for records in (left, right))
    _, reasons = prepare.reasons(agents, params, ours, theirs, jax.random.key(0), 0.0)
    return [
        {
            "left": dataset.text(int(a)),
            "right": dataset.text(int(b)),
            "relation": row[4],
            "probability": row[5],
            "reason": desk.tokenizer.decode(np.asarray(reason)),
        }
        for a, b, row, reason in zip(left, right, rows, reasons[: len(rows)], strict=True)
    ]


class _Lists:
    """All lists on their way: what is known of each, and where the actor stands in it."""

    def __init__(self, config: TrainConfig, agents: learner.Config, desk: desks.Desk, run: training.Run) -> None:
        self._config, self._agents, self._desk, self._run = config, agents, desk, run
        self._params, self._texts = training.parameters(run, agents), jnp.asarray(desk.texts)
        self._scale, self._edges = replicas.first((run.state.averaged.scale, run.state.edges))
        policy = learner.policy_table(self._params["actor"], agents)
        self._greedy = jnp.argmax(policy, axis=1).astype(jnp.int32)
        prior = np.asarray(run.believed.prior)[desk.problem.kind]
        self._shift = np.log(prior / (1 - prior)).astype(np.float32)
        parts = [self._ask(rows) for rows in _blocks(np.arange(len(self._shift)))]
        self._asked, self._batch = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        record = self._batch.candidates.record
        self._ready, self._pending = np.zeros(record.shape, bool), np.full(len(record), config.train.rewrites > 0)
        flat = record.reshape(len(record), -1)
        self._final = jax.tree.map(np.array, environment.start(jnp.asarray(flat >= 0), jnp.asarray(self._pending)))
        self._logit = np.zeros(flat.shape, np.float32)

    def advance(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Walks lists `rows` as far as they go: what each wants then, and of which candidate in [0, L)."""
        full = np.resize(rows, CHUNK)  # a short block is filled up, so that nothing is compiled twice
        batch, final, shift, ready, pending = jax.tree.map(
            lambda x: x[full], (self._batch, self._final, self._shift, self._ready, self._pending)
        )
        problem, logit = _pose(
            self._params, self._scale, self._agents, self._texts, batch, jnp.asarray(shift), ready, pending
        )
        final, *wanted = _walk(self._agents.environment, self._edges, problem, self._greedy, final)
        self._final = jax.tree.map(partial(_put, rows), self._final, final)
        self._logit = _put(rows, self._logit, logit)
        wants, where = (np.asarray(x)[: len(rows)] for x in wanted)
        return wants, where

    def read(self, rows: np.ndarray, where: np.ndarray) -> None:
        """Computes the readings of candidates `where` of lists `rows`."""
        if len(rows) == 0:
            return
        candidates = self._batch.candidates
        row, slot = np.divmod(where, candidates.record.shape[2])
        batch, numbers = jax.tree.map(lambda x: x[rows], self._batch), np.arange(len(rows))
        record = candidates.record[rows, row, slot]
        reader = self._params["ranker"]["reader"]
        candidates.reading[rows, row, slot] = prepare.readings(self._desk, self._agents, reader, batch, numbers, record)
        self._ready[rows, row, slot] = True

    def rewrite(self, rows: np.ndarray) -> None:
        """Has the queries of lists `rows` rewritten, and looks at what the subqueries find."""
        for block in _blocks(rows):
            full = np.resize(block, CHUNK)
            anchors, asked = desks.standing(self._desk, full), jax.tree.map(lambda x, at=full: x[at], self._asked)
            key = jax.random.key(0)
            split = prepare.subqueries(self._desk, self._config, self._agents, self._params, anchors, asked, key)
            found, *_ = prepare.answers(self._desk, self._config, self._run.believed, anchors, asked, split)
            self._batch = jax.tree.map(partial(_put, block), self._batch, self._folded(found, full))
            self._pending[block] = False

    def walked(self) -> Walked:
        final, record = self._final, self._batch.candidates.record
        flat = record.reshape(len(record), -1)
        return Walked(flat, final.decision, self._logit, final.revealed, int(final.tokens.sum()))

    def _ask(self, rows: np.ndarray) -> tuple[prepare.Asked, play.Batch]:
        anchors = desks.standing(self._desk, np.resize(rows, CHUNK))
        asked = prepare.ask(self._desk, self._config, self._agents, self._params, anchors, jax.random.key(0))
        split = prepare.unsplit(self._config, self._agents, asked)
        batch, *_ = prepare.answers(self._desk, self._config, self._run.believed, anchors, asked, split)
        return jax.tree.map(lambda x: np.array(x[: len(rows)]), (asked, self._folded(batch, np.resize(rows, CHUNK))))

    def _folded(self, batch: play.Batch, rows: np.ndarray) -> play.Batch:
        return dataclasses.replace(batch, fold=np.asarray(self._run.believed.fold)[rows])


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def _put(rows: np.ndarray, old: np.ndarray, new: jax.Array | np.ndarray) -> np.ndarray:
    """`old` with the first of `new` at `rows`."""
    old[rows] = np.asarray(new)[: len(rows)]
    return old


@partial(jax.jit, static_argnames="config")
def _logits(params: Params, config: ranker.Config, candidates: Candidates, fold: jax.Array) -> jax.Array:
    """Held-out logits [n, K] of all lists, nothing read."""
    scores = ranker.member_scores(params, config, candidates, revealed=False)[..., 0]
    return judge.held_out(scores, fold, config.folds)[:, 0]


@partial(jax.jit, static_argnames="agents")
def _pose(
    params: dict[str, Params],
    scale: jax.Array,
    agents: learner.Config,
    texts: jax.Array,
    batch: play.Batch,
    shift: jax.Array,
    ready: jax.Array,
    pending: jax.Array,
) -> tuple[environment.Problem, jax.Array]:
    """The walks of n lists, and the logits [n, L] with the readings there are, before any shift."""
    shift = shift[:, None, None, None]
    ranked = play.rank(params["ranker"], agents.ranker, batch, jax.random.key(0), 0.0, shift)
    value, spread = _rewards(params["reward"], scale, agents, texts, batch, ranked)
    problem = play.problems(batch, ranked, value, spread)
    problem = dataclasses.replace(problem, ready=play.flat(ready), pending=pending)
    return problem, ranked.score[..., 0] - shift[:, 0, 0]


def _rewards(
    params: Params,
    scale: jax.Array,
    agents: learner.Config,
    texts: jax.Array,
    batch: play.Batch,
    ranked: play.Ranked,
) -> tuple[jax.Array, jax.Array]:
    """Reward and spread of stating each relation for each candidate, [n, L, Y] each."""
    few, place = play.likeliest(batch, ranked)
    every = play.all_preferences(agents.base.special, few, texts, agents.reward.relations)
    score = partial(reward.score, params, agents.reward, scale=scale, key=None)
    value, spread = jax.vmap(lambda one: score(batch=one))(every)
    count = ranked.blind.shape[1]
    return play.spread_out(value, place, count), play.spread_out(spread, place, count)


@partial(jax.jit, static_argnames="config")
def _walk(
    config: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
    greedy: jax.Array,
    final: environment.EnvState,
) -> tuple[environment.EnvState, jax.Array, jax.Array]:
    """Walks on from `final`: where each list stands, what it waits for, and the candidate at hand."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return greedy[state], jnp.ones(state.shape)

    episode = environment.play(config, edges, problem, policy, jax.random.key(0), final)
    place, _ = jax.vmap(environment.current)(problem, episode.final)
    seen = jax.vmap(partial(environment.observe, config, edges))(problem, episode.final)
    over = jax.vmap(partial(environment.over, config))(episode.final)
    # A walk that is not over rests only where it waits.
    wanted = jnp.where(greedy[seen.state] == config.actions[1], _READING, _ROWS)
    return episode.final, jnp.where(over, _NOTHING, wanted), place


def _row(dataset: Dataset, left: int | np.integer, right: int | np.integer, relation: str, probability: float) -> Row:
    return (*dataset.key(int(left)), *dataset.key(int(right)), relation, probability)
