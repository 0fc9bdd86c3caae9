"""Values that have got into the wrong columns, put back into their own.

How often each column says a word tells how a value of it reads. Each cell is parted into values by a hidden Markov
model whose states are the columns, a record has one value of each, and the words are counted anew until little changes
(Rabiner 1989, A Tutorial on Hidden Markov Models, III.B; Juang and Rabiner 1990, segmental k-means). From tables that
are in order this takes back nearly all that was moved at first; of others it moves more and more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aco_jax.data import fields
from aco_jax.data.records import Dataset
from aco_jax.data.wording import plain

FEW = 0.1  # share of records with a misplaced value up to which all are left as they are
SAMPLE = 1000  # records of a table that are learned from
LENGTH = 64  # words of a cell that are told apart; the others go with the last of them
ROUNDS = 12  # of counting anew, at most
SETTLED = 0.005  # share of words that change their column in the last one
ELSEWHERE = (0.01, 0.5)  # least and greatest share of cells that are taken to hold another column's value
BEGINNING = 0.25  # that share before anything is known of it
ROOM = 2**18  # records that are parted at once, times the square of the columns
WIDEST = 40  # columns that are told apart; where there are more all are left as they are
_SIGNS, _DIGIT = re.compile(r"[\w.,]"), re.compile(r"\d")


@dataclass(frozen=True)
class _Cells:
    """C cells that say something, in the order of their records."""

    word: np.ndarray  # [C, L] int32, -1 beyond the end
    column: np.ndarray  # [C] int32 of F
    record: np.ndarray  # [C] int32
    open: np.ndarray  # [C, F] bool: the columns that the cell's table has

    @property
    def there(self) -> np.ndarray:
        return self.word >= 0

    @property
    def lengths(self) -> np.ndarray:
        return self.there.sum(axis=1)


@dataclass(frozen=True)
class _Counts:
    """What the columns say: words [F, V], and how often a value ends behind a word of it [F]."""

    words: np.ndarray
    ends: np.ndarray


def restored(dataset: Dataset) -> Dataset:
    """The dataset whose records say each value in its own column; as it is where no more than FEW are elsewhere."""
    groups = [group for group in fields.align(dataset) if _says(dataset, group)]
    if not 1 < len(groups) <= WIDEST:
        return dataset
    vocabulary: dict[str, int] = {}
    most = min(SAMPLE, _at_once(groups) // len(dataset.tables))
    sampled = [
        int(record)
        for first, end in pairwise(dataset.offsets.tolist())
        for record in np.unique(np.linspace(first, end - 1, min(most, end - first)).astype(int))
    ]
    cells = _cells(dataset, groups, sampled, vocabulary)
    if not len(cells.word):
        return dataset
    label, elsewhere = _in_place(cells), BEGINNING
    counts = _count(cells, label, len(vocabulary))
    for _ in range(ROUNDS):
        before, label = label, _part(cells, counts, label, elsewhere)
        counts, moved = _count(cells, label, len(vocabulary)), _moved(cells, label)
        elsewhere = float(np.clip(moved.mean(), *ELSEWHERE))
        if (label != before)[cells.there].mean() < SETTLED:
            break
    if len(np.unique(cells.record[moved])) <= FEW * len(sampled):
        return dataset
    return _written(dataset, groups, counts, vocabulary, elsewhere)


def changed(before: Dataset, after: Dataset) -> int:
    """How many records say something in another column than they did."""
    tables = zip(before.tables, after.tables, strict=True)
    return sum(int((old.cells != new.cells).any(axis=1).sum()) for old, new in tables)


def _says(dataset: Dataset, group: tuple[str | None, ...]) -> bool:
    """Whether a column says anything."""
    tables = zip(dataset.tables, group, strict=True)
    return any((table.cells[:, table.columns.index(name)] != "").any() for table, name in tables if name is not None)


def _cells(dataset: Dataset, groups: fields.Groups, records: Sequence[int], vocabulary: dict[str, int]) -> _Cells:
    """The cells of records; new words join the vocabulary."""
    words, column, owner, opened = [], [], [], []
    has = np.array([[name is not None for name in group] for group in groups]).reshape(len(groups), -1).T
    for record in records:
        table, row = int(dataset.table_of[record]), dataset.row(record)
        for number, group in enumerate(groups):
            said = row.get(group[table] or "", "").split()[:LENGTH]
            if said:
                words.append([vocabulary.setdefault(_form(word), len(vocabulary)) for word in said])
                column.append(number)
                owner.append(record)
                opened.append(has[table])
    word = np.full((len(words), max(map(len, words), default=0)), -1, np.int32)
    for i, cell in enumerate(words):
        word[i, : len(cell)] = cell
    return _Cells(word, np.array(column, np.int32), np.array(owner, np.int32), np.array(opened, bool))


def _form(word: str) -> str:
    """What is counted of a word: its letters, or the form of a number, "$1,299.00" -> "0,000.00"."""
    text = "".join(_SIGNS.findall(plain(word))).strip(".,")
    return _DIGIT.sub("0", text) if text[:1].isdigit() else text


def _in_place(cells: _Cells) -> np.ndarray:
    """Every word to the column in which it stands: [C, L] int32, -1 beyond the end."""
    return np.where(cells.there, cells.column[:, None], -1)


def _at_once(groups: fields.Groups) -> int:
    """Records whose cells fit into memory."""
    return ROOM // len(groups) ** 2


def _moved(cells: _Cells, label: np.ndarray) -> np.ndarray:
    """Which cells hold a word of another column, [C] bool."""
    return ((label != cells.column[:, None]) & cells.there).any(axis=1)


def _count(cells: _Cells, label: np.ndarray, size: int) -> _Counts:
    """What columns say, each word counted for the column `label` [C, L]."""
    columns, there = cells.open.shape[1], cells.there
    place = label[there] * size + cells.word[there]
    words = np.bincount(place, minlength=columns * size).reshape(columns, size).astype(np.float32)
    last = there & (label != np.pad(label[:, 1:], ((0, 0), (0, 1)), constant_values=-1))
    ends = np.bincount(label[last], minlength=columns) / np.maximum(words.sum(axis=1), 1)
    return _Counts(words, np.clip(ends, 0.01, 0.99))


def _log_likelihood(cells: _Cells, counts: _Counts, label: np.ndarray) -> np.ndarray:
    """How likely each column says each word, [C, L, F] nats, the word itself, counted for `label`, left out.

    A word that a column never said has what the words said once have there (Good 1953).
    """
    total = np.maximum(counts.words.sum(axis=1), 1)
    unseen = ((counts.words == 1).sum(axis=1) + 1) / (total + 2)
    own = label[..., None] == np.arange(len(total))
    said = counts.words.T[np.maximum(cells.word, 0)] - own
    known = np.log((1 - unseen) * np.maximum(said, 1e-9) / total)
    found = np.where(said > 0, known, np.log(unseen / counts.words.shape[1]))
    return np.where(cells.open[:, None], found, -np.inf).astype(np.float32)


def _part(cells: _Cells, counts: _Counts, label: np.ndarray, elsewhere: float) -> np.ndarray:
    """The column of each word of the cells, [C, L]; a share `elsewhere` of them is taken to hold values of others."""
    likely = _log_likelihood(cells, counts, label)
    return _one_each(cells, _viterbi(cells, counts, likely, elsewhere), likely)


def _viterbi(cells: _Cells, counts: _Counts, likely: np.ndarray, elsewhere: float) -> np.ndarray:
    """The likeliest columns of each cell's words by themselves, [C, L]."""
    columns = np.arange(likely.shape[2])
    own = columns == cells.column[:, None]
    other = np.log(elsewhere / np.maximum(cells.open.sum(axis=1, keepdims=True) - 1, 1))
    begin, follow = np.where(own, np.log(1 - elsewhere), other), np.where(own, np.log(elsewhere), other)
    stay, end = np.log(1 - counts.ends), np.log(counts.ends)
    never = np.where(np.eye(len(columns), dtype=bool), -np.inf, 0.0)
    best, steps = begin + likely[:, 0], []
    for place in range(1, likely.shape[1]):
        changed = (best + end)[:, :, None] + never + follow[:, None]
        source = changed.argmax(axis=1)
        value = np.take_along_axis(changed, source[:, None], axis=1)[:, 0]
        stays = best + stay >= value
        there = cells.there[:, place, None]
        steps.append(np.where(there & ~stays, source, columns))
        best = np.where(there, np.where(stays, best + stay, value) + likely[:, place], best)
    path = [(best + end).argmax(axis=1)]
    for source in reversed(steps):
        path.append(np.take_along_axis(source, path[-1][:, None], axis=1)[:, 0])
    return np.where(cells.there, np.stack(path[::-1], axis=1), -1)


def _one_each(cells: _Cells, label: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """The same where no record says two values of a column.

    The one in the column itself has it, else the one that is likelier there by most than where it stands; another goes
    with the value beside it, or stays.
    """
    label, lengths = label.copy(), cells.lengths
    moved = _moved(cells, label)
    first = np.flatnonzero(np.diff(cells.record, prepend=-1))
    for start, stop in zip(first, [*first[1:], len(label)], strict=True):
        if not moved[start:stop].any():
            continue
        claims = []
        for cell in range(start, stop):
            home = cells.column[cell]
            for begin, end in _runs(label[cell, : lengths[cell]]):
                column, part = label[cell, begin], likely[cell, begin:end]
                gain = np.inf if column == home else float((part[:, column] - part[:, home]).sum())
                claims.append((gain, cell, begin, end))
        taken: set[int] = set()
        for gain, cell, begin, end in sorted(claims, key=lambda claim: -claim[0]):
            column = int(label[cell, begin])
            if column not in taken or gain == np.inf:
                taken.add(column)
                continue
            beside = {int(label[cell, place]) for place in (begin - 1, end) if 0 <= place < lengths[cell]} - {column}
            options = sorted(beside) or [int(cells.column[cell])]
            label[cell, begin:end] = max(options, key=lambda c: likely[cell, begin:end, c].sum())
    return label


def _runs(label: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where runs of equal labels begin and end."""
    return pairwise([0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)])


def _written(
    dataset: Dataset, groups: fields.Groups, counts: _Counts, vocabulary: dict[str, int], elsewhere: float
) -> Dataset:
    """The dataset with the words of all records in their columns; a record that has them there is as it was."""
    cells = [table.cells.copy() for table in dataset.tables]
    step = _at_once(groups)
    for first in range(0, dataset.size, step):
        some = _cells(dataset, groups, range(first, min(first + step, dataset.size)), vocabulary)
        if not len(some.word):
            continue
        # A word that was never counted no column has said.
        more = len(vocabulary) - counts.words.shape[1]
        counts = _Counts(np.pad(counts.words, ((0, 0), (0, more))), counts.ends)
        label = _part(some, counts, np.full_like(some.word, -1), elsewhere)
        for record in np.unique(some.record[_moved(some, label)]).tolist():
            table, row = int(dataset.table_of[record]), dataset.row(record)
            said: list[list[str]] = [[] for _ in groups]
            for cell in np.flatnonzero(some.record == record).tolist():
                words = row[groups[some.column[cell]][table] or ""].split()
                for place, word in enumerate(words):
                    said[label[cell, min(place, LENGTH - 1)]].append(word)
            names = dataset.tables[table].columns
            for group, words in zip(groups, said, strict=True):
                if (name := group[table]) is not None:
                    cells[table][record - dataset.offsets[table], names.index(name)] = " ".join(words)
    tables = [dataclasses.replace(table, cells=new) for table, new in zip(dataset.tables, cells, strict=True)]
    return dataclasses.replace(dataset, tables=tuple(tables), read_as=dataset.fingerprint)
