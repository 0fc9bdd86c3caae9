"""Goes on from a finished run where the tables have changed: what is new is learned, and the tables are related.

The run stays as it is. The adapted run is a workdir of its own inside it, W/adapted, and begins with all that the run
had learned: agents, replay, transition counts, bins, vocabulary, and the judge, which is not trained again. It says
what is believed of the lists as they are now; a few rounds of the loop then play the new lists only.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aco_jax import (
    answer,
    configuration,
    learner,
    learner_state,
    prepare,
    processes,
    progress,
    replicas,
    report,
    statements,
)
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.configuration import DataConfig
from aco_jax.data import listing
from aco_jax.data.records import Dataset, InputError
from aco_jax.settings import TrainConfig, learner_config

FOLDER = "adapted"
NEWS = "news.json"  # of which tables W/adapted is, and what was new in them


@dataclass(frozen=True)
class News:
    """What N records say that the old tables did not."""

    new: np.ndarray  # [N] bool, no record of this table had the id
    changed: np.ndarray  # [N] bool, the record said something else
    gone: int  # old records that are no more
    attributes: tuple[str, ...]  # "table.column"

    @property
    def told(self) -> np.ndarray:
        """[N] bool: records that are new or have changed."""
        return self.new | self.changed

    def counts(self) -> dict[str, int]:
        return {
            "records new": int(self.new.sum()),
            "records changed": int(self.changed.sum()),
            "records gone": self.gone,
            "attributes new": len(self.attributes),
        }


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    `rows` is None where nothing was stated: W/adapted had been finished before, or another process states.
    """

    folder: Path
    news: News
    rows: list[statements.Row] | None
    summary: training.Summary


def adapt(workdir: Path, data: Path, rounds: int | None = None) -> Adapted:
    """Adapts the finished run of `workdir` to the tables in `data`, in W/adapted; stopped anywhere, it goes on.

    `rounds` of the loop are played, by default a quarter of the run's own, none where no list is new or where the
    run had none. Raises InputError for an unfinished run, for a run whose own tables are no longer what it learned
    from, for tables that are not the run's, and where W/adapted is of other tables.
    """
    folder, config = workdir / FOLDER, configuration.read(workdir, TrainConfig)
    before = configuration.load(config.data, workdir, config.seed)
    _check_finished(workdir, config.data, before)
    config = dataclasses.replace(config, data=_moved(config.data, before, data))
    after = configuration.load_folder(config.data, data)
    news = compare(before, after)
    with processes.in_turn("news"):
        summary = _claim(folder, config, before, after, news)
        if summary is None and processes.is_first():
            shutil.copytree(workdir / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
            shutil.copy2(workdir / training.STANDARD, folder)
    if summary is not None:
        return Adapted(folder, news, None, summary)
    desk, summary = _learn(workdir, folder, config, before, after, news, rounds)
    if not processes.is_first():
        return Adapted(folder, news, None, summary)
    rows, summary = answer.finish(folder, desk)
    examples = [report.Example(**example) for example in summary["examples"]]
    report.write(folder, progress.read_metrics(folder), summary, report.Tables(examples=examples))
    return Adapted(folder, news, rows, summary)


def compare(before: Dataset, after: Dataset) -> News:
    """What is new in `after`; records are the same where table and id are. An empty cell says nothing."""

    def told(dataset: Dataset, record: int) -> dict[str, str]:
        return {column: text for column, text in dataset.row(record).items() if text}

    old = [before.index.get(after.key(record)) for record in range(after.size)]
    known = {(table.name, column) for table in before.tables for column in table.columns}
    return News(
        new=np.array([place is None for place in old]),
        changed=np.array(
            [place is not None and told(before, place) != told(after, record) for record, place in enumerate(old)]
        ),
        gone=before.size - sum(place is not None for place in old),
        attributes=tuple(
            f"{table.name}.{column}"
            for table in after.tables
            for column in table.columns
            if (table.name, column) not in known
        ),
    )


def new_lists(problem: listing.Problem, told: np.ndarray) -> np.ndarray:
    """The lists [n] whose anchor or one of whose candidates is among the records told [N] bool."""
    candidates = (problem.record >= 0) & told[np.maximum(problem.record, 0)]
    return np.flatnonzero(told[problem.anchor] | candidates.any(axis=1))


def _learn(
    workdir: Path,
    folder: Path,
    config: TrainConfig,
    before: Dataset,
    after: Dataset,
    news: News,
    rounds: int | None,
) -> tuple[desks.Desk, training.Summary]:
    """Believes, plays the rounds, saves after each, and writes summary.json; the desk is of the tables as they are."""
    clock = training.Clock()
    with clock.stage("tables"):
        *_, old, learned = answer.restore(workdir, before)
        desk = training.open_desk(config, after, folder)
        if processes.is_first():
            desk.tokenizer.save(folder / "tokenizer")  # with the columns that are new
    agents, mesh = learner_config(config, after, desk.tokenizer), replicas.make_mesh(config.train.replicas)
    lists, fold = new_lists(desk.problem, news.told), training.carry_folds(old, learned.believed.fold, desk)
    run = training.start(config, agents, desk)
    known = learned.believed
    believed = dataclasses.replace(run.believed, checked=known.checked, many=known.many)
    run = dataclasses.replace(run, state=learned.state, believed=believed)
    first = int(replicas.first(learned.state.merges))
    shared = replicas.place(desks.tables(desk), mesh, None)
    play_round = partial(_round, config, agents, desk, mesh, lists, first, shared, _compiled(agents, mesh))
    steps: list[training.Step] = [("judging", partial(training.judge_again, config, agents, desk, fold))]
    steps += [("rounds", partial(play_round, number)) for number in range(_count(config, lists, rounds))]
    run, spent = training.follow(steps, run, folder, config, clock, mesh, "adapting")
    summary = training.summarise(after, desk, agents, run, clock, spent)
    summary["counts"] |= news.counts() | {"lists new": len(lists), "rounds of adapting": len(steps) - 1}
    if processes.is_first():
        _write_json(folder / "summary.json", summary)
    return desk, summary


def _round(
    config: TrainConfig,
    agents: learner_state.Config,
    desk: desks.Desk,
    mesh: jax.sharding.Mesh,
    lists: np.ndarray,
    first: int,
    shared: learner.Tables,
    advance: replicas.Round,
    number: int,
    run: training.Run,
) -> tuple[training.Run, dict[str, Any]]:
    params = training.parameters(run, agents, desk.trunk)
    material, measured = prepare.round_material(
        desk, config, agents, params, run.believed, number, lists, first, by_parts=True
    )
    state, metrics = advance(run.state, replicas.place(material, mesh), shared)
    return dataclasses.replace(run, state=state), {**metrics, **measured, **training.visits(state, agents)}


def _compiled(agents: learner_state.Config, mesh: jax.sharding.Mesh) -> replicas.Round:
    return replicas.make_round(partial(learner.local_step, config=agents), partial(replicas.merge, config=agents), mesh)


def _count(config: TrainConfig, lists: np.ndarray, rounds: int | None) -> int:
    """The rounds to play. Where the run had none its actor has learned nothing, and the judge alone decides."""
    if not len(lists) or not config.train.rounds:
        return 0
    return max(1, config.train.rounds // 4) if rounds is None else rounds


def _moved(data: DataConfig, before: Dataset, folder: Path) -> DataConfig:
    """Where the tables are now; their names and relations stay, whatever the readers' defaults are there."""
    names = tuple(table.name for table in before.tables)
    return dataclasses.replace(data, path=str(folder), tables=names, relations=before.relations)


def _check_finished(workdir: Path, data: DataConfig, before: Dataset) -> None:
    path = workdir / "summary.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run that experiments/aco.py has finished")
    if _read_json(path)["fingerprint"] != before.fingerprint:
        raise InputError(
            f"{configuration.data_folder(data, workdir)}: the tables are not those that {workdir} learned from, "
            "expected them unchanged and what is new in another folder"
        )


def _claim(folder: Path, config: TrainConfig, before: Dataset, after: Dataset, news: News) -> training.Summary | None:
    """Makes W/adapted, or finds it made for the same tables: then its summary, if it was finished."""
    if not (folder / NEWS).is_file():
        configuration.claim(folder, config)
        content = {"from": before.fingerprint, "to": after.fingerprint, "counts": news.counts()}
        _write_json(folder / NEWS, content | {"attributes": news.attributes})
        return None
    if _read_json(folder / NEWS)["to"] != after.fingerprint:
        raise InputError(
            f"{folder}: adapted to other tables, expected those of {config.data.path}; "
            f"take --workdir={folder} to go on from there"
        )
    path = folder / "summary.json"
    summary = _read_json(path) if path.is_file() else {}
    # What is estimated without labels is added last, when the tables have been related.
    return summary if summary.get("label_free") else None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
