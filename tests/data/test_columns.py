"""Values in wrong columns: the decoding beside all paths there are, and tables that are mixed up and put back."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import columns, fields, records

CITIES, KINDS = ("rome", "oslo", "lima", "cairo"), ("bakery", "garage", "school", "theatre")


def places(count: int, misplaced: float, to: str = "") -> tuple[records.Dataset, records.Dataset]:
    """Two tables of places, and the same with a share of the values behind those of another column, or of `to`."""
    rng = np.random.default_rng(0)
    clean, mixed = {}, {}
    for table in ("a", "b"):
        rows = pd.DataFrame(
            {
                "id": [f"{table}{i}" for i in range(count)],
                "name": [f"the {rng.choice(KINDS)} of {chr(97 + i % 26)}{chr(97 + i // 26)}ton" for i in range(count)],
                "city": rng.choice(CITIES, count),
                "phone": [f"{rng.integers(100, 999)}-{rng.integers(1000, 9999)}" for _ in range(count)],
            }
        )
        clean[table] = rows
        moved = []
        for row in rows.to_dict("records"):
            found = {"id": row["id"], "name": "", "city": "", "phone": ""}
            for name in ("name", "city", "phone"):
                place = (to or rng.choice(["name", "city", "phone"])) if rng.random() < misplaced else name
                found[place] = f"{found[place]} {row[name]}".strip()
            moved.append(found)
        mixed[table] = pd.DataFrame(moved)
    return records.from_frames(clean), records.from_frames(mixed)


def same_cells(one: records.Dataset, other: records.Dataset) -> float:
    return float(np.mean([(a.cells == b.cells).mean() for a, b in zip(one.tables, other.tables, strict=True)]))


def said(dataset: records.Dataset) -> list[list[str]]:
    """All words of each record, wherever they stand."""
    return [sorted(dataset.text(record).split()) for record in range(dataset.size)]


@pytest.mark.parametrize(("sample", "to"), [(75, ""), (60, ""), (75, "name")])
def test_values_are_put_back_into_their_columns(monkeypatch: pytest.MonkeyPatch, sample: int, to: str) -> None:
    """Also of records that nothing was learned from, a few at a time, and where all have gone to one column."""
    monkeypatch.setattr(columns, "SAMPLE", sample)
    monkeypatch.setattr(columns, "ROOM", 150 * 3**2)
    clean, mixed = places(150, 0.5, to)
    restored = columns.restored(mixed)
    assert same_cells(clean, mixed) < 0.6
    assert same_cells(clean, restored) > 0.9
    assert restored.fingerprint == mixed.fingerprint != clean.fingerprint
    assert columns.changed(mixed, restored) > 100
    assert said(restored) == said(mixed)


@pytest.mark.parametrize("misplaced", [0.0, 0.02])
def test_tables_with_few_such_values_stay_as_they_are(misplaced: float) -> None:
    _, mixed = places(150, misplaced)
    assert columns.restored(mixed) is mixed


def test_a_name_may_say_what_another_column_has() -> None:
    """A place may be named as its city is; of what is said twice one is the name's."""
    clean, _ = places(150, 0.0)
    tables = [dataclasses.replace(table, cells=table.cells.copy()) for table in clean.tables]
    for table in tables:
        name, city = (table.columns.index(column) for column in ("name", "city"))
        table.cells[::3, name] = table.cells[::3, city]
    twice = records.Dataset(tuple(tables))
    assert columns.restored(twice) is twice


def test_a_table_without_a_column_is_given_none() -> None:
    """A city in the name of a table that has no column for it stays there."""
    _, mixed = places(150, 0.5)
    first, second = mixed.tables
    name, phone = (second.columns.index(column) for column in ("name", "phone"))
    fewer = records.Table(second.name, second.ids, ("name", "phone"), second.cells[:, [name, phone]])
    without = records.Dataset((first, fewer))
    restored = columns.restored(without)
    assert restored.tables[1].columns == ("name", "phone")
    assert columns.changed(without, restored) > 50
    assert said(restored) == said(without)
    assert columns.changed(mixed, mixed) == 0


def test_records_that_say_nothing_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all that are parted at once are such."""
    monkeypatch.setattr(columns, "ROOM", 50 * 3**2)
    _, mixed = places(150, 0.5)
    empty = np.full((60, 3), "", object)
    first = mixed.tables[0]
    ids = (*(f"none {i}" for i in range(60)), *first.ids)
    longer = dataclasses.replace(first, ids=ids, cells=np.concatenate([empty, first.cells]))
    before = records.Dataset((longer, mixed.tables[1]))
    restored = columns.restored(before)
    assert columns.changed(before, restored) > 50
    np.testing.assert_array_equal(restored.tables[0].cells[:60], empty)


def widened(dataset: records.Dataset, count: int, text: str) -> records.Dataset:
    """With further columns, of which each says one thing of all records."""
    tables = []
    for table in dataset.tables:
        names = tuple(f"more {i}" for i in range(count))
        more = np.array([[text and f"{text}{i}" for i in range(count)]] * len(table.ids), object)
        cells = np.concatenate([table.cells, more], axis=1)
        tables.append(dataclasses.replace(table, columns=table.columns + names, cells=cells))
    return records.Dataset(tuple(tables))


def test_columns_that_say_nothing_change_nothing() -> None:
    _, mixed = places(150, 0.5)
    without, having = columns.restored(mixed), columns.restored(widened(mixed, 3, ""))
    for one, other in zip(without.tables, having.tables, strict=True):
        np.testing.assert_array_equal(one.cells, other.cells[:, :3])


def test_tables_of_very_many_columns_stay_as_they_are() -> None:
    _, mixed = places(150, 0.5)
    wider = widened(mixed, columns.WIDEST, "x")
    assert columns.restored(wider) is wider


def test_the_columns_of_words_are_the_likeliest_path() -> None:
    """Beside the probability of every path, cell by cell; the columns that a table lacks are none."""
    rng = np.random.default_rng(1)
    lengths, width, elsewhere = [1, 3, 4, 2, 4], 3, 0.2
    there = np.arange(4) < np.array(lengths)[:, None]
    opened = np.ones((5, width), bool)
    opened[2, 2] = False
    cells = columns._Cells(np.where(there, 0, -1), np.array([0, 1, 0, 2, 1]), np.arange(5), opened)
    ends = np.array([0.3, 0.6, 0.9])
    likely = np.where(opened[:, None], np.log(rng.uniform(0.01, 1, (5, 4, width))), -np.inf)
    found = columns._viterbi(cells, columns._Counts(np.ones((width, 1)), ends), likely, elsewhere)
    for cell, length in enumerate(lengths):
        own, others = cells.column[cell], opened[cell].sum() - 1

        def value(path: tuple[int, ...], cell: int = cell, own: int = own, others: int = others) -> float:
            total = np.log(1 - elsewhere if path[0] == own else elsewhere / others) + likely[cell, 0, path[0]]
            for place, (last, now) in enumerate(itertools.pairwise(path), start=1):
                begins = np.log(elsewhere if now == own else elsewhere / others)
                total += np.log(1 - ends[last]) if last == now else np.log(ends[last]) + begins
                total += likely[cell, place, now]
            return float(total + np.log(ends[path[-1]]))

        best = max(itertools.product(range(width), repeat=length), key=value)
        assert tuple(found[cell, :length]) == best
        assert (found[cell, length:] == -1).all()


def test_a_word_does_not_speak_for_itself() -> None:
    """Two columns; "x" stands twice in the first and once in the second: left out where it stands, 1 and 1 are left."""
    dataset = records.from_frames(
        {
            "a": pd.DataFrame({"id": ["1", "2"], "p": ["x y", "x"], "q": ["z", "x"]}),
            "b": pd.DataFrame({"id": ["3"], "p": ["y"], "q": ["z"]}),
        }
    )
    vocabulary: dict[str, int] = {}
    cells = columns._cells(dataset, fields.align(dataset), range(3), vocabulary)
    counts = columns._count(cells, columns._in_place(cells), len(vocabulary))
    np.testing.assert_array_equal(counts.words[:, [vocabulary[word] for word in "xyz"]], [[2, 2, 0], [1, 0, 2]])
    found = np.exp(columns._log_likelihood(cells, counts, columns._in_place(cells)))
    first, second = 1 / 6, 2 / 5  # unseen: (words said once + 1) / (words + 2)
    np.testing.assert_allclose(found[0, 0], [(1 - first) * 1 / 4, (1 - second) * 1 / 3], rtol=1e-6)  # x in the first
    np.testing.assert_allclose(found[3, 0], [(1 - first) * 2 / 4, second / 3], rtol=1e-6)  # x in the second
    # The end of a value: three values of four words in the first column, three of three in the second.
    np.testing.assert_allclose(counts.ends, [3 / 4, 0.99])


def test_a_record_has_one_value_of_each_column() -> None:
    """The value in the column itself has it; another goes with what stands beside it, or stays where it is alone."""
    cells = columns._Cells(
        np.array([[0, 1, 2], [3, -1, -1]]), np.array([0, 1]), np.array([7, 7]), np.ones((2, 2), bool)
    )
    likely = np.zeros((2, 3, 2))
    for label in ([[1, 0, 0], [1, -1, -1]], [[1, 1, 0], [1, -1, -1]], [[0, 0, 0], [0, -1, -1]]):
        found = columns._one_each(cells, np.array(label), likely)
        np.testing.assert_array_equal(found, [[0, 0, 0], [1, -1, -1]])
    likely[1, 0] = [2.0, 1.0]  # nothing says so in the first column: the second's value is the first's
    swapped = columns._one_each(cells, np.array([[1, 1, 1], [0, -1, -1]]), likely)
    np.testing.assert_array_equal(swapped, [[1, 1, 1], [0, -1, -1]])
