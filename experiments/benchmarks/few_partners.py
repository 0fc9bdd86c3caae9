"""Few partners: a small made shop beside a large one that has little of what the small one sells, but much like it.

    python experiments/benchmarks/few_partners.py --seeds=3 --out=runs/few-partners

A cell is one run of the judge alone (`--change=train.rounds=12,train.pretrain_rounds=8` is the main job) on shops of
its own, so that the spread is that of shops and seeds; the same command goes on where it stopped. F1, its estimate
without labels and the baselines are of the whole catalogue, whose gold is exact. A minute a cell on 2 cores.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

import cells
import launch
import robustness
from aco_jax.data import catalogue

LARGE = 5000  # records of the large shop, before partners are taken from it


@dataclass(frozen=True)
class Setting:
    """The records of the small shop, the share of them that keeps its partners, and how differently shops speak."""

    records: int
    share: float
    difficulty: float

    @property
    def name(self) -> str:
        return f"{self.records}-{self.share:.0%}-{self.difficulty}"


SETTINGS = (
    Setting(1250, 0.3, 0.2),
    Setting(1250, 0.3, 0.5),
    Setting(1250, 0.3, 0.8),
    Setting(1000, 0.1, 0.35),
    Setting(2500, 0.3, 0.5),
)


def main() -> None:
    out, everywhere = Path(flags.FLAGS.out), cells.changes(flags.FLAGS.change)
    folders = {
        (setting, seed): robustness.write(made(setting, seed), out / "data" / f"{setting.name}-{seed}")
        for setting in SETTINGS
        for seed in range(flags.FLAGS.seeds)
    }
    wanted = [cells.Cell(folder, seed, "all", everywhere) for (_, seed), folder in folders.items()]
    found = dict(zip(folders, cells.run(wanted, out, "valid"), strict=True))
    print(f"{'records, share, difficulty':<28}{cells.CATALOGUE}")
    for setting in SETTINGS:
        mine = [cell["scores"] for (each, _), cell in found.items() if each == setting]
        print(f"{setting.name:<28}{cells.catalogue(mine)}")


def made(setting: Setting, seed: int, large: int = LARGE) -> robustness.Folder:
    """Two shops of the generator: of the first a part, from the second partners are gone until `share` is left."""
    generated = catalogue.generate(seed, 2, large, setting.difficulty)
    dataset, product, rng = generated.dataset, np.array(generated.products), np.random.default_rng([seed, large])
    first, second = np.arange(large), np.arange(large, 2 * large)
    small = np.sort(rng.choice(first, setting.records, replace=False))
    sold = np.unique(product[small])
    common = rng.permutation(np.intersect1d(sold, product[second]))
    kept = second[~np.isin(product[second], common[round(setting.share * len(sold)) :])]

    def frame(records: np.ndarray) -> pd.DataFrame:
        rows = [{"id": dataset.key(record)[1], **dataset.row(record)} for record in records.tolist()]
        return pd.DataFrame(rows).fillna("")

    there = {*small.tolist(), *kept.tolist()}
    pairs = [
        (dataset.key(left)[1], dataset.key(right)[1])
        for left, right, relation in generated.matches
        if relation == "same" and {left, right} <= there
    ]
    matches = pd.DataFrame(pairs, columns=["ltable_id", "rtable_id"])
    return robustness.Folder(frame(small), frame(kept), {"matches": matches})


if __name__ == "__main__":
    flags.DEFINE_integer("seeds", 3, "shops and runs of each setting", lower_bound=1)
    flags.DEFINE_string("out", "runs/few-partners", "folder of the cells")
    flags.DEFINE_list(
        "change", list(cells.JUDGE_ALONE), "fields of the config changed in all cells, as NAME=VALUE,NAME=VALUE"
    )
    launch.run(main)
