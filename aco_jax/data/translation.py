"""Words of a table in another language, read as the words of the first table that they stand for.

Records that are each other's best by what both say, codes, numbers and some names, often say one thing in two
languages. Words that are together in such pairs more often than by chance may stand for one another. In each pair the
surest are linked first, none a second time, and how often words are linked where both are says again how sure that is:
else what often stands beside a word would be taken for it (competitive linking; Melamed 2000, Models of Translational
Equivalence among Words, method B). Then more is said in common, which finds better pairs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from aco_jax.data.fields import WORD
from aco_jax.data.records import Dataset, Table
from aco_jax.data.retrieval import nearest
from aco_jax.data.wording import plain
from aco_jax.ops.association import likelihood_ratio

COMMON = 0.4  # share of the words said in a table that the other knows too, under which languages differ
CHANCE = 15.1  # likelihood ratio that one pair of words in ten thousand has by chance
FORMS = 2  # words of the other language that stand for one word
LENGTH = 24  # different words of a record that may stand for another or for which others may: the first
LEAST = 2  # pairs in which a word stands for another
LINKED = (0.8, 0.02)  # share of the pairs with both words that link them, if one stands for the other and if not
COUNTS = 3  # of such links in the pairs
PAIRS = 5000  # of records that are learned from: the most alike
ROUNDS = 12  # at most
SETTLED = 0.01  # share of the other language's words that stand for another one in the last round

Words = Mapping[str, str]  # word of a table -> word of the first table


class _Side(NamedTuple):
    """Which of V words each record of a table says, [n, V] of 0 and 1, and which of them first."""

    words: sp.csr_matrix
    first: sp.csr_matrix


def learn(dataset: Dataset) -> tuple[Words, ...]:
    """Of each table the words that stand for words of the first, the commonest first; none where languages are one."""
    first, *others = (_said(table) for table in dataset.tables)
    return ({}, *(_stand_for(first, other) for other in others))


def read(dataset: Dataset, words: Sequence[Words]) -> Dataset:
    """The dataset with the words of each table in place of those that stand for them."""
    if not any(words):
        return dataset
    tables = tuple(map(_read, dataset.tables, words))
    return dataclasses.replace(dataset, tables=tables, read_as=dataset.fingerprint)


def put(text: str, words: Words) -> str:
    """The text with other words in place of those that stand for them."""
    return WORD.sub(lambda found: words.get(found.group(), found.group()), plain(text))


def _said(table: Table) -> list[list[str]]:
    """The different words of each record."""
    texts = (plain(" ".join(cells)) for cells in table.cells)
    return [list(dict.fromkeys(WORD.findall(text))) for text in texts]


def _read(table: Table, words: Words) -> Table:
    if not words:
        return table
    cells = np.array([[put(cell, words) for cell in row] for row in table.cells], object)
    return dataclasses.replace(table, cells=cells.reshape(table.cells.shape))


def _stand_for(first: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> dict[str, str]:
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(word for row in (*first, *other) for word in row))}
    own, foreign = (
        _side([[vocabulary[word] for word in row] for row in rows], len(vocabulary)) for rows in (first, other)
    )
    letters = np.array([word.isalpha() for word in vocabulary], bool)
    said = [_column_sums(side.words) * letters for side in (own, foreign)]
    common = [float(mine[theirs > 0].sum() / max(mine.sum(), 1.0)) for mine, theirs in (said, said[::-1])]
    unknown = letters & (said[0] == 0)
    if max(common) >= COMMON or not unknown.any():
        return {}
    stands = np.arange(len(vocabulary))
    for _ in range(ROUNDS):
        before, stands = stands, _links(own, foreign, stands, unknown, letters)
        if (stands != before)[unknown].mean() < SETTLED:
            break
    names, read = list(vocabulary), np.flatnonzero(stands != np.arange(len(vocabulary)))
    often = read[np.argsort(-said[1][read], kind="stable")]
    return {names[word]: names[stands[word]] for word in often.tolist()}


def _links(own: _Side, foreign: _Side, stands: np.ndarray, unknown: np.ndarray, letters: np.ndarray) -> np.ndarray:
    """What each word [V] stands for, itself if nothing else, by the pairs that `stands` [V] as it was brings."""
    size = len(stands)
    reading = sp.csr_matrix((np.ones(size, np.float32), (np.arange(size), stands)), (size, size))
    left, right = _pairs(own.words, sp.csr_matrix((foreign.words @ reading).minimum(1)))
    ours = own.first[left] - own.first[left].multiply(foreign.words[right])  # what both say needs no other word
    x, y = _columns(ours, letters), _columns(foreign.first[right], unknown)
    pair, first, second = _together(x, y)
    code, number, both = np.unique(first * size + second, return_inverse=True, return_counts=True)
    word, other = code // size, code % size
    score = likelihood_ratio(both, _column_sums(x)[word], _column_sums(y)[other], len(left))
    surprising = score > CHANCE
    kept = surprising[number]
    pair, number, count = pair[kept], number[kept], np.zeros(len(code), np.int64)
    linked, apart = np.log(LINKED[0] / LINKED[1]), np.log((1 - LINKED[0]) / (1 - LINKED[1]))
    for _ in range(COUNTS):
        chosen = _surest_first(pair, word[number], other[number], score[number], 1)
        count = np.bincount(number[chosen], minlength=len(code)).astype(np.int64)
        score = count * linked + (both - count) * apart
    likely = np.flatnonzero(surprising & (score > 0) & (count >= LEAST))
    chosen = likely[_surest_first(np.zeros(len(likely), int), word[likely], other[likely], score[likely], FORMS)]
    found = np.arange(size)
    found[other[chosen]] = word[chosen]
    return found


def _together(x: sp.csr_matrix, y: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every word of x with every word of y in the same row: rows, words and words, int64."""
    lengths = np.diff(x.indptr), np.diff(y.indptr)
    count = (lengths[0] * lengths[1]).astype(np.int64)
    row = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    first, second = within // lengths[1][row], within % lengths[1][row]
    return row, x.indices[x.indptr[row] + first].astype(np.int64), y.indices[y.indptr[row] + second].astype(np.int64)


def _surest_first(group: np.ndarray, word: np.ndarray, other: np.ndarray, score: np.ndarray, forms: int) -> np.ndarray:
    """Links [n] that are chosen of each group, no `other` twice and no `word` more than `forms` times."""
    chosen, used = [], set()
    uses: Counter[tuple[int, int]] = Counter()
    order = np.argsort(-score, kind="stable")
    for link, where, mine, theirs in zip(
        *(each[order].tolist() for each in (np.arange(len(score)), group, word, other)), strict=True
    ):
        if (where, theirs) not in used and uses[where, mine] < forms:
            chosen.append(link)
            used.add((where, theirs))
            uses[where, mine] += 1
    return np.array(chosen, int)


def _pairs(own: sp.csr_matrix, other: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Records that are each other's most alike by the words that both tables say, rare ones more: rows of either."""
    counts = [_column_sums(matrix) for matrix in (own, other)]
    records = own.shape[0] + other.shape[0]
    rarity = np.where(np.minimum(*counts) > 0, np.log((records + 1) / np.maximum(sum(counts), 1)), 0.0)
    a, b = (normalize(matrix @ sp.diags(rarity.astype(np.float32))) for matrix in (own, other))
    (there, score), (back, _) = nearest(a, b, 1), nearest(b, a, 1)
    best = there[:, 0]
    mutual = np.flatnonzero((best >= 0) & (back[best, 0] == np.arange(len(best))))
    most = mutual[np.argsort(-score[mutual, 0], kind="stable")[:PAIRS]]
    return most, best[most]


def _side(rows: Sequence[Sequence[int]], size: int) -> _Side:
    return _Side(_matrix(rows, size), _matrix([row[:LENGTH] for row in rows], size))


def _matrix(rows: Sequence[Sequence[int]], size: int) -> sp.csr_matrix:
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((word for row in rows for word in row), np.int32, ends[-1])
    return sp.csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(rows), size))


def _columns(matrix: sp.spmatrix, kept: np.ndarray) -> sp.csr_matrix:
    found = sp.csr_matrix(matrix @ sp.diags(kept.astype(np.float32)))
    found.eliminate_zeros()
    return found


def _column_sums(matrix: sp.spmatrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0), np.float64).ravel()
