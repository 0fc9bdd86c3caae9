"""Studies made of cells: one run of the main job each, one JSON file each, gone on with where they stopped.

Cells that differ only in what comes after the supervised stages may take those from one run of their data set and seed,
to the same bits: they go on from a copy of its checkpoints.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from aco_jax import answer, configuration, progress, settings, svg, train
from aco_jax.data.records import Dataset, InputError
from aco_jax.statements import Judged

HERE = Path(__file__).parent
Overrides = Mapping[str, float | int | str]
JUDGE_ALONE = ("train.rounds=0", "train.pretrain_rounds=0")  # of a flag `--change`: no agents are taught


@dataclass(frozen=True)
class Cell:
    """One run: a data set, a seed, and what of the config is changed."""

    data: Path
    seed: int
    switch: str
    overrides: Overrides
    start: Overrides | None = None  # of the run whose supervised stages it takes
    config: str = "folder"  # of experiments/configs/

    @property
    def name(self) -> str:
        own = "" if self.config == "folder" else f"{self.config}-"
        return f"{own}{self.data.name}-{self.switch.replace(' ', '_')}-{self.seed}"


def run(cells: Iterable[Cell], out: Path, split: str) -> list[dict[str, Any]]:
    """The results of all cells; those that have a file in `out` are read. Raises InputError where a run fails."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = list(cells)
    results = []
    with progress.bar(len(wanted), "cells", unit="cell") as bar:
        for cell in wanted:
            results.append(kept(out / f"{cell.name}.json", functools.partial(_run, cell, out / cell.name, split)))
            bar.update()
    return results


def changes(fields: Sequence[str]) -> Overrides:
    """The fields of a flag `--change`. Raises InputError where one is no NAME=VALUE."""
    for field in fields:
        if "=" not in field:
            raise InputError(f"--change={field}: expected NAME=VALUE, as train.rounds=6")
    return dict(field.split("=", 1) for field in fields)


BASELINES = f"{'mutual best':>13}{'one-to-one':>12}"


def baselines(scores: Sequence[Mapping[str, Any]], of: str = "pairs") -> str:
    """Mean F1 of both baselines in what `scores` are of, in percent, under the heading BASELINES."""
    return "".join(
        f"{100 * statistics.fmean(score['baselines'][method][of]['f1'] for score in scores):>{width}.1f}"
        for method, width in (("mutual best", 13), ("one-to-one", 12))
    )


CATALOGUE = f"{'precision':>10}{'recall':>8}{'F1':>7}{'':<7}{'label-free':>12}{BASELINES}"


def catalogue(scores: Sequence[Mapping[str, Any]]) -> str:
    """Means over the runs of what is said of the whole catalogue, F1 with its standard deviation, in percent.

    They stand under the heading CATALOGUE.
    """

    def mean(values: Sequence[float]) -> float:
        return 100 * spread(values)[0]

    precision, recall, f1 = ([score["catalogue"][name] for score in scores] for name in ("precision", "recall", "f1"))
    estimate = mean([score["label_free"]["catalogue"]["f1"] for score in scores])
    said = f"{mean(precision):>10.1f}{mean(recall):>8.1f}{mean(f1):>7.1f}{plus_minus(100 * spread(f1)[1])}"
    return f"{said}{estimate:>12.1f}{baselines(scores, 'catalogue')}"


def by_data(workdirs: Iterable[str], place: Path, compute: Callable[[Path, Path], Any]) -> dict[str, list[Any]]:
    """By the name of the data set: what is computed of each finished run, its workdir and a folder of its own given.

    These folders are in `place`, as is a JSON file for each run, which is read where it is there.
    """
    found: dict[str, list[Any]] = {}
    for name in workdirs:
        workdir = Path(name)
        own = place / "-".join(workdir.parts[-2:])
        result = kept(own.with_suffix(".json"), functools.partial(compute, workdir, own))
        found.setdefault(data_name(workdir), []).append(result)
    return found


def data_name(workdir: Path) -> str:
    """The name of the data set of a run."""
    return Path(configuration.read(workdir, settings.TrainConfig).data.path).name or "built-in catalogues"


def kept(path: Path, compute: Callable[[], Any]) -> Any:
    """What the JSON file holds; what is computed is written there first where there is none."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(compute(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; that of a single value is not known."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def plus_minus(deviation: float, places: int = 1) -> str:
    """How a spread or half an interval stands behind its mean; nothing, as wide, where it is not known."""
    return f" ± {deviation:<{places + 3}.{places}f}" if math.isfinite(deviation) else " " * (places + 6)


def student(count: int) -> float:
    """The 97.5% quantile of Student's t for the mean of `count` values."""
    return float(stats.t.ppf(0.975, count - 1)) if count > 1 else math.nan


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95% interval of the mean (Student's t)."""
    return student(len(values)) * spread(values)[1] / math.sqrt(len(values))


def mean_line(name: str, across: Sequence[float], values: Sequence[Sequence[float]]) -> svg.Line:
    """The mean of the values at each point across, and the 95% interval as its band."""
    means = [statistics.fmean(each) for each in values]
    halves = [half_interval(each) for each in values]
    band = [(mean - half, mean + half) for mean, half in zip(means, halves, strict=True)]
    return svg.Line(name, [*zip(across, means, strict=True)], band)


def quarters(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Of every metric its mean over the first quarter of the rows that have it, and over the last."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                found.setdefault(name, []).append(float(value))
    part = {name: max(1, len(values) // 4) for name, values in found.items()}
    return {
        name: (statistics.fmean(values[: part[name]]), statistics.fmean(values[-part[name] :]))
        for name, values in found.items()
    }


def _run(cell: Cell, workdir: Path, split: str) -> dict[str, Any]:
    if cell.start is not None and not workdir.exists():
        _take_start(Cell(cell.data, cell.seed, "start", {**cell.start, "train.rounds": 0}, None, cell.config), workdir)
    start = time.monotonic()
    _train(cell, workdir)
    seconds = time.monotonic() - start
    scores = scored(workdir, split)
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    return {
        "data": cell.data.name,
        "seed": cell.seed,
        "switch": cell.switch,
        "overrides": dict(cell.overrides),
        "wall_seconds": round(seconds, 1),
        "scores": scores,
        "summary": summary,
        "quarters": quarters(progress.read_metrics(workdir)),
    }


def scored(workdir: Path, split: str, data: Path | None = None) -> dict[str, Any]:
    """What evaluate.py says of a finished run, whose tables are in `data` where that is given. Raises InputError."""
    place = [f"--data={data}"] if data else []
    return json.loads(_call("evaluate.py", f"--workdir={workdir}", f"--split={split}", *place).splitlines()[-1])


def scored_apart(workdir: Path, place: Path, dataset: Dataset, found: Judged, split: str) -> dict[str, Any]:
    """What evaluate.py says of the pairs of a run's tables where these were found in its stead; `place` is for them."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy2(workdir / configuration.FILE, place)
    _, expected = answer.keep(place, dataset, found)
    summary = {"fingerprint": dataset.fingerprint, "label_free": expected}
    (place / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    data = configuration.data_folder(configuration.read(workdir, settings.TrainConfig).data, workdir)
    pairs: dict[str, Any] = scored(place, split, data)["pairs"]
    return pairs


def _train(cell: Cell, workdir: Path) -> None:
    changed = [f"--config.{name}={value}" for name, value in {"seed": cell.seed, **cell.overrides}.items()]
    config = f"--config={HERE / 'configs' / cell.config}.py"
    _call("aco.py", config, f"--config.data.path={cell.data}", f"--workdir={workdir}", *changed)


def _take_start(start: Cell, workdir: Path) -> None:
    """A new workdir with what the run of the supervised stages has learned; they are run if they were not yet."""
    source = workdir.parent / start.name
    if not (source / "summary.json").is_file():
        _train(start, source)
    unfinished = workdir.with_name(f"{workdir.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in ("tokenizer", "checkpoints"):
        shutil.copytree(source / part, unfinished / part)
    for file in (progress.FILE, train.STANDARD):
        shutil.copy2(source / file, unfinished / file)
    unfinished.rename(workdir)


def _call(launcher: str, *arguments: str) -> str:
    command = [sys.executable, str(HERE / launcher), *arguments]
    plain = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}  # else the last line is about the filtering
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{launcher} {' '.join(arguments)}: exit code {done.returncode}: {last}")
    return done.stdout
