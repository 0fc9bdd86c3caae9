"""What rewriter and reader keep of the base that taught them, in float32, int8 and int4, and what they bring.

    python experiments/benchmarks/distilled.py --workdir=W,W2,.. [--split=valid] [--out=runs/benchmarks]

Each W is a finished run of experiments/aco.py. On planted anchors that it did not play: the share of partners among the
first ten answers to any subquery, and the mean reciprocal rank of the partner where candidates are ordered by how
likely the query is given each of them. In the run's own tables, scored by evaluate.py: the share of the labelled pairs
among the first and the first ten answers, and their mean reciprocal rank (0 beyond the tenth), of the record's own
words, of the query beside these, of query and subqueries fused, and of all that is found, as it is read and as judged.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import cells
import launch
import rankings
from aco_jax import answer, inquiry, learner_state, replicas, report, svg
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.agents import rewriter
from aco_jax.data import tasks
from aco_jax.models import quantization
from aco_jax.statements import Judged
from aco_jax.types import Params

ANCHORS = 512  # planted, of each run
FORMS = {"float32": None, "int8": 8, "int4": 4}
Figures = dict[str, dict[str, float]]


def main() -> None:
    out, split = Path(flags.FLAGS.out), flags.FLAGS.split
    compute = functools.partial(figures, split=split)
    found: dict[str, list[dict[str, Figures]]] = cells.by_data(flags.FLAGS.workdir, out / "distilled", compute)
    charts = {}
    for part in ("planted", "labelled"):
        columns = list(next(iter(found.values()))[0][part]["base" if part == "planted" else rankings.RAW])
        print(f"{part:<24}{'':<22}" + "".join(f"{name:>18}" for name in columns))
        for data, runs in found.items():
            for who in runs[0][part]:
                print(line(data, who, [run[part][who] for run in runs]))
            means = {who: statistics.fmean(run[part][who]["mrr"] for run in runs) for who in runs[0][part]}
            charts[f"{data}: mean reciprocal rank, {part}"] = svg.bars(means, "")
    words = f"Means over runs; labelled pairs: {split}."
    report.write_study(out / "distilled.html", "Rewriting and reading beside the base that taught them", words, charts)


def figures(workdir: Path, place: Path, split: str) -> dict[str, Figures]:
    """Both tables of one run."""
    team, run = rankings.open_run(workdir)
    return {"planted": planted(team, run), "labelled": labelled(team, run, workdir, place, split)}


def planted(team: inquiry.Staff, run: training.Run) -> Figures:
    """The base as its own rewriter and reader, and those that it taught, by the form of their weights."""
    train = team.config.train
    steps = -(-ANCHORS // (train.replicas * train.anchors_per_step))
    train = dataclasses.replace(train, planted=1.0, hidden=0.0, merge_every=steps)
    rng, number = np.random.default_rng(team.config.seed), int(replicas.first(run.state.merges))
    anchors = desks.choose(team.desk, dataclasses.replace(team.config, train=train), run.believed, rng, number)
    asked, partner = inquiry.ask(team, anchors, jax.random.key(0)), anchors.truth[:, 0]
    candidates = team.desk.problem.record[anchors.row][:, : train.candidates]
    base, agents = team.params["base"], team.agents
    models = dataclasses.replace(
        agents,
        rewriter=dataclasses.replace(agents.rewriter, model=agents.base.model, rank=0),
        ranker=dataclasses.replace(agents.ranker, model=agents.base.model),
    )
    found = {"base": _of(team, models, anchors, asked, candidates, partner, base, base)}
    for form, bits in FORMS.items():
        both = (team.params["rewriter"], team.params["ranker"]["reader"])
        writer, reader = (quantization.quantize(each, bits) if bits else each for each in both)
        found[form] = _of(team, agents, anchors, asked, candidates, partner, writer, reader)
    return found


def labelled(team: inquiry.Staff, run: training.Run, workdir: Path, place: Path, split: str) -> Figures:
    """Where the labelled partners stand in what a later table holds for a record of an earlier, by who orders it."""
    desk, problem = team.desk, team.desk.problem
    rows = np.flatnonzero(desk.dataset.table_of[problem.anchor] < problem.table)
    everything, orders = rankings.orders(team, rows)
    judged = answer.judged(team.agents, desk, run, None)
    known = {(int(a), int(b)): float(p) for (a, b), p in zip(judged.pair, judged.posterior, strict=True)}
    likely = np.array(
        [
            [known.get((min(a, b), max(a, b)), 0.0) for b in row]
            for a, row in zip(problem.anchor[rows].tolist(), everything.tolist(), strict=True)
        ]
    )
    orders["all, judged"] = rankings.best_first(everything, likely)
    found = {}
    for who, order in orders.items():
        depths = range(1, rankings.DEPTH + 1)
        recall = [_recall(team, workdir, place / f"{who}-{k}", rows, order[:, :k], split) for k in depths]
        gained = np.diff(recall, prepend=0.0)
        mrr = float((gained / np.array(depths)).sum())
        found[who] = {"recall@1": recall[0], "recall@10": recall[-1], "mrr": mrr}
    return found


def line(data: str, who: str, points: Sequence[Mapping[str, float]]) -> str:
    """Means and standard deviations over the runs, shares in percent."""
    text = f"{data:<24}{who:<22}"
    for name in points[0]:
        values = [point[name] * (1 if name == "parameters" else 100) for point in points]
        mean, deviation = cells.spread(values)
        text += f"{mean:>18,.0f}" if name == "parameters" else f"{mean:>11.1f}{cells.plus_minus(deviation)[:7]}"
    return text


def _of(
    team: inquiry.Staff,
    agents: learner_state.Config,
    anchors: desks.Anchors,
    asked: inquiry.Asked,
    candidates: np.ndarray,
    partner: np.ndarray,
    writer: Params,
    reader: Params,
) -> dict[str, float]:
    """How a writer and a reader do on anchors whose partners [n] are known."""
    desk, count = team.desk, team.config.train.rewrites
    owner, searched = desk.problem.anchor[anchors.row], desk.problem.table[anchors.row]
    source = tasks.rewrite_sources(desk.setting, anchors.rows, owner, asked.query.tokens, count)
    written = np.asarray(rewriter.rewrite(writer, agents.rewriter, source, jax.random.key(0), 0.0).tokens)
    answers = [inquiry.lexical(desk, words, searched, rankings.DEPTH) for words in np.swapaxes(written, 0, 1)]
    recalled = (np.concatenate(answers, axis=1) == partner[:, None]).any(axis=1)
    read = rankings.read(team, agents, reader, asked.written, candidates)
    among = (candidates == partner[:, None]).any(axis=1)
    first = np.take_along_axis(read, (candidates == partner[:, None]).argmax(axis=1)[:, None], axis=1)
    rank = (read > first).sum(axis=1) + 1
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(quantization.dequantize(writer))),
        "recall@10": float(recalled.mean()),
        "facts lost": float(np.mean(rewriter.penalty(*map(jnp.asarray, (written, asked.source, desk.facts))))),
        "mrr": float((1 / rank[among]).mean()),
    }


def _recall(team: inquiry.Staff, workdir: Path, place: Path, rows: np.ndarray, order: np.ndarray, split: str) -> float:
    """The share of the labelled partners among records `order` [n, k] of lists [n]."""
    anchor = np.repeat(team.desk.problem.anchor[rows], order.shape[1])
    pair = np.stack([anchor, order.reshape(-1)], axis=1)[order.reshape(-1) >= 0].astype(np.int32)
    yes, no = np.ones(len(pair), bool), np.zeros(len(pair), bool)
    likely = np.full(len(pair), 0.9, np.float32)
    found = Judged(pair, likely, yes, no, yes, np.stack([likely, likely]))
    return float(cells.scored_apart(workdir, place, team.desk.dataset, found, split)["recall"])


if __name__ == "__main__":
    flags.DEFINE_list("workdir", None, "folders of finished runs", required=True)
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    launch.run(main)
