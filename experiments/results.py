"""The table of results: every data set, several seeds, beside both baselines of the same run.

    python experiments/results.py --data=DIR,DIR --seeds=3 --out=runs/results [--config=folder|minilm|smollm2]

A cell is one run of the main job with the defaults and has one JSON file; the same command goes on where it stopped.
`--change=train.rounds=0,train.pretrain_rounds=0` is the judge alone. Machine: 2 cores, no accelerator; about five
minutes a cell, one for the judge alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

import cells
import launch

STAGES = (
    "base/denoise",
    "base/ask",
    "rewriter/cross_entropy",
    "base/contrast",
    "data/raw_recall_unseen",
    "base/query_recall_unseen",
    "base/dense_recall_unseen",
    "rewriter/recall_unseen",
    "ranker/reading_gap",
    "ranker/mrr",
    "reward/accuracy",
    "critic/absolute_error",
    "play/return",
    "actor/kl",
    "shared/reward",
    "transitions/visited",
    "actor/share_related",
    "actor/share_none",
    "actor/share_read",
    "actor/share_rewrite",
    "actor/share_stop",
)


def main() -> None:
    folders = [Path(folder) for folder in flags.FLAGS.data]
    seeds, config = range(flags.FLAGS.seeds), flags.FLAGS.config
    everywhere = cells.changes(flags.FLAGS.change)
    wanted = [cells.Cell(folder, seed, "all", everywhere, None, config) for folder in folders for seed in seeds]
    found = cells.run(wanted, Path(flags.FLAGS.out), flags.FLAGS.split)
    print(f"{'data':<18}{'ACO F1':>16}{cells.BASELINES}{'weighted F1':>13}{'all no':>8}{'seconds':>9}{'GB':>6}")
    for folder in folders:
        print(line(folder.name, [cell for cell in found if cell["data"] == folder.name]))
    print(f"\n{'stage, first quarter to last':<34}{'first':>10}{'last':>10}{'change, 95% interval':>28}")
    for name in STAGES:
        print(stage(name, found))


def line(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """One data set: mean and standard deviation over the seeds, in percent."""
    scores = [run["scores"] for run in runs]
    mean, deviation = cells.spread([100 * score["pairs"]["f1"] for score in scores])
    weighted = cells.spread([100 * score["weighted_f1"] for score in scores])[0]
    seconds = max(run["wall_seconds"] for run in runs)
    nothing = 100 * scores[0]["all_negative_weighted_f1"]
    ours = f"{name:<18}{mean:>9.1f}{cells.plus_minus(deviation)}{cells.baselines(scores)}"
    memory = max(run["summary"]["peak_memory"] for run in runs) / 1e9
    return f"{ours}{weighted:>13.1f}{nothing:>8.1f}{seconds:>9.0f}{memory:>6.1f}"


def stage(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """A stage's own measure over all runs, with the interval of its change (Student's t)."""
    pairs = [run["quarters"][name] for run in runs if name in run["quarters"]]
    if not pairs:
        return f"{name:<34}{'not measured':>10}"
    first, last = (cells.spread([pair[i] for pair in pairs])[0] for i in (0, 1))
    changes = [after - before for before, after in pairs]
    mean, half = cells.spread(changes)[0], cells.half_interval(changes)
    return f"{name:<34}{first:>10.3f}{last:>10.3f}{mean:>14.3f}{cells.plus_minus(half, 3)}"


if __name__ == "__main__":
    flags.DEFINE_list("data", None, "folders of tables with gold, separated by commas", required=True)
    flags.DEFINE_integer("seeds", 3, "runs of each", lower_bound=1)
    flags.DEFINE_string("out", "runs/results", "folder of the cells")
    flags.DEFINE_list("change", [], "fields of the config changed in all cells, as NAME=VALUE,NAME=VALUE")
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    flags.DEFINE_enum(
        "config", "folder", ["folder", "minilm", "smollm2"], "which of experiments/configs/ the runs have"
    )
    launch.run(main)
