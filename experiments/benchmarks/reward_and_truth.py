"""Does the shared reward know what is true? Its parts beside the F1 that gold gives, over judges of many qualities.

    python experiments/benchmarks/reward_and_truth.py --workdir=W,W2,.. [--split=valid] [--out=runs/benchmarks]

Each W is a finished run of experiments/aco.py. Its judge is taught anew with other numbers of rounds of self-training
and of steps, which gives len(ROUNDS) x len(STEPS) variants a run. Each plays the round that would come next, of planted
anchors only, by the ranker's own decisions: that gives the reward, without labels. evaluate.py scores what each would
state.

Rank correlations (Spearman) over all variants of a data set. Nothing is chosen by them.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
from scipy import stats

import cells
import launch
from aco_jax import answer, configuration, learner_state, play, prepare, replicas, report, svg
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.settings import TrainConfig

ROUNDS, STEPS = (1, 2, 4), (15, 60, 600)
PARTS = ("precision", "recall", "weighted_f1", "agreement", "reward")  # of the shared reward
ESTIMATE = "estimated F1"
Variant = dict[str, float]


def main() -> None:
    out, split = Path(flags.FLAGS.out), flags.FLAGS.split
    found: dict[str, list[Variant]] = {}
    for name in flags.FLAGS.workdir:
        workdir = Path(name)
        place = out / "reward-and-truth" / "-".join(workdir.parts[-2:])
        data = cells.data_name(workdir)
        for rounds in ROUNDS:
            for steps in STEPS:
                path = place.with_name(f"{place.name}-{rounds}-{steps}.json")
                compute = functools.partial(variant, workdir, path.with_suffix(""), rounds, steps, split)
                found.setdefault(data, []).append(cells.kept(path, compute))
    columns = (*PARTS, ESTIMATE)
    print(f"{'data':<24}{'variants':>9}{'F1':>16}" + "".join(f"{name:>14}" for name in columns))
    charts = {}
    for data, variants in found.items():
        f1 = [each["f1"] for each in variants]
        ranks = correlations(variants)
        print(
            f"{data:<24}{len(variants):>9}{min(f1):>8.3f} - {max(f1):.3f}"
            + "".join(f"{x:>14.2f}" for x in ranks.values())
        )
        charts[f"{data}: rank correlation with F1"] = svg.bars(ranks, "")
    words = f"Judges taught with {ROUNDS} rounds of {STEPS} steps each, {split} pairs."
    report.write_study(out / "reward-and-truth.html", "The shared reward and the truth", words, charts)


def correlations(variants: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Spearman's rank correlation of each part with F1."""
    truth = [each["f1"] for each in variants]
    return {name: float(stats.spearmanr([each[name] for each in variants], truth)[0]) for name in (*PARTS, ESTIMATE)}


def variant(workdir: Path, place: Path, rounds: int, steps: int, split: str) -> Variant:
    """F1 of a judge taught so, the parts of the shared reward, and the estimate that is made without labels."""
    config = configuration.read(workdir, TrainConfig)
    _, agents, desk, run = answer.restore(workdir, configuration.load(config.data, workdir, config.seed))
    taught = teach(config, agents, desk, run, rounds, steps)
    score = reward(config, agents, desk, taught)
    pairs = cells.scored_apart(workdir, place, desk.dataset, answer.judged(agents, desk, taught, None), split)
    return score | {"f1": pairs["f1"], ESTIMATE: pairs["label_free_f1"]}


def teach(
    config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run, rounds: int, steps: int
) -> training.Run:
    """The run with a judge that taught itself in so many rounds of so many steps."""
    judge = dataclasses.replace(agents.ranker.judge, steps=steps)
    fewer = dataclasses.replace(agents, ranker=dataclasses.replace(agents.ranker, judge=judge))
    start = dataclasses.replace(run, believed=training.start(config, agents, desk).believed)
    mesh = replicas.make_mesh(config.train.replicas)
    return training.believe(config, fewer, desk, mesh, start, rounds)[0]


def reward(config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run) -> dict[str, float]:
    """The shared reward of the ranker's own decisions on planted anchors, and its parts."""
    params, number = training.parameters(run, agents, desk.trunk), int(replicas.first(run.state.merges))
    batch = prepare.next_planted(desk, config, agents, params, run.believed, number)
    ranked = play.rank(params["ranker"], agents.ranker, batch, jax.random.key(0), 0.0)
    score = play.shared_score(batch, ranked, None, config.agents.agreement_weight)
    return {name: float(getattr(score, name)) for name in PARTS}


if __name__ == "__main__":
    flags.DEFINE_list("workdir", None, "folders of finished runs", required=True)
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    launch.run(main)
