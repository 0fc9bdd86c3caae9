"""What the defaults make of tables that are worse than the ones at hand: the same runs on changed copies of them.

    python experiments/robustness.py --data=DIR,DIR --seeds=1 --out=runs/robustness [--changes=NAME,NAME]

DIR holds tableA.csv and tableB.csv with their gold. A cell is one run of the main job and has one JSON file; the same
command goes on where it stopped. `--change=train.rounds=0,train.pretrain_rounds=0` is the judge alone: a minute a cell
on 2 cores instead of five.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from absl import flags

import cells
import launch
from aco_jax.data import noise
from aco_jax.data.records import GOLD, InputError

REPEATED, REMOVED, LOST = 0.2, 1 / 3, 0.9  # shares of the right table's records, LOST of those with a partner
MOST = 4  # times a record is said
MISPLACED = 0.5  # share of values
STRENGTH = 0.5  # of the copies' rewording
KEPT, SYNONYMS = 0.1, 0.3  # shares of the words that another language keeps, and for which it has two
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
_LETTERS, _DIGIT = re.compile(r"[^\W\d_]+"), re.compile(r"\d")


@dataclass(frozen=True)
class Folder:
    """Two tables and the gold there is; all cells are text, '' where missing."""

    left: pd.DataFrame
    right: pd.DataFrame
    gold: Mapping[str, pd.DataFrame]


def same(folder: Folder, rng: np.random.Generator) -> Folder:
    """Nothing is changed."""
    del rng
    return folder


def swapped(folder: Folder, rng: np.random.Generator) -> Folder:
    """The tables have changed places."""
    del rng
    turned = {"ltable_id": "rtable_id", "rtable_id": "ltable_id"}
    gold = {name: pairs.rename(columns=turned) for name, pairs in folder.gold.items()}
    return Folder(folder.right, folder.left, gold)


def repeated(folder: Folder, rng: np.random.Generator) -> Folder:
    """A fifth of the right table is said twice, in other words and under another id."""
    return _said(folder, rng, "right", rng.permutation(len(folder.right))[: int(REPEATED * len(folder.right))])


def many(folder: Folder, rng: np.random.Generator) -> Folder:
    """Every record of both tables is said once to MOST times, in other words each time: partners are many."""
    for side in ("left", "right"):
        count = len(getattr(folder, side))
        folder = _said(folder, rng, side, np.repeat(np.arange(count), rng.integers(0, MOST, count)))
    return folder


def thinned(folder: Folder, rng: np.random.Generator) -> Folder:
    """A third of the right table is gone."""
    return _left_with(
        folder, folder.right.iloc[np.sort(rng.permutation(len(folder.right))[int(REMOVED * len(folder.right)) :])]
    )


def few(folder: Folder, rng: np.random.Generator) -> Folder:
    """Nine of ten of the right table's records that are known to have a partner are gone."""
    partners = _related(folder)
    gone = rng.permutation(partners)[: int(LOST * len(partners))]
    return _left_with(folder, folder.right[~folder.right["id"].isin(gone)])


def strangers(folder: Folder, rng: np.random.Generator) -> Folder:
    """Half of the right table's records that are known to have a partner are others now, with half of their titles."""
    related = _related(folder)
    gone, table = rng.permutation(related)[: len(related) // 2], folder.right
    rows, (title, *others) = np.flatnonzero(table["id"].isin(gone)), table.columns.drop("id")
    right = table.copy()
    for name in others:
        right.loc[rows, name] = rng.permutation(table[name])[: len(rows)]
    halves = [
        (text.split(), other.split()) for text, other in zip(table[title], rng.permutation(table[title]), strict=True)
    ]
    right.loc[rows, title] = [
        " ".join([*ours[: -(-len(ours) // 2)], *theirs[len(theirs) // 2 :]])
        for ours, theirs in (halves[i] for i in rows)
    ]
    gold = {}
    for name, pairs in folder.gold.items():
        other = pairs["rtable_id"].isin(gone)
        gold[name] = pairs.assign(label=pairs["label"].where(~other, "0")) if "label" in pairs else pairs[~other]
    return Folder(folder.left, right, gold)


def misplaced(folder: Folder, rng: np.random.Generator) -> Folder:
    """Half of all values have moved to a column drawn at random, behind what is there."""
    return _moved(folder, rng, lambda columns: str(rng.choice(columns)))


def gathered(folder: Folder, rng: np.random.Generator) -> Folder:
    """Half of all values have moved to the first column, behind what is there."""
    return _moved(folder, rng, lambda columns: columns[0])


def titles(folder: Folder, rng: np.random.Generator) -> Folder:
    """Of every record only the first column is left."""
    del rng
    left, right = (table[["id", next(c for c in table.columns if c != "id")]] for table in (folder.left, folder.right))
    return Folder(left, right, folder.gold)


def foreign(folder: Folder, rng: np.random.Generator) -> Folder:
    """The right table is in another language, made up word by word; numbers, codes and some names are kept."""
    forms: dict[str, list[str]] = {}

    def spoken(found: re.Match[str]) -> str:
        word = found.group().lower()
        if word not in forms:
            count = 0 if rng.random() < KEPT else 1 + int(rng.random() < SYNONYMS)
            forms[word] = [_made_up(rng) for _ in range(count)] or [word]
        return str(rng.choice(forms[word]))

    def said(text: str) -> str:
        parts = text.split()
        return " ".join(part if _DIGIT.search(part) else _LETTERS.sub(spoken, part) for part in parts)

    right = folder.right.copy()
    for name in right.columns.drop("id"):
        right[name] = [said(text) for text in right[name]]
    return Folder(folder.left, right, folder.gold)


def _related(folder: Folder) -> np.ndarray:
    """The ids of the right table's records that are known to have a partner."""
    related = [pairs[pairs["label"] == "1"] if "label" in pairs else pairs for pairs in folder.gold.values()]
    return pd.concat(related)["rtable_id"].unique()


def _made_up(rng: np.random.Generator) -> str:
    return "".join(str(rng.choice(list((CONSONANTS, VOWELS)[n % 2]))) for n in range(2 * int(rng.integers(2, 5))))


def _moved(folder: Folder, rng: np.random.Generator, to: Callable[[list[str]], str]) -> Folder:
    def move(table: pd.DataFrame) -> pd.DataFrame:
        columns = [name for name in table.columns if name != "id"]
        rows = []
        for row in table.to_dict("records"):
            moved = {"id": row["id"]} | dict.fromkeys(columns, "")
            for name in columns:
                place = to(columns) if rng.random() < MISPLACED else name
                moved[place] = f"{moved[place]} {row[name]}".strip()
            rows.append(moved)
        return pd.DataFrame(rows)

    return Folder(move(folder.left), move(folder.right), folder.gold)


def _said(folder: Folder, rng: np.random.Generator, side: Literal["left", "right"], chosen: np.ndarray) -> Folder:
    """The records `chosen` [n] of one table, each as often as it is there, are said again under other ids."""
    table, column = getattr(folder, side), {"left": "ltable_id", "right": "rtable_id"}[side]
    before = table.iloc[chosen]
    names = [f"again {old}" + "'" * int((chosen[:n] == chosen[n]).sum()) for n, old in enumerate(before["id"])]
    rows = before.drop(columns="id").to_dict("records")
    copies = pd.DataFrame([noise.corrupt(rng, row, STRENGTH) for row in rows]).assign(id=names)
    renamed = pd.DataFrame({column: before["id"].to_numpy(), "name": names})
    gold = {}
    for name, pairs in folder.gold.items():
        again = pairs.merge(renamed, on=column).drop(columns=column).rename(columns={"name": column})
        gold[name] = pd.concat([pairs, again], ignore_index=True)
    return dataclasses.replace(folder, gold=gold, **{side: pd.concat([table, copies], ignore_index=True).fillna("")})


def _left_with(folder: Folder, right: pd.DataFrame) -> Folder:
    """The folder with these records of its right table, and the gold about them."""
    gold = {name: pairs[pairs["rtable_id"].isin(right["id"])] for name, pairs in folder.gold.items()}
    return Folder(folder.left, right, gold)


CHANGES: dict[str, Callable[[Folder, np.random.Generator], Folder]] = {
    change.__name__: change
    for change in (same, swapped, repeated, many, thinned, few, strangers, misplaced, gathered, titles, foreign)
}


def main() -> None:
    out, names = Path(flags.FLAGS.out), flags.FLAGS.changes or list(CHANGES)
    everywhere = cells.changes(flags.FLAGS.change)
    folders = [
        write(CHANGES[name](read(path), np.random.default_rng(0)), out / "data" / f"{path.name}-{name}")
        for path in map(Path, flags.FLAGS.data)
        for name in names
    ]
    seeds = range(flags.FLAGS.seeds)
    wanted = [cells.Cell(path, seed, "all", everywhere) for path in folders for seed in seeds]
    found = cells.run(wanted, out, flags.FLAGS.split)
    print(f"{'data, change':<30}{'ACO F1':>14}{'label-free':>12}{cells.BASELINES}")
    for path in folders:
        scores = [cell["scores"] for cell in found if cell["data"] == path.name]
        mean, deviation = cells.spread([100 * score["pairs"]["f1"] for score in scores])
        estimate = cells.spread([100 * score["pairs"]["label_free_f1"] for score in scores])[0]
        print(f"{path.name:<30}{mean:>7.1f}{cells.plus_minus(deviation)}{estimate:>12.1f}{cells.baselines(scores)}")


def read(path: Path) -> Folder:
    """The two tables of a folder and its gold. Raises InputError where a table or all gold is missing."""
    for table in ("tableA.csv", "tableB.csv"):
        if not (path / table).is_file():
            raise InputError(f"{path / table}: no such file, expected tableA.csv and tableB.csv")

    def frame(name: str) -> pd.DataFrame:
        return pd.read_csv(path / f"{name}.csv", dtype=str, keep_default_na=False)

    gold = {name: frame(name) for name in GOLD if (path / f"{name}.csv").is_file()}
    if not gold:
        raise InputError(f"{path}: none of {', '.join(f'{name}.csv' for name in GOLD)}, expected gold to score by")
    return Folder(frame("tableA"), frame("tableB"), gold)


def write(folder: Folder, path: Path) -> Path:
    """Writes a folder, and gives its path back."""
    path.mkdir(parents=True, exist_ok=True)
    for name, frame in {"tableA": folder.left, "tableB": folder.right, **folder.gold}.items():
        frame.to_csv(path / f"{name}.csv", index=False, lineterminator="\n")
    return path


if __name__ == "__main__":
    flags.DEFINE_list("data", None, "folders of two tables with gold, separated by commas", required=True)
    launch.define_choices("changes", list(CHANGES), "what is changed; everything by default")
    flags.DEFINE_integer("seeds", 1, "runs of each", lower_bound=1)
    flags.DEFINE_string("out", "runs/robustness", "folder of the cells")
    flags.DEFINE_list("change", [], "fields of the config changed in all cells, as NAME=VALUE,NAME=VALUE")
    flags.DEFINE_string("split", "valid", "which labelled pairs")
    launch.run(main)
