"""What each part is worth: the same runs with one part switched off, paired by data set and seed.

    python experiments/ablate.py --data=DIR,DIR --seeds=3 --out=runs/ablation [--switches=NAME,NAME]

A cell is one run and has one JSON file; the same command goes on where it stopped. The supervised stages of a data set
and seed are run once, and the cells whose switch comes after them go on from there. `--change=train.rounds=6` changes a
field in all cells: give such a study a folder of its own. Beside what comes of the relations it looks at what the
language models find: how high they put the partners that the tables alone tell. Machine: 2 cores, no accelerator; about
four minutes a cell.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

import cells
import launch
import rankings
from aco_jax import progress

SWITCHES: dict[str, cells.Overrides] = {
    "all": {},
    "no agents": {"train.rounds": 0, "train.pretrain_rounds": 0},
    "fixed policy": {"train.rounds": 0},  # the posterior at one threshold: nothing is learned by reward, nobody walks
    "evidence only": {"agents.rates.ranker": 0.0},  # the ranker never learns to weigh what it reads
    "no asking": {"train.ask": False},  # own words alone are searched by; queries are still rewritten and read by
    "no rewriting": {"train.rewrites": 0},
    "no reading": {"environment.token_cost": 1000.0},
    "base frozen": {"agents.rates.base": 0.0},  # no ascent; its encoder is still shared with the actor's
    "no shared reward": {"agents.shared_weight": 0.0, "agents.credit_weight": 0.0},
    "no penalties": {"agents.penalty_weight": 0.0},
    "one member": {"agents.reward_combination": "scalar"},
    "no priorities": {"agents.priority_exponent": 0.0},
    "no smoothing": {"agents.smoothing": 1e-6},
    "no sharing": {"agents.share_every": 0},
    "one replica": {"train.replicas": 1},
}
SHARED = "shared/reward"  # in the last quarter of the rounds
SILENT = "no agents"  # has no language models
APART = (SILENT, "no rewriting", "one replica")  # have supervised stages of their own


def main() -> None:
    folders = [Path(folder) for folder in flags.FLAGS.data]
    names = flags.FLAGS.switches or list(SWITCHES)
    everywhere = cells.changes(flags.FLAGS.change)
    wanted = [
        cells.Cell(folder, seed, name, {**everywhere, **SWITCHES[name]}, None if name in APART else everywhere)
        for name in dict.fromkeys(["all", *names])
        for folder in folders
        for seed in range(flags.FLAGS.seeds)
    ]
    out = Path(flags.FLAGS.out)
    found = cells.run(wanted, out, flags.FLAGS.split)
    measured = "".join(f"{name:>8}{'change, 95%':>21}" for name in ("F1", "reward"))
    print(f"{'data':<18}{'switched off':<20}{measured}{'tokens read':>14}")
    for data, name, whole, runs in _pairs(wanted, found):
        print(line(data, name, whole, runs))
    with progress.bar(len(wanted), "ranking", unit="cell") as bar:
        for cell, run in zip(wanted, found, strict=True):
            if cell.switch != SILENT:
                find = functools.partial(rankings.without_labels, out / cell.name)
                run["rankings"] = cells.kept(out / f"{cell.name}.rankings.json", find)
            bar.update()
    measured = "".join(f"{who:>29}" for who in rankings.ORDERS)
    print(f"\nwhere partners stand, mean reciprocal rank\n{'data':<18}{'switched off':<20}{measured}")
    for data, name, whole, runs in _pairs(wanted, found):
        if name != SILENT:
            print(ranked(data, name, whole, runs))


def _pairs(
    wanted: Sequence[cells.Cell], found: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Of each data set and switch: their names, the whole runs, and those without the part."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for cell, run in zip(wanted, found, strict=True):
        groups.setdefault(cell.data.name, {}).setdefault(cell.switch, []).append(run)
    for data, group in groups.items():
        for name, runs in group.items():
            yield data, name, group["all"], runs


def line(data: str, name: str, whole: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> str:
    """One part: F1 and shared reward without it, the paired differences to the whole with their intervals, tokens read.

    The intervals are Student's t. Where nothing is learned by reward there is no shared reward to print.
    """
    before, after = ([100 * run["scores"]["pairs"]["f1"] for run in group] for group in (whole, runs))
    read = cells.spread([run["summary"]["tokens"].get("read by the actor", 0) for run in runs])[0]
    start = f"{data:<18}{name:<20}{difference(before, after, 1)}"
    if not all(SHARED in run["quarters"] for run in runs):
        return f"{start}{'none':>29}{read:>14.0f}"
    before, after = ([run["quarters"][SHARED][1] for run in group] for group in (whole, runs))
    return f"{start}{difference(before, after, 3)}{read:>14.0f}"


def ranked(data: str, name: str, whole: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> str:
    """One part: where partners stand without it in each order, and the paired differences to the whole."""
    text = f"{data:<18}{name:<20}"
    for who in rankings.ORDERS:
        before, after = ([100 * run["rankings"][who] for run in group] for group in (whole, runs))
        text += difference(before, after, 1)
    return text


def difference(whole: Sequence[float], runs: Sequence[float], places: int) -> str:
    """The mean without a part, and what the part's absence changes, paired, with its 95% interval."""
    changes = [without - having for having, without in zip(whole, runs, strict=True)]
    mean, half = cells.spread(changes)[0], cells.half_interval(changes)
    return f"{cells.spread(runs)[0]:>8.{places}f}{mean:>12.{places}f}{cells.plus_minus(half, places):<9}"


if __name__ == "__main__":
    flags.DEFINE_list("data", None, "folders of tables with gold, separated by commas", required=True)
    flags.DEFINE_integer("seeds", 3, "runs of each", lower_bound=1)
    flags.DEFINE_string("out", "runs/ablation", "folder of the cells")
    launch.define_choices("switches", list(SWITCHES), "parts to switch off; all by default")
    flags.DEFINE_list("change", [], "fields of the config changed in all cells, as NAME=VALUE,NAME=VALUE")
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    launch.run(main)
