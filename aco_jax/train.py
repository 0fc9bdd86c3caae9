"""The host loop: fit to the tables, believe, pretrain, then rounds of prepare, play, learn and merge.

A run is a sequence of steps, each saved: the judge's own training on what it believes, the supervised rounds, what
actor and reward model take from them, and the rounds of the loop. Stopped anywhere, it goes on from the last step with
the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from aco_jax import (
    beginnings,
    checkpoints,
    learner,
    learner_state,
    prepare,
    pretraining,
    processes,
    progress,
    replicas,
    self_training,
    stages,
    supervision,
    transitions,
)
from aco_jax import desk as desks
from aco_jax.data import fields, listing, tokens
from aco_jax.data.records import Dataset
from aco_jax.models import judge
from aco_jax.settings import TrainConfig, learner_config
from aco_jax.types import Params

Summary = dict[str, Any]
STANDARD = "evidence.json"  # what the evidence of a workdir is standardised by
EVERYBODY = -1  # the fold of a list that no member of the judge was trained with
VISITED, USED = 200, 0.01  # states, and share of the decisions, below which a reader is told


@struct.dataclass
class Run:
    """All that changes during a run."""

    state: learner_state.State  # [R, ..]
    believed: supervision.State
    logits: np.ndarray  # [lists, K] float32, the judge's held-out scores


Step = tuple[str, Callable[[Run], tuple[Run, dict[str, Any]]]]  # a stage's name, and what it makes of a run


class Clock:
    """Seconds a stage, compilation apart, in the order of the stages."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start, compiled = time.monotonic(), self.seconds.get("compilation", 0.0)
        yield
        spent = time.monotonic() - start - (self.seconds.get("compilation", 0.0) - compiled)
        self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds["compilation"] = self.seconds.get("compilation", 0.0) + duration_secs


def train(config: TrainConfig, dataset: Dataset, workdir: Path) -> tuple[Summary, desks.Desk]:
    """Trains, or goes on training, in `workdir`; writes metrics, checkpoints and summary.json.

    Nothing but the tables is read. Returns the summary, and the tables with all that was fitted to them, which
    `answer.finish` takes. Raises InputError where the checkpoints are of another structure.
    """
    clock = Clock()
    with clock.stage("tables"):
        desk = open_desk(config, dataset, workdir)
    agents = learner_config(config, dataset, desk.tokenizer)
    mesh = replicas.make_mesh(config.train.replicas)
    steps = list(_steps(config, agents, desk, mesh))
    run, spent = follow(steps, start(config, agents, desk), workdir, config, clock, mesh, "aco")
    summary = summarise(dataset, desk, agents, run, clock, spent)
    if processes.is_first():
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (workdir / "summary.json").write_text(text, encoding="utf-8")
    return summary, desk


def follow(
    steps: Sequence[Step], run: Run, workdir: Path, config: TrainConfig, clock: Clock, mesh: Mesh, title: str
) -> tuple[Run, dict[str, float]]:
    """Takes the steps that the workdir's last checkpoint has not seen, and saves after each.

    Args:
        run: a run of the same structure, for the case that nothing was saved yet.
        clock: goes on from what the checkpoint has spent.

    Returns:
        the run at its end, and the tokens spent on each stage.
    """
    found = checkpoints.restore(workdir / "checkpoints", run)
    done, run, meta = found if found else (-1, run, {})
    clock.seconds = dict(meta.get("seconds", clock.seconds))
    spent = dict(meta.get("tokens", {}))
    run = dataclasses.replace(run, state=replicas.place(run.state, mesh))
    with progress.writer(workdir, done) as writer, progress.bar(len(steps), title, done=done + 1) as bar:
        for step, (name, advance) in enumerate(steps):
            if step <= done:
                continue
            with clock.stage(name):
                run, metrics = advance(run)
                metrics = jax.device_get(metrics)  # a step is over when its figures are there
            for key in [key for key in metrics if key.startswith("tokens/")]:
                spent[key[7:]] = spent.get(key[7:], 0.0) + float(metrics[key])
            if writer is not None:
                writer.write(step, metrics)
            meta = {"seconds": clock.seconds, "tokens": spent}
            checkpoints.save(workdir / "checkpoints", step, run, meta, config.train.keep)
            bar.update()
    return run, spent


def open_desk(config: TrainConfig, dataset: Dataset, workdir: Path) -> desks.Desk:
    """The desk of a workdir: its tokenizer and the standard of its evidence are made once, by its own tables, and kept.

    Raises InputError where what is kept is not as this version keeps it.
    """
    folder, path = workdir / "tokenizer", workdir / STANDARD
    is_kept = (folder / "layout.json").is_file()
    kept = (tokens.load(folder), listing.read_standard(path)) if is_kept else (None, None)
    processes.meet("tokenizer")  # none is written before all have looked
    desk = desks.open_desk(config, dataset, *kept)
    if not is_kept and processes.is_first():
        listing.keep_standard(path, desk.problem)
        desk.tokenizer.save(folder)  # last: where it is, the standard is
    return desk


def start(config: TrainConfig, agents: learner_state.Config, desk: desks.Desk) -> Run:
    """A run in which nothing has been learned, but for what published weights know."""
    key = jax.random.key(config.seed)
    state = stages.fresh(key, agents, config.train.replicas)
    if config.model.base:
        params = beginnings.base(key, config.model.base, desk.tokenizer, agents.base.model)
        state = stages.begun(state, params)
    return Run(
        state=state,
        believed=desk.beginning(config.seed),
        logits=np.zeros(desk.problem.record.shape, np.float32),
    )


def parameters(run: Run, agents: learner_state.Config, trunk: Params | None = None) -> dict[str, Params]:
    """The agents' merged parameters, on the host, adapters beside the trunk where it is given."""
    return learner_state.trees(replicas.first(run.state.averaged.params), agents, trunk)


def _steps(config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, mesh: Mesh) -> Iterator[Step]:
    """The steps of the whole run, in order."""
    shared = replicas.place(desks.tables(desk), mesh, None)
    pretrain = replicas.make_round(
        partial(pretraining.pretrain_step, config=agents, rate=config.train.pretrain_rate), replicas.average, mesh
    )
    play = replicas.make_round(partial(learner.local_step, config=agents), partial(replicas.merge, config=agents), mesh)
    yield "judging", partial(believe, config, agents, desk, mesh)
    for number in range(1, 1 + config.train.pretrain_rounds):
        yield "pretraining", partial(_pretrain, config, desk, mesh, shared, pretrain, number)
    yield "pretraining", partial(_graduate, config, agents, desk, mesh)
    for number in range(config.train.rounds):
        yield "rounds", partial(_round, config, agents, desk, mesh, shared, play, number)


def believe(
    config: TrainConfig,
    agents: learner_state.Config,
    desk: desks.Desk,
    mesh: Mesh,
    run: Run,
    rounds: int = self_training.ROUNDS,
) -> tuple[Run, dict[str, float]]:
    """Self-training of the judge."""
    halves = listing.halves(desk.dataset, desk.index, desk.problem, config.seed)
    tables = (desk.dataset, desk.index, desk.problem, halves)
    trained = self_training.run(*tables, agents.ranker.judge, run.believed, run.logits, config.seed, rounds)
    state = replicas.place(stages.with_judge(run.state, trained.params, agents), mesh)
    return dataclasses.replace(run, state=state, believed=trained.believed, logits=trained.logits), trained.metrics


def carry_folds(before: desks.Desk, fold: np.ndarray, after: desks.Desk) -> np.ndarray:
    """The folds [lists] of the lists as they are now: what a member was trained with it may never judge."""

    def names(desk: desks.Desk) -> list[tuple[tuple[str, str], int]]:
        lists = zip(desk.problem.anchor.tolist(), desk.problem.table.tolist(), strict=True)
        return [(desk.dataset.key(anchor), table) for anchor, table in lists]

    known = dict(zip(names(before), np.asarray(fold).tolist(), strict=True))
    return np.array([known.get(name, EVERYBODY) for name in names(after)], np.int32)


def judge_again(
    config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, fold: np.ndarray, run: Run
) -> tuple[Run, dict[str, float]]:
    """What the judge, as it was fitted, says of all lists [lists] of other tables is believed of them."""
    params = parameters(run, agents)["ranker"]["judge"]
    seen = jnp.asarray(listing.everything(desk.problem).evidence[:, 0])
    logits = np.asarray(judge.judged(params, agents.ranker.judge, seen, fold, agents.ranker.folds))[..., 0]
    believed = supervision.update(desk.problem, run.believed, logits, stating=True)
    if own := self_training.within(desk.dataset, desk.index, desk.problem, believed, params, agents.ranker.judge):
        believed = supervision.update(desk.problem, believed, logits, stating=True, within=own)
    believed = dataclasses.replace(believed, fold=fold)
    metrics = {"data/believed": float((believed.weight > 0).mean())}
    return dataclasses.replace(run, believed=believed, logits=logits), metrics


def _pretrain(config, desk, mesh, shared, advance, number: int, run: Run):
    each = max(1, config.train.pretrain_batch // config.train.replicas)
    material = desks.lessons(desk, config, number, config.train.pretrain_steps, each)
    state, metrics = advance(run.state, replicas.place(material, mesh), shared)
    counted = {"tokens/pretraining": float(sum((x > 0).sum() for x in jax.tree.leaves(material)))}
    return dataclasses.replace(run, state=state), metrics | counted


def _graduate(config, agents, desk, mesh, run: Run):
    reasons = desks.reasons(desk, config, agents.actor)
    state, metrics = stages.taught(run.state, agents, jax.random.key(config.seed), reasons)
    return dataclasses.replace(run, state=replicas.place(state, mesh)), metrics


def _round(config, agents, desk, mesh, shared, advance, number: int, run: Run):
    params = parameters(run, agents, desk.trunk)
    material, measured = prepare.round_material(desk, config, agents, params, run.believed, number, by_parts=True)
    state, metrics = advance(run.state, replicas.place(material, mesh), shared)
    if number == 0:
        state = replicas.place(stages.after_warm_up(state, agents), mesh)
    if number == config.train.warm_up_rounds - 1:
        state = replicas.place(stages.actor_begins(state, agents), mesh)
    return dataclasses.replace(run, state=state), metrics | measured | visits(state, agents)


def visits(state: learner_state.State, agents: learner_state.Config) -> dict[str, float]:
    """States visited since the bins were fitted, and the share of each kind of action among all taken, if any was."""
    taken = np.asarray(transitions.counts(replicas.first(state.counts)))
    total = int(taken.sum())
    if not total:
        return {"transitions/visited": 0.0}
    kinds = {"none": 0, "read": 1, "rewrite": 2, "stop": 3}
    relations = agents.environment.bins.relations
    shares = {f"actor/share_{name}": float(taken[:, relations + i].sum()) / total for name, i in kinds.items()}
    related = float(taken[:, :relations].sum()) / total
    return {"transitions/visited": float((taken.sum(axis=1) > 0).sum()), "actor/share_related": related, **shares}


def summarise(
    dataset: Dataset, desk: desks.Desk, agents: learner_state.Config, run: Run, clock: Clock, spent: dict[str, float]
) -> Summary:
    """What summary.json holds."""
    used = visits(run.state, agents)
    found = list(desk.notes)
    if int(replicas.first(run.state.merges)) > 1:
        found += notes(used, agents.environment.bins.state_count)
    return {
        "fingerprint": dataset.fingerprint,
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")},
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        "tokens": spent,
        "counts": {"records": dataset.size, "tables": len(dataset.tables), "lists": len(desk.problem.anchor)},
        "columns": fields.told(desk.index.fields, [table.name for table in dataset.tables]),
        "label_free": {},
        "notes": found,
    }


def notes(used: dict[str, float], states_in_all: int) -> list[str]:
    """What a reader should know of a decision process that is not used to the full."""
    found, visited = [], int(used["transitions/visited"])
    if visited < VISITED:
        found.append(
            f"{visited} states of {states_in_all} were visited, fewer than {VISITED}: "
            "what is known of a candidate goes together, so that most combinations of bins never arise."
        )
    for name, share in used.items():
        if name.startswith("actor/share_") and share < USED:
            found.append(
                f"The action {name.removeprefix('actor/share_')} was taken in {share:.2%} of the decisions only."
            )
    return found
