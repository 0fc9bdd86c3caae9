"""Scores a run against gold. Nothing that learns opens gold or reads what this writes; robustness.py copies it.

    python experiments/evaluate.py --workdir=W [--data=DIR] --split=valid

Without --data the run's own tables are scored, from relations.csv; other tables are related first, without
training. The last line is one JSON object with everything; W/report.html gets the same figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

import launch
from aco_jax import answer, configuration, evaluation, progress, report, settings
from aco_jax.data.records import InputError

Summary = dict[str, Any]


def main() -> None:
    data = flags.FLAGS.data
    result = report_gold(Path(flags.FLAGS.workdir), flags.FLAGS.split, Path(data) if data else None)
    print(json.dumps(result, ensure_ascii=False))


def report_gold(workdir: Path, split: str, data: Path | None = None) -> evaluation.Scores:
    """Scores, prints the table, and writes the report anew where the run's own tables were scored."""
    config = configuration.read(workdir, settings.TrainConfig)
    folder = data or configuration.data_folder(config.data, workdir)
    dataset = configuration.load_folder(config.data, folder)
    summary = read_summary(workdir)
    labelled, matches = evaluation.read_gold(folder, dataset, split)
    own = dataset.fingerprint == summary["fingerprint"]
    stated = workdir / "relations.csv"
    rows = evaluation.read_relations(stated, dataset) if own else answer.relate(workdir, dataset)
    pair_rows = answer.relate(workdir, dataset, labelled) if labelled else []
    estimates = summary["label_free"] if own else {}
    result = evaluation.evaluate(dataset, labelled, matches, rows, pair_rows, estimates)
    if own:
        write_report(workdir, result)
    print(f"{folder}, split {split}\n{evaluation.describe(result)}")
    return {"data": str(folder), "split": split, **result}


def write_report(workdir: Path, result: evaluation.Scores | None = None) -> None:
    """W/report.html, with the gold figures of `result` where they are known."""
    summary = read_summary(workdir)
    examples = [report.Example(**example) for example in summary.get("examples", ())]
    tables = report.Tables(examples=examples)
    if result is not None:
        relations, calibration = result["relations"] or {}, result["calibration"] or {}
        tables = report.Tables(
            scores=evaluation.lines(result),
            confusion=relations.get("confusion", {}),
            reliability=calibration.get("bins", ()),
            examples=examples,
        )
    report.write(workdir, progress.read_metrics(workdir), summary, tables)


def read_summary(workdir: Path) -> Summary:
    """W/summary.json. Raises InputError."""
    path = workdir / "summary.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run that experiments/aco.py has finished")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("data", None, "folder of tables and gold; the run's own by default")
    flags.DEFINE_enum("split", "valid", evaluation.SPLITS, "which labelled pairs")
    launch.run(main)
