"""Related catalogues of made-up shops, with exact gold.

Products come in families whose members differ in one fact at a time (size, colour, type, pack, series), so
that likeness of wording misleads and facts decide. Every shop has its own columns, wordings, units and
ways to write a model code, sells products that no other shop has, and lists some twice.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from aco_jax.data.files import InputError
from aco_jax.data.records import MAX_TABLES, Dataset, Relation, Table, write_table
from aco_jax.data.shops import Product, Style, describe, describe_more, new_style
from aco_jax.data.wares import COLOURS, ENDS, KINDS, LINKS, ONSETS, PACKS, SUFFIXES, VOWELS, WARRANTIES

SHOPS = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "hazel", "juniper")
RELATIONS = (
    Relation("same", "Both records describe one and the same product."),
    Relation(
        "substitute",
        "Two different products of one kind and one main measure: one can stand in for the other.",
    ),
    Relation("complement", "One product is made to be used with the other and fits it."),
)
Match = tuple[int, int, str]  # record of the earlier table, record of the later table, relation's name

_UNIVERSE = 1.3  # products for each record of a shop
_SIZES = (8, 5000)  # records of a shop; gold grows with the square
_ADDED = 0.2  # a later delivery's new records for each old one
_SERIES = (2, 3, 5, 7, 8)
_CHEAP = 65  # kinds up to this price also come in packs
_LETTERS = "ABCDEF"


@dataclass(frozen=True, eq=False)
class Generated:
    """A data set and its gold.

    `matches` holds every related pair of records of different shops, sorted; all other pairs are unrelated.
    `products` N numbers: records with the same number are the same. `families` N numbers: products that
    differ in few facts. `added` are a later delivery's records.
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


def generate(seed: int, shops: int = 3, size: int = 300, difficulty: float = 0.5, delivery: bool = False) -> Generated:
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
    tables: list[Table] = []
    products: list[int] = []
    added: list[int] = []
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
    if a.kind == b.kind and a.facts["measure"] == b.facts["measure"]:
        return "substitute"
    for link in LINKS:
        if (link.left, link.right) in ((a.kind.name, b.kind.name), (b.kind.name, a.kind.name)) and all(
            _linked(a, fact) == _linked(b, fact) for fact in link.on
        ):
            return "complement"
    return "unrelated"


def _universe(rng: np.random.Generator, count: int, difficulty: float) -> list[Product]:
    """Products in families, `count` of them."""
    taken: set[str] = set()
    departments = sorted({kind.department for kind in KINDS})
    brands = {department: [_brand(rng, taken) for _ in range(3)] for department in departments}
    found: list[Product] = []
    family = 0
    while len(found) < count:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        line, stem = _line(rng, taken)
        base = Product(
            kind=kind,
            family=family,
            brand=brands[kind.department][int(rng.integers(3))],
            line=line,
            facts={},
            varying=(),
            needed=tuple(fact for link in LINKS if kind.name in (link.left, link.right) for fact in link.on),
            code=stem,
            price=kind.price * float(rng.lognormal(0.0, 0.4)),
            weight=0.0,
            warranty=int(rng.integers(len(WARRANTIES))),
        )
        alone = rng.random() >= 0.08 + 0.2 * difficulty
        found += _family(rng, base, 0 if alone else int(rng.integers(1, 4)))
        family += 1
    return found[:count]


def _family(rng: np.random.Generator, base: Product, siblings: int) -> list[Product]:
    """One product and at most `siblings` more: each differs from one before it in exactly one fact."""
    choices: dict[str, Sequence[float]] = {
        "measure": base.kind.measures,
        "option": range(len(base.kind.options)),
        "colour": range(len(COLOURS)),
        "series": _SERIES,
        "pack": list(PACKS) if base.kind.price < _CHEAP else (1,),
    }
    names = [name for name in choices if len(choices[name]) > 1]
    varying = tuple(names[i] for i in rng.choice(len(names), 2, replace=False))
    facts = {name: _pick(rng, values) for name, values in choices.items()}
    facts["pack"] = facts["pack"] if "pack" in varying else 1
    members = [facts]
    for _ in range(siblings):
        name = varying[int(rng.integers(len(varying)))]
        sibling = {**members[int(rng.integers(len(members)))], name: _pick(rng, choices[name])}
        if sibling not in members:
            members.append(sibling)
    return [_member(rng, replace(base, facts=facts, varying=varying)) for facts in members]


def _member(rng: np.random.Generator, product: Product) -> Product:
    """The product with the code, price and weight that follow from its facts."""
    facts, measures = product.facts, product.kind.measures
    place = measures.index(facts["measure"])
    letters = _LETTERS[int(facts["option"])] + _LETTERS[int(facts["colour"])]
    pack = "" if facts["pack"] == 1 else f"{int(facts['pack'])}"
    size = (facts["measure"] / measures[len(measures) // 2]) ** 0.5
    return replace(
        product,
        code=f"{product.code}{int(facts['series'])}{place}{letters}{pack}",
        price=product.price * size * facts["pack"] ** 0.8 * float(rng.uniform(0.97, 1.03)),
        weight=0.1 * product.kind.price**0.5 * size * facts["pack"] * float(rng.uniform(0.9, 1.1)),
    )


def _assortment(rng: np.random.Generator, universe: int, size: int, difficulty: float) -> np.ndarray:
    """[size] products that a shop lists, in its order; a few stand twice."""
    repeats = round(size * (0.02 + 0.03 * difficulty))
    once = rng.choice(universe, size - repeats, replace=False)
    return rng.permutation(np.concatenate([once, rng.choice(once, repeats, replace=False)]))


def _table(seed: int, shop: int, products: Sequence[Product], style: Style, difficulty: float, delivery: bool) -> Table:
    rng = np.random.default_rng([seed, 4, shop])
    rows = [list(describe(rng, product, style, difficulty).values()) for product in products]
    columns = tuple(style.columns.values())
    if delivery:
        rng = np.random.default_rng([seed, 5, shop])
        rows = [
            [*row, *describe_more(rng, product, style, difficulty)] for row, product in zip(rows, products, strict=True)
        ]
        columns += style.more_columns
    numbers = np.random.default_rng([seed, 6, shop]).permutation(9 * _SIZES[1])[: len(rows)]
    ids = tuple(f"{style.name[0]}{100_000 + number}" for number in numbers.tolist())
    return Table(style.name, ids, columns, np.array(rows, dtype=object))


def _gold(dataset: Dataset, universe: Sequence[Product], products: Sequence[int]) -> list[Match]:
    """Every related pair of records of two tables, found by product and not by record."""
    records: dict[tuple[int, int], list[int]] = defaultdict(list)  # (table, product) -> records
    for record, product in enumerate(products):
        records[int(dataset.table_of[record]), product].append(record)
    related = _related(universe)
    matches = [
        (left, right, name)
        for i, j in combinations(range(len(dataset.tables)), 2)
        for (table, product), lefts in records.items()
        if table == i
        for other, name in related[product]
        for left in lefts
        for right in records.get((j, other), ())
    ]
    return sorted(matches)


def _related(universe: Sequence[Product]) -> list[list[tuple[int, str]]]:
    """For each product, the products that it relates to (itself too) and how."""
    like: dict[tuple[str, float], list[int]] = defaultdict(list)  # (kind, measure)
    for number, product in enumerate(universe):
        like[product.kind.name, product.facts["measure"]].append(number)
    partners = defaultdict(list)
    for link in LINKS:
        partners[link.left].append(link.right)
        partners[link.right].append(link.left)
    found = []
    for product in universe:
        kinds = [product.kind.name, *partners[product.kind.name]]
        near = [other for kind in kinds for other in like[kind, product.facts["measure"]]]
        named = [(other, relate(product, universe[other])) for other in near]
        found.append([(other, name) for other, name in named if name != "unrelated"])
    return found


def _sample(generated: Generated) -> list[Match]:
    """Pairs for evaluation: some of each relation, and as many unrelated ones, half of them siblings."""
    dataset = generated.dataset
    each = max(len(table.ids) for table in dataset.tables) // 2
    rng = np.random.default_rng([each, len(generated.matches)])
    known = {(left, right) for left, right, _ in generated.matches}
    chosen: list[Match] = []
    for name in (relation.name for relation in dataset.relations):
        of = [match for match in generated.matches if match[2] == name]
        chosen += [of[i] for i in rng.permutation(len(of))[:each]]
    members: dict[int, list[int]] = defaultdict(list)
    for record, family in enumerate(generated.families):
        members[family].append(record)
    siblings = [
        pair
        for records in members.values()
        for pair in combinations(records, 2)
        if pair not in known and dataset.table_of[pair[0]] != dataset.table_of[pair[1]]
    ]
    unrelated = {siblings[i] for i in rng.permutation(len(siblings))[:each]}
    for left, right in rng.integers(0, dataset.size, (20 * each, 2)).tolist():
        if (
            dataset.table_of[left] < dataset.table_of[right]
            and (left, right) not in known
            and len(unrelated) < 2 * each
        ):
            unrelated.add((left, right))
    return sorted([*chosen, *((left, right, "unrelated") for left, right in unrelated)])


def _linked(product: Product, fact: str) -> object:
    return {"brand": product.brand, "measure": product.facts["measure"], "option": product.facts["option"]}[fact]


def _pick(rng: np.random.Generator, values: Sequence[float]) -> float:
    return values[int(rng.integers(len(values)))]


def _brand(rng: np.random.Generator, taken: set[str]) -> tuple[str, ...]:
    name = _name(rng, taken)
    return (name, f"{name} {SUFFIXES[int(rng.integers(len(SUFFIXES)))]}", name[:4] + ".")


def _line(rng: np.random.Generator, taken: set[str]) -> tuple[str, str]:
    line = _name(rng, taken)
    return line, _new(taken, lambda: f"{line[:3].upper()}-{int(rng.integers(10, 1000))}")


def _name(rng: np.random.Generator, taken: set[str]) -> str:
    def word() -> str:
        parts = [ONSETS, VOWELS, ONSETS, VOWELS, ENDS]
        return "".join(part[int(rng.integers(len(part)))] for part in parts).capitalize()

    return _new(taken, word)


def _new(taken: set[str], draw: Callable[[], str]) -> str:
    while (name := draw()) in taken:
        pass
    taken.add(name)
    return name
