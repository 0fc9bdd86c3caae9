"""The words of records, by how telling they are: model codes first, then by how rare they are in the table to search.

Source: Sparck Jones 1972, A Statistical Interpretation of Term Specificity (inverse document frequency).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np

from aco_jax.data.records import Dataset
from aco_jax.data.tokens import Tokenizer

CODE = 100.0  # more than any rarity
_PART = re.compile(r"[^\W_]+")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


class Word(NamedTuple):
    """A word of a row: its column, how telling it is, its tokens."""

    text: str
    column: str
    score: float
    ids: tuple[int, ...]


def rarity(dataset: Dataset, table: int) -> dict[str, float]:
    """The inverse document frequency of the words of a table, nats."""
    start, stop = (int(offset) for offset in dataset.offsets[table : table + 2])
    counts = Counter(word for record in range(start, stop) for word in set(parts(dataset.text(record))))
    return {word: math.log(1 + (stop - start) / count) for word, count in counts.items()}


def words(
    tokenizer: Tokenizer,
    silent: AbstractSet[str],
    rarities: Sequence[Mapping[str, float]],
    rows: Sequence[Mapping[str, str]],
    shown: Sequence[np.ndarray | None],
) -> list[list[Word]]:
    """The words of each of n rows, each once.

    Args:
        silent: columns that are left out.
        rarities: n, of the table that the words are to tell a record of.
        shown: n, tokens of the row as it is read, of which words that were cut off are left out; None: all are read.
    """
    found: list[dict[str, str]] = []
    for row in rows:
        first: dict[str, str] = {}
        for column in tokenizer.columns:
            if column not in silent:
                for text in plain(row.get(column, "")):
                    first.setdefault(text, column)
        found.append(first)
    unique = list(dict.fromkeys(text for first in found for text in first))
    tokens = dict(zip(unique, map(tuple, tokenizer.encode_lists(unique)), strict=True))
    listed = [
        [Word(text, column, _score(rarity, text), tokens[text]) for text, column in first.items()]
        for first, rarity in zip(found, rarities, strict=True)
    ]
    return [each if row is None else seen(each, row) for each, row in zip(listed, shown, strict=True)]


def seen(words: Sequence[Word], shown: np.ndarray) -> list[Word]:
    """Those whose tokens stand together in what is shown, [T]."""
    sight = _joined(shown)
    return [word for word in words if _joined(word.ids) in sight]


def choose(words: Sequence[Word], room: int, stock: Counter[int] | None = None) -> list[Word]:
    """The highest scores that fit into `room` tokens, in the order in which they stand.

    Args:
        stock: how often each token may be used; None: as often as is wanted.
    """
    chosen, left = set(), stock
    for i in sorted(range(len(words)), key=lambda i: -words[i].score):
        needed = Counter(words[i].ids)
        if len(words[i].ids) <= room and (left is None or needed <= left):
            room -= len(words[i].ids)
            left = None if left is None else left - needed
            chosen.add(i)
    return [word for i, word in enumerate(words) if i in chosen]


def ids(words: Sequence[Word]) -> list[int]:
    """The tokens of words, one after another."""
    return [i for word in words for i in word.ids]


def bag(row: Mapping[str, str]) -> frozenset[str]:
    """The parts of a row's words, and its words written together."""
    text = " ".join(row.values())
    return frozenset(parts(text)) | {"".join(parts(word)) for word in text.split()}


def holds(bag: AbstractSet[str], text: str) -> bool:
    """Whether all parts of a word are in a bag, or the word written together."""
    found = parts(text)
    return all(part in bag for part in found) or "".join(found) in bag


def plain(text: str) -> list[str]:
    """The words of a text, in lower case and without the marks around them."""
    return [word for each in text.lower().split() if (word := _EDGES.sub("", each))]


def said_by_both(words: str, ours: str, theirs: str) -> str:
    """Those of some words that two texts say, each once."""
    both = {*plain(ours)} & {*plain(theirs)}
    return " ".join(dict.fromkeys(word for word in plain(words) if word in both))


def parts(text: str) -> list[str]:
    """The runs of letters and digits, in lower case."""
    return _PART.findall(text.lower())


def has_digit(text: str) -> bool:
    """Whether a digit is in it."""
    return any(sign.isdigit() for sign in text)


def _score(rarity: Mapping[str, float], text: str) -> float:
    """0 for what the searched table never says, but for model codes: they may be written otherwise there."""
    code = len(text) > 3 and has_digit(text) and not text.isdigit()
    return max((rarity.get(part, 0.0) for part in parts(text)), default=0.0) + CODE * code


def _joined(ids: Sequence[int] | np.ndarray) -> str:
    return f" {' '.join(map(str, ids))} "
