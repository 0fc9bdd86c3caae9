"""Answers with what a run has learned: relates the records of tables. Trains nothing.

The lists that the evidence leaves open are walked by the actor, greedily, from both ends (`waves`). A pair is related
where the two directions together make it likelier than not and the actor, if it came to it from either end, did not
turn it down.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aco_jax import (
    checkpoints,
    configuration,
    inquiry,
    learner_state,
    probes,
    progress,
    relations,
    self_training,
    statements,
    supervision,
    waves,
)
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.agents import ranker
from aco_jax.data import listing
from aco_jax.data.files import listed
from aco_jax.data.records import Dataset, InputError, Pairs
from aco_jax.models import judge
from aco_jax.ops import calibration
from aco_jax.settings import TrainConfig, learner_config
from aco_jax.statements import Judged, Row
from aco_jax.types import UNRELATED, Candidates, Params

DISTRUSTED = (
    "The trained actor did not relate the tables: on planted anchors its decisions are worth {:.3f}, "
    "those of the fixed policy that it began as {:.3f}."
)
OWN = 0.5  # of the records with a partner in another table as many with one in half of their own are suspicious
DECEIVED = (
    "{:.0%} of the records find a partner in a random half of their own table, {:.0%} in another table. Unless tables "
    "say their records several times, much of what was found is merely alike, and its estimate too high."
)
EXAMPLES = 8  # stated relations shown with their reasons
KEPT = "judged.npz"  # what was found of the run's own tables
# Of what is stated: a judge that taught itself is too sure. The least log loss on catalogues of the generator, at the
# difficulties .2, .5 and .8; decisions stay.
TEMPERATURE = 1.75


def relate(workdir: Path, dataset: Dataset, pairs: Pairs | None = None) -> list[Row]:
    """The relations found between the tables; with pairs, one row for each of them.

    A pair that does not relate is "unrelated" with the probability of that. The relations and their definitions are the
    run's. Raises InputError where the workdir holds no finished run, and where the tables state other relations.
    """
    dataset = _with_own_relations(workdir, dataset)
    kept = _kept(workdir, dataset)
    if kept is None:
        config, agents, desk, run = restore(workdir, dataset)
        kept = judged(agents, desk, run, _walked(config, agents, desk, run)[0])
        dataset = desk.dataset
    elif relations.roles(dataset.relations).beyond:
        dataset = desks.compared(dataset)  # as `finish` read their kinds and sizes
    return statements.rows_of(dataset, kept, pairs)


def finish(workdir: Path, desk: desks.Desk) -> tuple[list[Row], dict[str, Any]]:
    """Relates the run's own tables: relations.csv, clusters.csv, and in summary.json what is estimated without labels.

    Returns the rows and the summary.
    """
    start, config, dataset = time.monotonic(), _config(workdir), desk.dataset
    agents, run = _learned(workdir, config, desk)
    walked, trial = _walked(config, agents, desk, run)
    found = judged(agents, desk, run, walked)
    rows, expected = keep(workdir, dataset, found)
    joined = statements.clusters(dataset, rows)
    statements.write_clusters(workdir / "clusters.csv", dataset, joined)
    path = workdir / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["seconds"]["relating"] = round(time.monotonic() - start, 1)
    if trial is not None:
        summary["trial"] = {"actor": trial.actor, "fixed policy": trial.fixed}
        if not trial.trusted:
            summary["notes"].append(DISTRUSTED.format(trial.actor, trial.fixed))
    if walked is not None:
        summary["tokens"]["read by the actor"] = walked.tokens
        summary["counts"] |= {
            "lists walked": len(walked.lists),
            "candidates": int((walked.record >= 0).sum()),
            "candidates read": int(walked.revealed.sum()),
        }
    summary["counts"] |= {
        "pairs stated": len(rows),
        "of them stated by the actor": int((found.stated & found.related).sum()),
        "turned down by the actor alone": int((found.rejected & (found.posterior > 0.5)).sum()),
        **statements.count_clusters(dataset, rows, joined),
    }
    summary["label_free"] = expected
    _control(summary, config, agents, desk, run, found)
    if walked is not None and not walked.revealed.any():
        summary["notes"].append("No reading was asked for when the tables were related: none was worth its price.")
    shown = rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES]
    said = [""] * len(shown) if walked is None else reasons(config, agents, desk, run, shown)
    summary["examples"] = examples(desk.original, shown, said)
    if walked is not None:
        _probe(summary, config, agents, desk, run)
    summary["peak_memory"] = progress.peak_memory()
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return rows, summary


def _walked(
    config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run
) -> tuple[waves.Walked | None, waves.Trial | None]:
    """What became of the open lists, and who walked them; nothing where no actor was trained."""
    if not config.train.rounds:
        return None, None
    trial = waves.trial(config, agents, desk, run)
    return waves.walk(config, agents, desk, run, trial.choice, shifting=trial.trusted), trial


def keep(workdir: Path, dataset: Dataset, found: Judged) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Writes relations.csv, and what they follow from for whoever asks of other pairs; returns rows and estimates."""
    rows, expected = statements.conclude(dataset, found)
    statements.write_relations(workdir / "relations.csv", rows)
    np.savez(workdir / KEPT, fingerprint=np.array(dataset.fingerprint), **dataclasses.asdict(found))
    return rows, expected


def _control(
    summary: dict[str, Any],
    config: TrainConfig,
    agents: learner_state.Config,
    desk: desks.Desk,
    run: training.Run,
    found: Judged,
) -> None:
    """Adds to the summary how many records find a partner where there should be none: in their own table."""
    halves = listing.halves(desk.dataset, desk.index, desk.problem, config.seed)
    params = training.parameters(run, agents)["ranker"]["judge"]
    own = self_training.said_again(halves, params, agents.ranker.judge, config.seed)
    other = len(np.unique(found.pair[found.related])) / desk.dataset.size
    summary["share_with_a_partner"] = {"in another table": other, "in a half of their own": own}
    if own > OWN * other:
        summary["notes"].append(DECEIVED.format(own, other))


def _probe(
    summary: dict[str, Any], config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run
) -> None:
    """Adds to the summary what is known of the reward model."""
    start = time.monotonic()
    summary["reward_model"] = probes.examine(config, agents, desk, run)
    summary["notes"] += summary["reward_model"].pop("notes")
    summary["seconds"]["probing"] = round(time.monotonic() - start, 1)


def restore(workdir: Path, dataset: Dataset) -> tuple[TrainConfig, learner_state.Config, desks.Desk, training.Run]:
    """The run of a workdir and a desk for these tables, the run's own or others.

    Of others the judge says what is believed, as it was fitted; the run's own tables must still be there.
    """
    config = _config(workdir)
    own = configuration.load(config.data, workdir, config.seed)
    desk = training.open_desk(config, own, workdir)
    agents, run = _learned(workdir, config, desk)
    if own.fingerprint == dataset.fingerprint:
        return config, agents, desk, run
    other = training.open_desk(config, dataset, workdir)
    agents = learner_config(config, dataset, desk.tokenizer)
    before, after = ([table.name for table in tables.tables] for tables in (own, dataset))
    checked = supervision.carry_checked(run.believed.checked, before, after)
    run = dataclasses.replace(run, believed=dataclasses.replace(run.believed, checked=checked))
    run, _ = training.judge_again(config, agents, other, training.carry_folds(desk, run.believed.fold, other), run)
    return config, agents, other, run


def _config(workdir: Path) -> TrainConfig:
    """The config of a finished run."""
    config = configuration.read(workdir, TrainConfig)
    if not (workdir / "summary.json").is_file():
        raise InputError(f"{workdir}: not finished, expected a run that experiments/aco.py has finished")
    return config


def _with_own_relations(workdir: Path, dataset: Dataset) -> Dataset:
    """The tables with the relations that the run was made for, which they must name."""
    own = configuration.relations_of(_config(workdir).data)
    ours, theirs = ([relation.name for relation in found] for found in (own, dataset.relations))
    if set(ours) != set(theirs):
        raise InputError(
            f"{workdir}: the tables state the relations {listed(theirs)}, expected the run's {listed(ours)}"
        )
    return dataclasses.replace(dataset, relations=own)


def _learned(workdir: Path, config: TrainConfig, desk: desks.Desk) -> tuple[learner_state.Config, training.Run]:
    """The last checkpoint of a run, at the desk of its own tables."""
    agents = learner_config(config, desk.dataset, desk.tokenizer)
    found = checkpoints.restore(workdir / "checkpoints", training.start(config, agents, desk))
    if found is None:
        raise InputError(f"{workdir / 'checkpoints'}: nothing saved, expected those of a finished run")
    return agents, found[1]


def _kept(workdir: Path, dataset: Dataset) -> Judged | None:
    """What `finish` found of these very tables, if it did."""
    path = workdir / KEPT
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        names = [field.name for field in dataclasses.fields(Judged)]
        if str(arrays["fingerprint"]) != dataset.fingerprint or not set(names) <= set(arrays.files):
            return None  # of other tables, or of an older version
        return Judged(**{name: arrays[name] for name in names})


def judged(agents: learner_state.Config, desk: desks.Desk, run: training.Run, walked: waves.Walked | None) -> Judged:
    """The posterior of every compared pair from both directions, and which of them the actor states.

    Where no actor was trained nothing was walked, and the posterior alone decides; no record gets more partners than
    the relation allows.
    """
    problem, params = desk.problem, training.parameters(run, agents)["ranker"]
    logits, alone = map(np.array, _logits(params, agents.ranker, listing.everything(problem), run.believed.fold))

    tables = (desk.dataset, desk.index, problem)
    own = self_training.within(*tables, run.believed, params["judge"], agents.ranker.judge)

    def posteriors(told: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """That of all members, and [C, P] of each set of them."""
        found = []
        for each in progress.through([logits, *alone], "competing", "judge"):
            believed = supervision.update(problem, run.believed, each + told, stating=True, within=own)
            found.append(probability(believed))
        return found[0], np.stack(found[1:])

    most = relations.identity(desk.dataset.relations).max_partners
    if walked is None:
        (posterior, committee), nobody = posteriors(0.0), np.zeros(len(problem.pair), bool)
        related = statements.limited(desk.dataset, problem.pair, posterior, posterior > 0.5, most)
        return Judged(problem.pair, posterior, nobody, nobody, related, committee)
    # What was read counts as read, wherever the candidate stands in the list.
    record, place = problem.record[walked.lists], problem.place[walked.lists]
    same = (record[:, :, None] == walked.record[:, None]) & (record >= 0)[:, :, None]
    read = same & walked.revealed[:, None]
    with_reading = np.where(read, walked.logit[:, None], 0).sum(axis=2)
    told = np.zeros_like(logits)
    told[walked.lists] = np.where(read.any(axis=2), with_reading - logits[walked.lists], 0)
    posterior, committee = posteriors(told)

    def pairs_where(chosen: np.ndarray) -> np.ndarray:
        named = (same & chosen[:, None]).any(axis=2) & (place >= 0)
        found = np.zeros(len(problem.pair), bool)
        found[place[named]] = True
        return found

    stated = pairs_where(walked.decision > UNRELATED)
    rejected = pairs_where(walked.decision == UNRELATED) & ~stated
    related = statements.limited(desk.dataset, problem.pair, posterior, (posterior > 0.5) & ~rejected, most)
    return Judged(problem.pair, posterior, stated, rejected, related, committee)


def probability(believed: supervision.State) -> np.ndarray:
    """[P] float32: what is stated of each pair; of the temperature that which the judge has not taken already."""
    left = max(1.0, TEMPERATURE / float(believed.temperature))
    return calibration.tempered(believed.posterior, left).astype(np.float32)


def examples(dataset: Dataset, rows: Sequence[Row], said: Sequence[str]) -> list[dict[str, Any]]:
    """Some stated relations with what is said for each, as the report shows them."""
    return [
        {
            "left": dataset.text(dataset.index[row[0], row[1]]),
            "right": dataset.text(dataset.index[row[2], row[3]]),
            "relation": row[4],
            "probability": row[5],
            "reason": reason,
        }
        for row, reason in zip(rows, said, strict=True)
    ]


def reasons(
    config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run, rows: Sequence[Row]
) -> list[str]:
    """The actor's reason for each of some stated relations."""
    if not rows:
        return []
    dataset, params = desk.dataset, training.parameters(run, agents)["actor"]
    left = np.array([dataset.index[row[0], row[1]] for row in rows])
    right = np.array([dataset.index[row[2], row[3]] for row in rows])
    # As many rows as a round has, so that what was compiled for the rounds serves here.
    count = max(config.train.replicas * config.train.merge_every * config.train.anchors_per_step, len(rows))
    ours, theirs = (desk.texts[np.resize(records, count)] for records in (left, right))
    _, found = inquiry.reasons(agents, params, ours, theirs, jax.random.key(0), 0.0)
    return inquiry.in_words(desk, found, ours, theirs)[: len(rows)]


@partial(jax.jit, static_argnames="config")
def _logits(
    params: Params, config: ranker.Config, candidates: Candidates, fold: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Held-out logits [n, K] of all lists, nothing read, and [C, n, K] of each set of members with every fold."""
    scores = ranker.member_scores(params, config, candidates, revealed=False)[..., 0][:, :, 0]
    whole = len(scores) // config.folds
    each = scores[: whole * config.folds].reshape(whole, config.folds, *scores.shape[1:])
    alone = jax.vmap(lambda members: judge.held_out(members, fold, config.folds))(each)
    return judge.held_out(scores, fold, config.folds), alone
