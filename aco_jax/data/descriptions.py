"""What each record says, as the comparison needs it: its words, codes, numbers and amounts, and its vectors.

The vocabularies, the fields and how rare each word is are fitted on all tables at once; rows that come later are
described by the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from aco_jax.data import fields as columns_of
from aco_jax.data import times
from aco_jax.data.fields import WORD
from aco_jax.data.records import Dataset
from aco_jax.data.retrieval import Vectors, fit_vectors, nearest
from aco_jax.data.wording import plain

LONGEST = 2000  # signs of a cell, and of a whole record, that are compared
WORDS = 64  # different words of a title that are looked for in the other record


@dataclass(frozen=True)
class Description:
    """n records as the comparison needs them; rows may be new (corrupted copies, later records)."""

    table: np.ndarray  # [n] int32
    text: sp.csr_matrix  # [n, V] TF-IDF of all text, words then grams, each part of unit length
    title: sp.csr_matrix  # [n, V]
    slots: tuple[sp.csr_matrix, ...]  # one a field that is compared: [n, G] TF-IDF of its grams, or where a time lies
    values: tuple[np.ndarray, ...]  # one a field that is compared: [n] object, letters and digits only; '' missing
    amounts: np.ndarray  # [n, fields] float32, NaN where missing
    words: tuple[tuple[str, ...], ...]  # the title's words in order
    tokens: tuple[frozenset[str], ...]  # all words
    grams: tuple[frozenset[str], ...]  # character 3-grams of all text without its spaces
    codes: tuple[tuple[str, ...], ...]  # model codes of the title, or of all text where it has none
    joined: tuple[str, ...]  # all text, letters and digits only
    starts: tuple[frozenset[int], ...]  # where in `joined` a word starts
    numbers: tuple[frozenset[str], ...]  # numbers of the title

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: np.ndarray) -> Description:
        """Those of rows [m]."""
        told = ("words", "tokens", "grams", "codes", "joined", "starts", "numbers")
        return Description(
            table=self.table[rows],
            text=self.text[rows],
            title=self.title[rows],
            slots=tuple(column[rows] for column in self.slots),
            values=tuple(column[rows] for column in self.values),
            amounts=self.amounts[rows],
            **{name: tuple(getattr(self, name)[row] for row in rows.tolist()) for name in told},
        )


@dataclass(frozen=True)
class Index:
    """Fitted on all tables: the vocabularies, the fields, rarity, and every record described."""

    fields: columns_of.Fields
    vectors: Vectors
    rarity: dict[str, float]  # word -> inverse document frequency, in units of the rarest
    records: Description
    repeats: np.ndarray  # [N] float32: the nearest neighbour's score in the record's own table


def fit(dataset: Dataset) -> Index:
    """Learns vocabularies, aligned fields and word rarity from the tables, and describes every record."""
    fields = columns_of.fit(dataset)
    rows = [dataset.row(record) for record in range(dataset.size)]
    texts = [_text(fields, int(t), row) for t, row in zip(dataset.table_of, rows, strict=True)]
    vectors = fit_vectors(texts)
    counts: dict[str, int] = {}
    for text in texts:
        for word in set(WORD.findall(text)):
            counts[word] = counts.get(word, 0) + 1
    top = math.log(len(rows) + 1)
    rarity = {word: math.log((len(rows) + 1) / count) / top for word, count in counts.items()}
    blank = Index(fields, vectors, rarity, _no_records(), np.zeros(0, np.float32))
    records = describe(blank, dataset.table_of, rows)
    return Index(fields, vectors, rarity, records, nearest_own(records, dataset.offsets))


def nearest_own(records: Description, offsets: np.ndarray) -> np.ndarray:
    """How like each record [N] its nearest neighbour in its own table is; table t begins at offsets[t].

    That is the mean cosine of its title with the other's title and text.
    """
    found = np.zeros(len(records), np.float32)
    both = sp.csr_matrix((records.text + records.title) / 2)
    for first, end in pairwise(offsets.tolist()):
        found[first:end] = nearest(records.title[first:end], both[first:end], 1, same=True)[1][:, 0]
    return found


def describe(index: Index, table: int | np.ndarray, rows: Sequence[Mapping[str, str]]) -> Description:
    """Rows (column -> text; columns may be missing or unknown) of one table, or of table[i] each."""
    tables = np.broadcast_to(np.asarray(table, np.int32), len(rows))
    texts = [_text(index.fields, int(t), row) for t, row in zip(tables, rows, strict=True)]
    names = [plain(columns_of.name(index.fields, int(t), row)[:LONGEST]) for t, row in zip(tables, rows, strict=True)]
    slots = [_slot(index, field, tables, rows) for field in index.fields.compared]
    # A record without a title is named by all it says, as are those whose titles tell few apart.
    titles = [name or text for name, text in zip(names, texts, strict=True)]
    codes = [_codes(title) or _codes(text) for title, text in zip(titles, texts, strict=True)]
    amounts = [
        columns_of.amounts(index.fields, int(t), row, text) for t, row, text in zip(tables, rows, texts, strict=True)
    ]
    return Description(
        table=tables,
        text=index.vectors.transform(texts),
        title=index.vectors.transform(titles),
        slots=tuple(near for near, _ in slots),
        values=tuple(np.array(values, dtype=object) for _, values in slots),
        amounts=np.array(amounts, np.float32).reshape(len(rows), index.fields.amount_count),
        words=tuple(tuple(dict.fromkeys(WORD.findall(title)))[:WORDS] for title in titles),
        tokens=tuple(frozenset(WORD.findall(text)) for text in texts),
        grams=tuple(grams_of("".join(WORD.findall(text))) for text in texts),
        codes=tuple(codes),
        joined=tuple("".join(WORD.findall(text)) for text in texts),
        starts=tuple(_starts(text) for text in texts),
        numbers=tuple(frozenset(_numbers(title)) for title in titles),
    )


def _slot(
    index: Index, field: columns_of.Field, tables: np.ndarray, rows: Sequence[Mapping[str, str]]
) -> tuple[sp.csr_matrix, list[str]]:
    """One field of every row: vectors whose cosine says how near two are, and what must be the same to be equal."""
    each = list(zip(tables.tolist(), rows, strict=True))
    if field.kind == "text":
        naming = index.fields.naming[:1] == (field,)
        said = [columns_of.name(index.fields, t, row) if naming else columns_of.value(field, t, row) for t, row in each]
        cells = [plain(text[:LONGEST]) for text in said]
        same = ["".join(WORD.findall(cell)) for cell in cells]
        return sp.csr_matrix(index.vectors.grams.transform(cells)), same
    places = [columns_of.place(field, t, row) for t, row in each]
    return times.rows(places), [f"{place:.3f}" if math.isfinite(place) else "" for place in places]


def grams_of(text: str) -> frozenset[str]:
    """Its character 3-grams."""
    return frozenset(text[k : k + 3] for k in range(len(text) - 2))


def _text(fields: columns_of.Fields, table: int, row: Mapping[str, str]) -> str:
    """All the row says but amounts and links, lower case; columns that no table had are kept.

    Where the tables have nothing else, they are what there is to say.
    """
    left_out = {f.names[table] for f in fields.fields if f.kind != "text" and table < len(f.names)}
    left_out = left_out if fields.worded else set()
    return " ".join(plain(" ".join(cell for name, cell in row.items() if name not in left_out)[:LONGEST]).split())


def _codes(text: str) -> tuple[str, ...]:
    """Tokens with digits that can name a model: letters and digits, or five digits and more."""
    found = []
    for token in re.split(r"[\s/,;()]+", text):
        code = "".join(WORD.findall(token))
        digits = sum(c.isdigit() for c in code)
        if (0 < digits < len(code) and len(code) >= 4) or digits >= 5:
            found.append(code)
    return tuple(dict.fromkeys(found))


def _numbers(text: str) -> list[str]:
    """Numbers that stand alone or after a "v": versions, years, sizes; 16.0 and 16 are the same."""
    return [
        found.rstrip("0").rstrip(".") if "." in found else found
        for found in re.findall(r"(?<![\w.])v?\.?(\d+(?:\.\d+)?)(?![\w.]*\w)", text)
    ]


def _starts(text: str) -> frozenset[int]:
    place, found = 0, []
    for word in WORD.findall(text):
        found.append(place)
        place += len(word)
    return frozenset(found)


def _no_records() -> Description:
    empty = sp.csr_matrix((0, 0), dtype=np.float32)
    none: tuple[()] = ()
    return Description(
        np.zeros(0, np.int32),
        empty,
        empty,
        none,
        none,
        np.zeros((0, 0), np.float32),
        none,
        none,
        none,
        none,
        none,
        none,
        none,
    )
