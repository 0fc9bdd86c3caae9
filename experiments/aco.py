"""The main job: learns, without a label, which records of several tables relate, and states the relations.

    python experiments/aco.py --config=experiments/configs/folder.py --config.data.path=DIR --workdir=W

The workdir then holds config.json, metrics.jsonl, events.*, checkpoints/, relations.csv, clusters.csv, summary.json
and report.html. Stopped anywhere, the same command goes on from the last checkpoint, to the same result. Gold is
opened only for the built-in catalogues, after learning, through evaluate.py.

Several processes with one workdir learn together: --coordinator=HOST:PORT --processes=N --process=I for each, or
--coordinator=cluster on the hosts of a TPU pod. Replicas must be a multiple of their number.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from ml_collections import config_flags

import evaluate
import launch
from aco_jax import answer, configuration, processes, settings, train


def main() -> None:
    config = launch.typed(settings.TrainConfig)
    workdir = Path(flags.FLAGS.workdir)
    launch.join()
    with processes.in_turn("tables"):
        dataset = configuration.open_run(config, workdir)
    _, desk = train.train(config, dataset, workdir)
    if not processes.is_first():
        return
    rows, summary = answer.finish(workdir, desk)
    if config.data.path:
        evaluate.write_report(workdir)
    else:
        evaluate.report_gold(workdir, split="valid")
    print(f"{len(rows)} pairs in {workdir / 'relations.csv'}; {label_free(summary)}")
    print(f"seen as a whole in {workdir / 'report.html'}")


def label_free(summary: evaluate.Summary) -> str:
    """The label-free estimate in words, with its 90% interval."""
    parts = [
        f"{name} {100 * scores['f1']:.1f} ({100 * scores['f1_low']:.1f} to {100 * scores['f1_high']:.1f})"
        for name, scores in summary["label_free"].items()
    ]
    return f"F1 as estimated without labels: {', '.join(parts)}"


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", help_string="a file of experiments/configs")
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.mark_flags_as_required(["config", "workdir"])
    launch.define_processes()
    launch.run(main)
