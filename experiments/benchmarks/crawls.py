"""A table beside a crawl: a part of its records said 1 to 12 times in other words, among strangers like them.

    python experiments/benchmarks/crawls.py --data=DIR --out=runs/crawls [--crawls=SIZE:SHARE,..]

DIR holds a tableA.csv whose first column is a title, as that of DBLP-ACM is. A crawl of SIZE records is made of it:
strangers' titles are drawn word by word from what follows what in its titles (Shannon 1948), after one word, or, in a
SHARE of the strangers, after two, which gives long pieces of real titles; their other values are those of records drawn
at random. A cell is one run of the judge alone, scored on the whole catalogue, whose gold is exact; the same command
goes on where it stopped. A minute a cell of 12,000 records on 2 cores, five for 64,000.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

import cells
import launch
import robustness
from aco_jax.data import noise
from aco_jax.data.records import InputError

CRAWLS = ("12000:0", "12000:0.1", "12000:0.3", "16000:1", "64000:0.1")
SAID, MOST, ANOTHER = 0.63, 12, 0.6  # share of the records that are said; times; chance that a record is said once more
STRENGTH = (0.2, 0.6)  # of the rewording
LONGEST = 16  # words of a stranger's title
THERE = 0.65  # chance that a stranger has a value
TRIES = 1000  # walks until one is no real title: such a record would be no stranger
END = ""  # no word


@dataclass(frozen=True)
class Setting:
    """Records of a crawl, and the share of its strangers that have long pieces of real titles."""

    records: int
    pieces: float

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Raises InputError where it is no SIZE:SHARE."""
        records, _, pieces = text.partition(":")
        try:
            setting = cls(int(records), float(pieces))
        except ValueError:
            setting = cls(0, 0.0)
        if setting.records < 1 or not 0 <= setting.pieces <= 1:
            raise InputError(f"--crawls={text}: expected SIZE:SHARE, as 12000:0.1")
        return setting

    @property
    def name(self) -> str:
        return f"{self.records}-{self.pieces:.0%}"


def main() -> None:
    path, out = Path(flags.FLAGS.data), Path(flags.FLAGS.out)
    settings, everywhere = [Setting.parse(text) for text in flags.FLAGS.crawls], cells.changes(flags.FLAGS.change)
    table, seeds = robustness.read(path).left, range(flags.FLAGS.seeds)
    folders = [
        (robustness.write(made(table, setting, seed), out / "data" / f"{setting.name}-{seed}"), seed)
        for setting in settings
        for seed in seeds
    ]
    found = cells.run([cells.Cell(folder, seed, "all", everywhere) for folder, seed in folders], out, "valid")
    print(f"{'crawl of records, pieces':<28}{cells.CATALOGUE}")
    for number, setting in enumerate(settings):
        mine = found[number * len(seeds) : (number + 1) * len(seeds)]
        print(f"{setting.name:<28}{cells.catalogue([cell['scores'] for cell in mine])}")


def made(table: pd.DataFrame, setting: Setting, seed: int) -> robustness.Folder:
    """The table and a crawl of it, with the gold.

    Raises InputError where the crawl is too small for what is said, and where no stranger can be made.
    """
    rng = np.random.default_rng([seed, setting.records])
    title, *others = [str(name) for name in table.columns.drop("id")]
    records = table.to_dict("records")
    chosen = rng.permutation(len(records))[: round(SAID * len(records))]
    times = np.minimum(MOST, rng.geometric(1 - ANOTHER, len(chosen)))
    if times.sum() > setting.records:
        raise InputError(f"--crawls={setting.records}:{setting.pieces}: expected {times.sum()} records or more")
    said = [records[i] for i in np.repeat(chosen, times)]
    rows = [noise.corrupt(rng, {name: row[name] for name in (title, *others)}, rng.uniform(*STRENGTH)) for row in said]
    titles = [row[title].split() for row in records]
    real, short, long = {tuple(words) for words in titles}, _followers(titles, 1), _followers(titles, 2)
    while len(rows) < setting.records:
        walk = partial(_walk, rng, *((long, 2) if rng.random() < setting.pieces else (short, 1)))
        stranger = next((words for words in (walk() for _ in range(TRIES)) if words not in real), None)
        if stranger is None:
            raise InputError(f"{title}: {TRIES} times a title that there is, expected titles that share more words")
        values = {name: records[rng.integers(len(records))][name] if rng.random() < THERE else "" for name in others}
        rows.append({title: " ".join(stranger), **values})
    order = rng.permutation(len(rows))
    ids = np.array([f"c{place}" for place in np.argsort(order)])
    crawl = pd.DataFrame([rows[i] for i in order], columns=[title, *others])
    crawl.insert(0, "id", ids[order])
    matches = pd.DataFrame({"ltable_id": [row["id"] for row in said], "rtable_id": ids[: len(said)]})
    return robustness.Folder(table, crawl, {"matches": matches})


def _followers(titles: Sequence[Sequence[str]], order: int) -> dict[tuple[str, ...], list[str]]:
    """What follows each run of `order` words, as often as it does, END before the first word and after the last."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for words in titles:
        padded = [END] * order + [*words, END]
        for place in range(order, len(padded)):
            found[tuple(padded[place - order : place])].append(padded[place])
    return found


def _walk(rng: np.random.Generator, followers: dict[tuple[str, ...], list[str]], order: int) -> tuple[str, ...]:
    """A title drawn word by word."""
    words = [END] * order
    while len(words) < LONGEST + order:
        choices = followers[tuple(words[-order:])]
        word = choices[rng.integers(len(choices))]
        if word == END:
            break
        words.append(word)
    return tuple(words[order:])


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "folder whose tableA.csv has a title first, beside gold", required=True)
    flags.DEFINE_list(
        "crawls", list(CRAWLS), "records and share of strangers with long pieces of titles, each SIZE:SHARE"
    )
    flags.DEFINE_integer("seeds", 1, "crawls and runs of each setting", lower_bound=1)
    flags.DEFINE_string("out", "runs/crawls", "folder of the cells")
    flags.DEFINE_list("change", list(cells.JUDGE_ALONE), "fields of the config changed in all cells, as NAME=VALUE,..")
    launch.run(main)
