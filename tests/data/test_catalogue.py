"""The generator: exact and consistent gold, siblings that only facts tell apart, files that are read back."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aco_jax.data import catalogue, records
from aco_jax.data.catalogue import Generated
from aco_jax.data.records import InputError
from aco_jax.data.shops import measure_text
from aco_jax.data.wares import COLOURS, COLUMNS, KINDS, LINKS, PACKS, UNITS


@pytest.fixture(scope="module")
def made() -> Generated:
    return catalogue.generate(3, shops=4, size=80, difficulty=0.6)


def test_a_pure_function_of_its_arguments(made: Generated) -> None:
    again = catalogue.generate(3, shops=4, size=80, difficulty=0.6)
    other = catalogue.generate(4, shops=4, size=80, difficulty=0.6)
    assert again.dataset.fingerprint == made.dataset.fingerprint != other.dataset.fingerprint
    assert again.matches == made.matches


def test_shape_of_the_shops(made: Generated) -> None:
    data = made.dataset
    assert [len(table.ids) for table in data.tables] == [80] * 4
    assert [table.name for table in data.tables] == sorted(table.name for table in data.tables)
    assert len({len(table.columns) for table in data.tables}) > 1
    assert len({table.columns for table in data.tables}) == 4
    assert all(data.text(record) for record in range(data.size))
    assert any(not cell for table in data.tables for cell in table.cells.ravel())


def test_same_is_an_equivalence_of_records_over_the_shops(made: Generated) -> None:
    data, products = made.dataset, made.products
    same = {(left, right) for left, right, name in made.matches if name == "same"}
    expected = {
        (left, right)
        for left in range(data.size)
        for right in range(left + 1, data.size)
        if products[left] == products[right] and data.table_of[left] != data.table_of[right]
    }
    assert same == expected
    shops_of = defaultdict(list)
    for record, product in enumerate(products):
        shops_of[product].append(int(data.table_of[record]))
    assert any(len(shops) > len(set(shops)) for shops in shops_of.values()), "a repeated record"
    assert any(len(set(shops)) == 1 for shops in shops_of.values()), "a product of one shop only"


def test_gold_names_each_pair_once_and_agrees_within_products(made: Generated) -> None:
    pairs = [match[:2] for match in made.matches]
    assert len(set(pairs)) == len(pairs)
    table_of = made.dataset.table_of
    assert all(table_of[left] < table_of[right] for left, right in pairs)
    assert made.matches == sorted(made.matches)
    named = defaultdict(set)
    for left, right, name in made.matches:
        named[frozenset((made.products[left], made.products[right]))].add(name)
    assert all(len(names) == 1 for names in named.values())
    assert set(Counter(name for _, _, name in made.matches)) == {"same", "substitute", "complement"}


def test_all_pairs_of_the_universe_are_found_by_the_grouping() -> None:
    universe = catalogue._universe(np.random.default_rng([3, 0]), 90, 0.5)
    related = catalogue._related(universe)
    for number, product in enumerate(universe):
        expected = {(i, name) for i, p in enumerate(universe) if (name := catalogue.relate(product, p)) != "unrelated"}
        assert set(related[number]) == expected
        assert len(related[number]) == len(expected)


def test_relations_follow_from_the_facts() -> None:
    universe = catalogue._universe(np.random.default_rng(0), 400, 0.5)
    drill = next(p for p in universe if p.kind.name == "cordless drill")
    battery = next(kind for kind in KINDS if kind.name == "tool battery")

    def with_facts(**facts: float) -> catalogue.Product:
        return replace(drill, facts={**drill.facts, **facts})

    other = next(m for m in drill.kind.measures if m != drill.facts["measure"])
    assert catalogue.relate(drill, drill) == "same"
    assert catalogue.relate(drill, with_facts(colour=(drill.facts["colour"] + 1) % 6)) == "substitute"
    assert catalogue.relate(drill, with_facts(measure=other)) == "unrelated"
    fits = replace(drill, kind=battery, line="Other")
    assert catalogue.relate(drill, fits) == catalogue.relate(fits, drill) == "complement"
    assert catalogue.relate(with_facts(measure=other), fits) == "unrelated"
    assert catalogue.relate(drill, replace(fits, brand=("Elsewhere",))) == "unrelated"


def test_siblings_differ_in_one_fact_and_one_sign_of_the_code_at_least() -> None:
    universe = catalogue._universe(np.random.default_rng(1), 300, 0.9)
    families = defaultdict(list)
    for product in universe:
        families[product.family].append(product)
    grown = [members for members in families.values() if len(members) > 1]
    assert len(grown) >= 20
    for members in grown:
        for product in members[1:]:
            apart = [
                sum(product.facts[name] != other.facts[name] for name in product.facts)
                for other in members
                if other is not product
            ]
            assert min(apart) == 1
    assert len({product.code for product in universe}) == len(universe)


def test_what_tells_siblings_apart_is_always_said(made: Generated) -> None:
    """At any difficulty each record states its measure in some wording, so that a reader can decide."""
    universe = catalogue._universe(np.random.default_rng([3, 0]), 125, 0.6)
    shops = {kind.name: kind for kind in KINDS}
    for record, number in enumerate(made.products):
        product = universe[number]
        kind = shops[product.kind.name]
        said = made.dataset.text(record).lower()
        wordings = [measure_text(kind.unit, product.facts["measure"], form).lower() for form in range(5)]
        numbers = [re.findall(r"[\d.]+", wording)[0] for wording in wordings]
        assert any(number in said for number in numbers), (said, wordings)


def test_measures_of_a_kind_stay_apart_in_every_wording() -> None:
    for kind in KINDS:
        for form in range(len(UNITS[kind.unit])):
            words = [measure_text(kind.unit, value, form) for value in kind.measures]
            assert len(set(words)) == len(words)
    assert measure_text("inch", 15.6, 2) == "39.6 cm"
    assert measure_text("gigabyte", 1000, 2) == "1 TB"


def test_no_wording_means_two_things() -> None:
    for group in (COLOURS, tuple(PACKS.values()), tuple(COLUMNS.values()), *(kind.options for kind in KINDS)):
        words = [word for wordings in group for word in wordings]
        assert len(set(words)) == len(words)
        assert all(len(wordings) == 4 for wordings in group)
    names = {kind.name for kind in KINDS}
    assert all({link.left, link.right} <= names for link in LINKS)


def test_a_later_delivery_keeps_the_old_and_adds_records_and_attributes() -> None:
    old, new = catalogue.generate(5, size=40), catalogue.later(5, size=40)
    known = set()
    for before, after in zip(old.dataset.tables, new.dataset.tables, strict=True):
        assert after.ids[:40] == before.ids
        assert len(after.ids) == 48
        assert after.columns[: len(before.columns)] == before.columns
        assert len(after.columns) == len(before.columns) + 2
        np.testing.assert_array_equal(after.cells[:40, : len(before.columns)], before.cells)
        assert (after.cells[:, -2:] != "").mean() > 0.6
        known |= {(before.name, i) for i in before.ids}
    assert {new.dataset.key(i) for i in new.added} == set(new.dataset.index) - known
    renamed = {
        (new.dataset.index[old.dataset.key(a)], new.dataset.index[old.dataset.key(b)], name)
        for a, b, name in old.matches
    }
    assert renamed < set(new.matches)


def test_the_files_are_read_back(made: Generated, tmp_path: Path) -> None:
    made.write(tmp_path / "set")
    data = records.read_folder(tmp_path / "set", relations=catalogue.RELATIONS)
    assert data.fingerprint == made.dataset.fingerprint
    matches = records.read_pairs(tmp_path / "set" / "matches.csv", data, "optional")
    same = {(left, right) for left, right, name in made.matches if name == "same"}
    assert set(zip(matches.left.tolist(), matches.right.tolist(), strict=True)) == same
    assert matches.label is None
    valid = records.read_pairs(tmp_path / "set" / "valid.csv", data, "required")
    assert valid.label is not None
    named = {(left, right): name for left, right, name in made.matches}
    for left, right, name in zip(valid.left.tolist(), valid.right.tolist(), valid.label, strict=True):
        assert named.get((left, right), "unrelated") == name
    count = Counter(valid.label)
    assert set(count) == {"same", "substitute", "complement", "unrelated"}
    siblings = sum(
        name == "unrelated" and made.families[left] == made.families[right]
        for left, right, name in zip(valid.left, valid.right, valid.label, strict=True)
    )
    assert siblings >= 5
    with (tmp_path / "set" / "valid.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["ltable", "ltable_id", "rtable", "rtable_id", "label"]


def test_difficulty_drives_the_wordings_apart() -> None:
    def overlap(difficulty: float) -> float:
        made = catalogue.generate(0, size=80, difficulty=difficulty)
        shares = []
        for left, right, name in made.matches:
            if name == "same":
                a, b = (set(made.dataset.text(i).lower().split()) for i in (left, right))
                shares.append(len(a & b) / len(a | b))
        return float(np.mean(shares))

    easy, middle, hard = (overlap(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy > middle + 0.05 > hard + 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shops": 1}, "shops 1: expected 2 to 8"),
        ({"shops": 9}, "shops 9: expected 2 to 8"),
        ({"size": 3}, "size 3: expected 8 to"),
        ({"difficulty": 1.5}, "difficulty 1.5: expected 0 to 1"),
        ({"difficulty": float("nan")}, "difficulty nan: expected 0 to 1"),
    ],
)
def test_impossible_sizes_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        catalogue.generate(0, **given)
