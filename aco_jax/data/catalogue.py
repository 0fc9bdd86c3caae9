"""Related catalogues of made-up shops, with exact gold.

Products come in families whose members differ in one fact at a time (size, colour, type, pack, series), so
that likeness of wording misleads and facts decide. Every shop has its own columns, wordings, units and
ways to write a model code, sells products that no other shop has, and lists some twice.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from aco_jax.data.files import InputError
from aco_jax.data.records import MAX_TABLES, Dataset, Relation, Table, write_table
from aco_jax.data.shops import Product, Style, describe, describe_more, new_style
from aco_jax.data.wares import COLOURS, COLUMNS, ENDS, KINDS, LINKS, ONSETS, PACKS, SUFFIXES, VOWELS, WARRANTIES, Kind

SHOPS = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "hazel", "juniper")
RELATIONS = (
    Relation("same", "Both records describe one and the same product.", max_partners=None),
    Relation(
        "substitute",
        "Two different products of one kind and of the same main measure, so that one can stand in for the other.",
        max_partners=None,
    ),
    Relation("complement", "One product is made to be used with the other and fits it.", max_partners=None),
)
Match = tuple[int, int, str]  # record of the earlier table, record of the later table, relation's name

_UNIVERSE = 1.5  # products for each record of a shop
_SIZES = (8, 100_000)  # records of a shop
_ADDED = 0.2  # a later delivery's new records for each old one
_FACT_LETTERS = "ABCDEF"


@dataclass(frozen=True, eq=False)
class Generated:
    """A data set and its gold.

    `matches` holds every related pair of records of different shops, sorted; all other pairs are unrelated.
    `products` N numbers: records with the same number are the same. `added` are a later delivery's records.
    """

    dataset: Dataset
    matches: list[Match]
    products: tuple[int, ...]
    added: tuple[int, ...]
    families: tuple[int, ...]

    def write(self, folder: str | Path) -> None:
        """<shop>.csv, matches.csv (relation `same` only) and valid.csv (a sample of all, "unrelated" too)."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for table in self.dataset.tables:
            write_table(table, path / f"{table.name}.csv")
        self._write_pairs(path / "matches.csv", [m for m in self.matches if m[2] == "same"], "relation")
        self._write_pairs(path / "valid.csv", _sample(self), "label")

    def _write_pairs(self, path: Path, pairs: list[Match], last: str) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("ltable", "ltable_id", "rtable", "rtable_id", last))
            writer.writerows((*self.dataset.key(left), *self.dataset.key(right), name) for left, right, name in pairs)


def generate(
    seed: int, shops: int = 3, size: int = 300, difficulty: float = 0.5, delivery: bool = False
) -> Generated:
    """Catalogues of `shops` shops with `size` records each, a pure function of the arguments.

    `difficulty` in [0, 1]: at 0 all shops speak alike. With `delivery` each shop holds the same records and
    then new ones, and new columns weight and warranty. Raises InputError for impossible sizes.
    """
    if not 2 <= shops <= MAX_TABLES:
        raise InputError(f"shops {shops}: expected 2 to {MAX_TABLES}")
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise InputError(f"size {size}: expected {_SIZES[0]} to {_SIZES[1]} records a shop")
    if not 0.0 <= difficulty <= 1.0:
        raise InputError(f"difficulty {difficulty}: expected 0 to 1")
    old, new = round(_UNIVERSE * size), round(_UNIVERSE * size * _ADDED)
    universe = _universe(np.random.default_rng([seed, 0]), old + new, difficulty)
    tables, products, added = [], [], []
    for shop in range(shops):
        style = new_style(np.random.default_rng([seed, 1, shop]), SHOPS[shop], shop, difficulty)
        carried = _assortment(np.random.default_rng([seed, 2, shop]), old, size, difficulty)
        if delivery:
            rest = np.setdiff1d(np.arange(old + new), carried)
            fresh = np.random.default_rng([seed, 3, shop]).choice(rest, round(size * _ADDED), replace=False)
            added += range(len(products) + size, len(products) + size + len(fresh))
            carried = np.concatenate([carried, fresh])
        products += carried.tolist()
        tables.append(_table(seed, shop, [universe[i] for i in carried], style, difficulty, delivery))
    dataset = Dataset(tuple(tables), RELATIONS)
    families = tuple(universe[i].family for i in products)
    return Generated(dataset, _gold(dataset, universe, products), tuple(products), tuple(added), families)


def later(seed: int, shops: int = 3, size: int = 300, difficulty: float = 0.5) -> Generated:
    """The later delivery of `generate` with the same arguments: its records first, as they were."""
    return generate(seed, shops, size, difficulty, delivery=True)


def relate(a: Product, b: Product) -> str:
    """What holds between two products, "unrelated" where nothing does."""
    if a == b:
        return "same"
    if a.kind == b.kind and a.measure == b.measure:
        return "substitute"
    for link in LINKS:
        if (link.left, link.right) in ((a.kind.name, b.kind.name), (b.kind.name, a.kind.name)) and all(
            _linked(a, fact) == _linked(b, fact) for fact in link.on
        ):
            return "complement"
    return "unrelated"


def _universe(rng: np.random.Generator, count: int, difficulty: float) -> list[Product]:
    """At least `count` products, cut there, so that more products only add to the end."""
    taken: set[str] = set()
    brands = {
        department: [_brand(rng, taken) for _ in range(3)]
        for department in sorted({kind.department for kind in KINDS})
    }
    found: list[Product] = []
    family = 0
    while len(found) < count:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        brand = brands[kind.department][int(rng.integers(3))]
        found += _family(rng, family, kind, brand, _name(rng, taken), difficulty)
        family += 1
    return found[:count]


def _family(
    rng: np.random.Generator, family: int, kind: Kind, brand: tuple[str, ...], line: str, difficulty: float
) -> list[Product]:
    """Siblings: each differs from one before it in exactly one fact."""
    choices = {
        "measure": list(kind.measures),
        "option": list(range(len(kind.options))),
        "colour": list(range(len(COLOURS))),
        "series": [2, 3, 5, 7, 8],
        "pack": list(PACKS) if kind.price < 65 else [1],
    }
    names = [name for name in choices if len(choices[name]) > 1]
    varying = sorted(rng.choice(names, 2, replace=False).tolist())
    needed = tuple({fact for link in LINKS if kind.name in (link.left, link.right) for fact in link.on})
    facts = {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}
    facts["pack"] = facts["pack"] if "pack" in varying else 1
    stem = f"{line[:3].upper()}-{int(rng.integers(10, 100))}"
    base = kind.price * float(rng.lognormal(0.0, 0.4))
    warranty = int(rng.integers(len(WARRANTIES)))
    members = [facts]
    for _ in range(int(rng.integers(1, 3 + round(4 * difficulty)))):
        name = varying[int(rng.integers(len(varying)))]
        other = choices[name][int(rng.integers(len(choices[name])))]
        sibling = {**members[int(rng.integers(len(members)))], name: other}
        if sibling not in members:
            members.append(sibling)
    return [
        _product(rng, facts, kind, family, brand, line, tuple(varying), needed, stem, base, warranty)
        for facts in members
    ]
