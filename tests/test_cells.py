"""Studies: what a cell keeps, and that a study goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

import cells
import results
from aco_jax import configuration
from aco_jax.data.records import InputError
from aco_jax.settings import TrainConfig


def test_quarters_are_means_of_the_first_and_last_rows() -> None:
    rows = [{"step": i, "loss": float(8 - i), **({"late": 2.0} if i == 7 else {})} for i in range(8)]
    found = cells.quarters(rows)
    assert found == {"loss": (7.5, 1.5), "late": (2.0, 2.0)}


def test_a_line_of_catalogues_has_the_spread_of_the_runs() -> None:
    def scores(f1: float) -> dict[str, Any]:
        other = {method: {"catalogue": {"f1": f1 / 2}} for method in ("mutual best", "one-to-one")}
        found = {"precision": 0.8, "recall": 0.9, "f1": f1}
        return {"catalogue": found, "label_free": {"catalogue": {"f1": f1 + 0.02}}, "baselines": other}

    said = cells.catalogue([scores(0.84), scores(0.86)])
    assert said.split() == ["80.0", "90.0", "85.0", "±", "1.4", "87.0", "42.5", "42.5"]
    assert len(said) == len(cells.CATALOGUE)


def test_spread_and_interval_against_hand_sized_numbers() -> None:
    mean, deviation = cells.spread([1.0, 2.0, 3.0])
    assert (mean, deviation) == (2.0, 1.0)
    assert math.isnan(cells.spread([1.0])[1])
    assert cells.student(3) == pytest.approx(4.3027, abs=1e-4)  # two degrees of freedom
    assert math.isnan(cells.student(1))
    assert cells.half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    line = cells.mean_line("x", [5.0], [[1.0, 2.0, 3.0]])
    assert line.points == [(5.0, 2.0)]
    assert line.band[0] == pytest.approx((2.0 - 2.4841, 2.0 + 2.4841), abs=1e-3)
    line = results.stage("loss", [{"quarters": {"loss": (1.0, 3.0)}}, {"quarters": {"loss": (1.0, 5.0)}}])
    assert line.split() == ["loss", "1.000", "4.000", "3.000", "±", "12.706"]
    once = results.stage("loss", [{"quarters": {"loss": (1.0, 3.0)}}])
    assert once.split() == ["loss", "1.000", "3.000", "2.000"]  # one run tells nothing of the spread
    assert len(cells.plus_minus(0.5)) == len(cells.plus_minus(math.nan))


def test_a_cell_that_is_there_is_not_run_again(tmp_path: Path) -> None:
    cell = cells.Cell(tmp_path / "nowhere", 0, "no agents", {})
    kept = {"data": "nowhere", "seed": 0}
    (tmp_path / "nowhere-no_agents-0.json").write_text(json.dumps(kept))
    assert cells.run([cell], tmp_path, "valid") == [kept]


def test_runs_are_grouped_by_their_data_and_computed_once(tmp_path: Path) -> None:
    runs = [tmp_path / "runs" / name for name in ("a", "b", "c")]
    for run, data in zip(runs, ("/data/shops", "", "/data/shops"), strict=True):
        run.mkdir(parents=True)
        config = dataclasses.replace(TrainConfig(), data=dataclasses.replace(TrainConfig().data, path=data))
        (run / configuration.FILE).write_text(json.dumps(configuration.to_dict(config)), encoding="utf-8")
    seen: list[tuple[Path, Path]] = []

    def compute(workdir: Path, place: Path) -> str:
        seen.append((workdir, place))
        return workdir.name

    for _ in range(2):
        found = cells.by_data(map(str, runs), tmp_path / "study", compute)
        assert found == {"shops": ["a", "c"], "built-in catalogues": ["b"]}
    assert seen == [(run, tmp_path / "study" / f"runs-{run.name}") for run in runs]


def test_a_run_that_fails_is_named_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(cells.HERE.parent))
    cell = cells.Cell(tmp_path / "nowhere", 0, "all", {})
    with pytest.raises(InputError, match=r"aco\.py .*exit code 2: aco\.py: .*nowhere"):
        cells.run([cell], tmp_path / "out", "valid")
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_cell_goes_on_from_the_supervised_stages_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(cells.HERE.parent))
    start = tmp_path / "nowhere-start-0"
    taken_over = ["checkpoints/8/state", "evidence.json", "metrics.jsonl", "tokenizer/layout.json"]
    for name in (*taken_over, "summary.json", "relations.csv"):
        (start / name).parent.mkdir(parents=True, exist_ok=True)
        (start / name).write_text(name)
    cell = cells.Cell(tmp_path / "nowhere", 0, "no sharing", {}, start={})
    with pytest.raises(InputError, match="nowhere"):
        cells.run([cell], tmp_path, "valid")
    taken = tmp_path / cell.name
    assert sorted(str(path.relative_to(taken)) for path in taken.rglob("*") if path.is_file()) == taken_over
    (taken / "metrics.jsonl").write_text("more")
    with pytest.raises(InputError, match="nowhere"):
        cells.run([cell], tmp_path, "valid")
    assert (taken / "metrics.jsonl").read_text() == "more"


def test_a_change_that_names_no_value_is_an_error() -> None:
    assert cells.changes(["train.rounds=6", "a.b=c=d"]) == {"train.rounds": "6", "a.b": "c=d"}
    with pytest.raises(InputError, match=r"--change=train\.rounds: expected NAME=VALUE"):
        cells.changes(["train.rounds"])
