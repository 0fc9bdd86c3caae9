"""Strict reading of one file: CSV, TSV, JSON Lines, or text cut into passages.

Every error is one line that names the file, the line and, where there is one, the column, and says
what was expected. Nothing is guessed, repaired or skipped, but blank lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".jsonl")
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
_BOM = b"\xef\xbb\xbf"
_HALF = re.compile(r"[\ud800-\udfff]")  # of a pair of surrogates: no character, and nothing that UTF-8 can write
_LONGEST = 2**31 - 1  # characters of a cell; csv's own limit is 131,072
_SHOWN = 8  # names listed in one message


class InputError(ValueError):
    """Input that cannot be used. One line: the place, what is there, what was expected."""


@dataclass(frozen=True)
class Rows:
    """The cells of one file as text, and where each row stands.

    `columns` C names; `cells` n rows of C texts; `places` n texts such as "shop.csv, line 7".
    """

    source: str
    columns: tuple[str, ...]
    cells: list[list[str]]
    places: list[str]


def read_rows(path: Path) -> Rows:
    """The rows of a .csv, .tsv or .jsonl file. Raises InputError."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file, expected {', '.join(SUFFIXES)}")
    text = read_text(path)
    return _json_lines(path, text) if path.suffix == ".jsonl" else _delimited(path, text)


def read_text(path: Path) -> str:
    """The whole file, which must be UTF-8 (a byte order mark is accepted). Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, expected a file that can be read") from None
    start = len(_BOM) if content.startswith(_BOM) else 0
    try:
        text = content[start:].decode("utf-8")
        bad = content.find(b"\0")
    except UnicodeDecodeError as error:
        bad = start + error.start
    if bad >= 0:
        line = content.count(b"\n", 0, bad) + 1
        raise InputError(f"{path}, line {line}: byte {bad} is 0x{content[bad]:02x}, expected text in UTF-8")
    return text


def read_passages(path: Path) -> list[tuple[str, str]]:
    """(nearest heading, passage) for each passage of a text or Markdown file, in order.

    Blank lines end a passage, but not inside a fenced block. Headings (`# ...`) are read in Markdown only.
    """
    markdown = path.suffix != ".txt"
    heading, passages, lines, fenced = "", [], list[str](), False
    for line in [*read_text(path).splitlines(), ""]:
        fenced ^= markdown and line.lstrip().startswith(("```", "~~~"))
        found = re.match(r"#{1,6}\s+(.*?)\s*#*\s*$", line) if markdown and not fenced else None
        if (found or not line.strip()) and not fenced:
            if lines:
                passages.append((heading, "\n".join(lines)))
                lines = []
            heading = found.group(1) if found else heading
        else:
            lines.append(line.rstrip())
    if lines:  # a fence that was never closed
        passages.append((heading, "\n".join(lines).strip()))
    return passages


def check_columns(place: str, columns: Sequence[str]) -> None:
    """Every column has a name, and no name stands twice. Raises InputError."""
    for number, name in enumerate(columns, start=1):
        if not name:
            raise InputError(f"{place}, column {number}: no name, expected each column to have one")
        check_text(f"{place}, column {number}", name)
        if name in columns[: number - 1]:
            raise InputError(f"{place}, column {number}: {name!r} stands twice, expected each name once")


def check_text(place: str, text: str) -> None:
    """Raises InputError for what is no whole character, as text that was cut within one has."""
    if found := _HALF.search(text):
        raise InputError(f"{place}: half a character (\\u{ord(found[0]):04x}), expected whole ones")


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more


def _delimited(path: Path, text: str) -> Rows:
    csv.field_size_limit(_LONGEST)
    separator, name = ("\t", "tabs") if path.suffix == ".tsv" else (",", "commas")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: tuple[str, ...] = ()
    cells: list[list[str]] = []
    places: list[str] = []
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            what = "a quoted cell is never closed" if "end of data" in str(error) else str(error)
            raise InputError(f"{place}: {what}, expected quotes around whole cells, and doubled within them") from None
        if row is None:
            break
        if not row:
            continue
        if not columns:
            columns = tuple(name.strip() for name in row)
            check_columns(place, columns)
            if len(columns) == 1 and set(columns[0]) & set(";,|\t"):
                raise InputError(f"{place}: one column {columns[0]!r}, expected {name} between columns")
        elif len(row) != len(columns):
            raise InputError(f"{place}: {len(row)} cells, expected {len(columns)} ({listed(columns)})")
        else:
            cells.append(row)
            places.append(place)
    if not columns:
        raise InputError(f"{path}, line 1: the file is empty, expected a line of column names")
    return Rows(str(path), columns, cells, places)


def _json_lines(path: Path, text: str) -> Rows:
    records: list[dict[str, str]] = []
    places: list[str] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            places.append(f"{path}, line {number}")
            records.append(_json_object(places[-1], line))
            columns.update(dict.fromkeys(records[-1]))
    if not records:
        raise InputError(f"{path}, line 1: the file is empty, expected one JSON object a line")
    check_columns(f"{path}, line 1", tuple(columns))
    return Rows(str(path), tuple(columns), [[r.get(c, "") for c in columns] for r in records], places)


def _json_object(place: str, line: str) -> dict[str, str]:
    def once(items: list[tuple[str, object]]) -> dict[str, object]:
        check_columns(place, [name for name, _ in items])
        return dict(items)

    def no_number(name: str) -> object:
        raise InputError(f"{place}: {name} is no JSON number, expected a number or null")

    try:  # numbers keep the digits they were written with
        found = json.loads(line, object_pairs_hook=once, parse_int=str, parse_float=str, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}, column {error.colno}: {error.msg}, expected one JSON object") from None
    except RecursionError:
        raise InputError(f"{place}: nested too deep, expected one flat JSON object") from None
    if not isinstance(found, dict):
        raise InputError(f"{place}: a JSON {type(found).__name__}, expected one JSON object")
    return {name: _json_text(place, name, value) for name, value in found.items()}


def _json_text(place: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return ", ".join(filter(None, (_json_text(place, name, each) for each in value)))
    if not isinstance(value, str):
        expected = "text, a number, null or a list of these"
        raise InputError(f"{place}, column {name!r}: a JSON {type(value).__name__}, expected {expected}")
    return value
