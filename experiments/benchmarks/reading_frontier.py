"""F1 against the tokens that are read when tables are related: the trained actor beside policies that learn nothing.

    python experiments/benchmarks/reading_frontier.py --workdir=W,W2,.. [--split=valid] [--anchors=0]
        [--out=runs/benchmarks]

Each W is a finished run of experiments/aco.py. Its open lists are walked by the trained actor, by the fixed policy,
which reads nothing, and by the same reading the candidates it comes to whose posterior is near a half, in one, two, ..
bins on either side, in the end all of them; last by one that goes through and reads every candidate. evaluate.py
scores what each states; a reading counts there as in a run. With --anchors so many lists are walked that were drawn
from all, open or not, the same for every policy and run. Beside them, without a walk, the posterior at the threshold
that gold likes best, which nobody can know.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np

import cells
import launch
from aco_jax import answer, configuration, learner_state, report, svg, waves
from aco_jax import train as training
from aco_jax.ops import states
from aco_jax.settings import TrainConfig

THRESHOLDS = np.linspace(0.1, 0.9, 17)  # of the posterior
ORACLE, EVERYTHING = "best threshold", "fixed, everything"
Point = dict[str, float]  # "f1", "tokens", "candidates": those read


def main() -> None:
    out, split = Path(flags.FLAGS.out), flags.FLAGS.split
    anchors = flags.FLAGS.anchors
    compute = functools.partial(frontier, split=split, anchors=anchors)
    name = f"reading-frontier-{anchors}" if anchors else "reading-frontier"
    found: dict[str, list[dict[str, Point]]] = cells.by_data(flags.FLAGS.workdir, out / name, compute)
    print(f"{'data':<24}{'policy':<18}{'F1':>16}{'tokens read':>14}{'candidates':>12}")
    charts = {}
    for data, runs in found.items():
        for who in runs[0]:
            print(line(data, who, [run[who] for run in runs]))
        policies = [who for who in runs[0] if who not in ("actor", ORACLE)]
        across = [_mean(runs, who, "tokens") for who in policies]
        f1 = [[100 * run[who]["f1"] for run in runs] for who in policies]
        charts[data] = svg.lines([cells.mean_line("fixed policies", across, f1)], "tokens read", "F1")
    words = f"{split} pairs; means over runs, 95% intervals."
    report.write_study(out / f"{name}.html", "F1 against what is read", words, charts)


def frontier(workdir: Path, place: Path, split: str, anchors: int = 0) -> dict[str, Point]:
    """F1 and what was read, of each policy, which walks the open lists, or `anchors` that are drawn."""
    config = configuration.read(workdir, TrainConfig)
    _, agents, desk, run = answer.restore(workdir, configuration.load(config.data, workdir, config.seed))
    params, bins = training.parameters(run, agents, desk.trunk), agents.environment.bins
    policies = {"actor": np.asarray(learner_state.policy_table(params["actor"], agents))}
    for reach in range(bins.posterior // 2 + 1):
        policies[f"fixed, {reach} bins" if reach else "fixed"] = states.fixed_policy(bins, reach=reach)
    policies[EVERYTHING] = states.fixed_policy(bins, reach=bins.posterior // 2, stops=False)
    rows, found = None, {}
    if anchors:
        lists = len(desk.problem.anchor)
        rows = np.sort(np.random.default_rng(0).choice(lists, min(anchors, lists), replace=False)).astype(np.int32)
    for name, policy in policies.items():
        walked = waves.walk(config, agents, desk, run, policy.argmax(axis=1).astype(np.int32), rows)
        judged = answer.judged(agents, desk, run, walked)
        pairs = cells.scored_apart(workdir, place / name.replace(", ", "-"), desk.dataset, judged, split)
        found[name] = {"f1": pairs["f1"], "tokens": float(walked.tokens), "candidates": float(walked.revealed.sum())}
    judged = answer.judged(agents, desk, run, None)
    cuts = [dataclasses.replace(judged, related=judged.posterior > threshold) for threshold in THRESHOLDS]
    f1 = [cells.scored_apart(workdir, place / ORACLE, desk.dataset, cut, split)["f1"] for cut in cuts]
    return found | {ORACLE: {"f1": max(f1), "tokens": 0.0, "candidates": 0.0}}


def line(data: str, who: str, points: Sequence[Mapping[str, float]]) -> str:
    """Mean and standard deviation of F1 in percent over the runs, and the means of what was read."""
    mean, deviation = cells.spread([100 * point["f1"] for point in points])
    tokens, candidates = (cells.spread([point[name] for point in points])[0] for name in ("tokens", "candidates"))
    return f"{data:<24}{who:<18}{mean:>9.1f}{cells.plus_minus(deviation)}{tokens:>14.0f}{candidates:>12.0f}"


def _mean(runs: Sequence[Mapping[str, Point]], who: str, name: str) -> float:
    return cells.spread([run[who][name] for run in runs])[0]


if __name__ == "__main__":
    flags.DEFINE_list("workdir", None, "folders of finished runs", required=True)
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    flags.DEFINE_integer("anchors", 0, "lists to walk, drawn at random; 0: those that are open", lower_bound=0)
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    launch.run(main)
