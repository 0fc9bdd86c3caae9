"""Tables of records, their relations, and the strict readers of them.

A record is an int: its row in the concatenation of all tables. Ids are text, and an equal id in two
tables means nothing. Files of gold (train, valid, test, matches, hidden_*) are never read as tables;
`read_pairs` is the only door to them, and is for those that evaluate.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from aco_jax.data.files import (
    SUFFIXES,
    TEXT_SUFFIXES,
    InputError,
    Rows,
    check_columns,
    check_text,
    listed,
    read_passages,
    read_rows,
)

if TYPE_CHECKING:
    import pandas as pd

MAX_TABLES = 8
MAX_RELATIONS = 7
PAIR_COLUMNS = ("ltable_id", "rtable_id")
CLUSTER_COLUMNS = ("cluster", "table", "id")
_LABELS = {"1.0": "1", "true": "1", "yes": "1", "0.0": "0", "false": "0", "no": "0"}  # as other programs write 1 and 0
_Key = TypeVar("_Key", bound=Hashable)
GOLD = ("train", "valid", "test", "matches")


@dataclass(frozen=True, eq=False)
class Table:
    """One table. `ids` n unique texts; `columns` C names; `cells` [n, C] object, texts, '' = missing."""

    name: str
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    cells: np.ndarray


@dataclass(frozen=True)
class Relation:
    """A relation to find: `definition` is one sentence.

    `symmetric` is what is meant by it: pairs are stated without a direction either way. A record has at most
    `max_partners` in another table; None is "not known".
    """

    name: str
    definition: str
    symmetric: bool = True
    max_partners: int | None = field(default=None, metadata={"least": 1})


SAME = (Relation("same", "Both records describe one and the same thing."),)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two or more tables (N records in all) and the relations (Y) to find between them.

    Raises InputError for fewer than two tables, more than 8, no relation or more than 7, or a name twice.
    """

    tables: tuple[Table, ...]
    relations: tuple[Relation, ...] = SAME
    read_as: str = ""  # fingerprint of the tables as they were, where what they say was put otherwise since

    def __post_init__(self) -> None:
        names = [table.name for table in self.tables]
        if not 2 <= len(names) <= MAX_TABLES:
            raise InputError(f"{len(names)} tables ({listed(names)}), expected 2 to {MAX_TABLES}")
        kinds = [relation.name for relation in self.relations]
        if not 1 <= len(kinds) <= MAX_RELATIONS:
            raise InputError(f"{len(kinds)} relations ({listed(kinds)}), expected 1 to {MAX_RELATIONS}")
        for group, of in ((names, "table"), (kinds, "relation")):
            for name in group:
                if not name or group.count(name) > 1 or (of == "relation" and name == "unrelated"):
                    raise InputError(f"{of} {name!r}: expected different names, none empty or 'unrelated'")

    @property
    def size(self) -> int:
        """N."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> np.ndarray:
        """[tables + 1] int32: table i holds the records offsets[i] .. offsets[i + 1] - 1."""
        return np.cumsum([0, *(len(table.ids) for table in self.tables)], dtype=np.int32)

    @cached_property
    def table_of(self) -> np.ndarray:
        """[N] int32: the table of each record."""
        return np.repeat(np.arange(len(self.tables), dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The attributes of all tables, in the order in which they first appear."""
        return tuple(dict.fromkeys(column for table in self.tables for column in table.columns))

    @cached_property
    def index(self) -> dict[tuple[str, str], int]:
        """(table name, id) -> record."""
        return {self.key(record): record for record in range(self.size)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the tables said when they were read, whatever the files."""
        if self.read_as:
            return self.read_as
        digest = hashlib.sha256()
        for table in self.tables:
            content = [table.name, table.ids, table.columns, table.cells.tolist()]
            digest.update(json.dumps(content, separators=(",", ":")).encode())
        return digest.hexdigest()

    def row(self, record: int) -> dict[str, str]:
        """Column -> text, for the columns of the record's own table ('' = missing)."""
        table, place = self._at(record)
        return dict(zip(table.columns, table.cells[place], strict=True))

    def text(self, record: int) -> str:
        """All that the record says, on one line."""
        table, place = self._at(record)
        return " ".join(" ".join(table.cells[place]).split())

    def key(self, record: int) -> tuple[str, str]:
        """(table name, id)."""
        table, place = self._at(record)
        return table.name, table.ids[place]

    def pairs_of_tables(self) -> list[tuple[int, int]]:
        """(i, j), i < j, of every two tables."""
        return list(combinations(range(len(self.tables)), 2))

    def _at(self, record: int) -> tuple[Table, int]:
        number = int(self.table_of[record])
        return self.tables[number], int(record - self.offsets[number])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of records of different tables. `left`, `right` [P] int32 records; `label` P texts or None."""

    left: np.ndarray
    right: np.ndarray
    label: tuple[str, ...] | None


def read_folder(
    path: str | Path,
    tables: Sequence[str] | None = None,
    relations: Sequence[Relation] = SAME,
    id_column: str = "id",
) -> Dataset:
    """The tables of a folder: those named (with or without suffix), else tableA, tableB and so on, else all files.

    A table is a .csv, .tsv or .jsonl file, or (named, or where there are no such files) a folder of text.
    Files of pairs and of clusters are passed over. Raises InputError.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = _find_tables(folder)
    if tables is None:
        files = [name for name in found if found[name].is_file() and not _is_stated(found[name])]
        default = [name for name in files if re.fullmatch("table[A-Z]", name)]
        chosen = default if {"tableA", "tableB"} <= set(default) else files or list(found)
    else:
        chosen = [_named(folder, found, name) for name in tables]
    if len(chosen) < 2:
        kinds = ", ".join(SUFFIXES)
        raise InputError(f"{folder}: {len(chosen)} tables ({listed(chosen)}), expected two at least, of {kinds}")
    read = tuple(_read_table(found[name], id_column) for name in chosen)
    return Dataset(read, tuple(relations))


def read_text_folder(path: str | Path) -> Table:
    """A folder of text and Markdown files as one table: columns title and text, ids such as "a.md#3".

    Each passage is a record; files are taken in the order of their names. Raises InputError.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(filter(_is_text, folder.iterdir()))
    ids, cells = [], []
    for file in files:
        for number, (title, text) in enumerate(read_passages(file), start=1):
            ids.append(f"{file.name}#{number}")
            cells.append([title, text])
    if not cells:
        raise InputError(f"{folder}: no passage, expected text in files {', '.join(TEXT_SUFFIXES)}")
    return Table(folder.resolve().name, tuple(ids), ("title", "text"), np.array(cells, dtype=object))


def from_frames(
    frames: Mapping[str, pd.DataFrame], relations: Sequence[Relation] = SAME, id_column: str = "id"
) -> Dataset:
    """Tables from pandas: NaN, None and NaT are missing, whole floats lose ".0". Raises InputError."""
    tables = []
    for name, frame in frames.items():
        source = f"frame {name!r}"
        columns = tuple(str(column).strip() for column in frame.columns)
        check_columns(source, columns)
        values = [[_frame_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]
        places = [f"{source}, row {number}" for number in range(1, len(values) + 1)]
        tables.append(_to_table(name, Rows(source, columns, values, places), id_column))
    return Dataset(tuple(tables), tuple(relations))


def read_pairs(
    path: str | Path, dataset: Dataset, label: Literal["required", "optional", "forbidden"] = "optional"
) -> Pairs:
    """Pairs of a file with ltable_id, rtable_id, and ltable, rtable where there are more than two tables.

    Raises InputError for unknown tables or ids, a pair twice, both records of one table, an empty label,
    and a `label` column that is missing or refused.
    """
    rows = read_rows(Path(path))
    needed = [*PAIR_COLUMNS, *(("ltable", "rtable") if len(dataset.tables) > 2 else ())]
    needed += ["label"] if label == "required" else []
    for column in needed:
        if column not in rows.columns:
            raise InputError(f"{path}: no column {column!r}, expected it among {listed(rows.columns)}")
    if label == "forbidden" and "label" in rows.columns:
        raise InputError(f"{path}, column 'label': refused here, expected pairs without labels")
    if not rows.cells:
        raise InputError(f"{path}: no pair, expected at least one")
    cells = {name: [row[number] for row in rows.cells] for number, name in enumerate(rows.columns)}
    left, right = (_records(rows, cells, dataset, side) for side in (0, 1))
    _check_pairs(rows, dataset, left, right)
    written = cells.get("label")
    labels = [_LABELS.get(text.strip().lower(), text.strip()) for text in written or ()]
    for place, text in zip(rows.places, labels, strict=False):
        if not text or (text not in ("0", "1") and _is_number(text)):
            raise InputError(f"{place}, column 'label': {repr(text) if text else 'empty'}, expected 0, 1 or a relation")
    return Pairs(left, right, tuple(labels) if written else None)


def write_table(table: Table, path: str | Path) -> None:
    """The table as CSV in UTF-8, ids in column `id`."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", *table.columns))
        writer.writerows((name, *row) for name, row in zip(table.ids, table.cells, strict=True))


def _find_tables(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        texts = path.is_dir() and os.access(path, os.R_OK | os.X_OK) and any(map(_is_text, path.iterdir()))
        if not texts and (path.suffix not in SUFFIXES or _is_gold(path.stem) or not path.is_file()):
            continue
        name = path.name if texts else path.stem
        if name in found:
            raise InputError(f"{path}: {found[name].name} has the same name, expected one of them")
        found[name] = path
    return found


def _is_gold(stem: str) -> bool:
    return stem in GOLD or stem.startswith("hidden_")


def _is_text(path: Path) -> bool:
    return path.suffix in TEXT_SUFFIXES


def _is_stated(path: Path) -> bool:
    """Whether a file holds pairs or clusters, which are stated of records and no records themselves."""
    columns = read_rows(path).columns
    return set(PAIR_COLUMNS) <= set(columns) or columns == CLUSTER_COLUMNS


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _named(folder: Path, found: Mapping[str, Path], name: str) -> str:
    stem = Path(name).stem if Path(name).suffix in SUFFIXES else name
    if _is_gold(stem):
        raise InputError(f"{folder}: table {name!r} is a file of gold, expected a table of records")
    if stem not in found or (stem != name and found[stem].name != name):
        raise InputError(f"{folder}: no table {name!r}, expected one of {listed(list(found))}")
    return stem


def _read_table(path: Path, id_column: str) -> Table:
    return read_text_folder(path) if path.is_dir() else _to_table(path.stem, read_rows(path), id_column)


def _to_table(name: str, rows: Rows, id_column: str) -> Table:
    if id_column not in rows.columns:
        raise InputError(f"{rows.source}: no column {id_column!r}, expected it among {listed(rows.columns)}")
    if len(rows.columns) < 2:
        raise InputError(f"{rows.source}: only column {id_column!r}, expected attributes beside it")
    if not rows.cells:
        raise InputError(f"{rows.source}: no record, expected at least one")
    number = rows.columns.index(id_column)
    first: dict[str, str] = {}
    if not any(text.strip() for row in rows.cells for j, text in enumerate(row) if j != number):
        raise InputError(f"{rows.source}: nothing but ids, expected text in some cell")
    for place, row in zip(rows.places, rows.cells, strict=True):
        for column, text in zip(rows.columns, row, strict=True):
            check_text(f"{place}, column {column!r}", text)
        if not row[number].strip():
            raise InputError(f"{place}, column {id_column!r}: empty, expected an id")
        _once(first, row[number], place, f", column {id_column!r}: id {row[number]!r}")
    cells = np.empty((len(rows.cells), len(rows.columns) - 1), dtype=object)
    for i, row in enumerate(rows.cells):
        cells[i] = [text if text.strip() else "" for j, text in enumerate(row) if j != number]
    columns = tuple(column for j, column in enumerate(rows.columns) if j != number)
    return Table(name, tuple(first), columns, cells)


def _frame_text(value: object) -> str:
    if value is None or str(value) in ("nan", "NaT", "<NA>"):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 1e15:
        return str(int(value))
    return str(value)


def _records(rows: Rows, cells: Mapping[str, list[str]], dataset: Dataset, side: int) -> np.ndarray:
    table_column, column = ("ltable", "rtable")[side], PAIR_COLUMNS[side]
    names = [table.name for table in dataset.tables]
    tables = cells.get(table_column, [names[side]] * len(rows.cells))
    found = np.empty(len(rows.cells), dtype=np.int32)
    for i, (name, text) in enumerate(zip(tables, cells[column], strict=True)):
        if name not in names:
            raise InputError(f"{rows.places[i]}, column {table_column!r}: no table {name!r}, expected {listed(names)}")
        if (name, text) not in dataset.index:
            raise InputError(f"{rows.places[i]}, column {column!r}: no id {text!r} in {name}, expected one")
        found[i] = dataset.index[name, text]
    return found


def _check_pairs(rows: Rows, dataset: Dataset, left: np.ndarray, right: np.ndarray) -> None:
    first: dict[tuple[int, int], str] = {}
    for place, pair in zip(rows.places, zip(left.tolist(), right.tolist(), strict=True), strict=True):
        if dataset.table_of[pair[0]] == dataset.table_of[pair[1]]:
            raise InputError(f"{place}: both records are of one table, expected two different tables")
        _once(first, pair, place, ": the same pair")


def _once(first: dict[_Key, str], key: _Key, place: str, what: str) -> None:
    if key in first:
        raise InputError(f"{place}{what} again (first on {first[key].rpartition(', ')[2]}), expected it once")
    first[key] = place
