"""Words of a table in another language, read as the words of the first table that they stand for.

Records that are each other's best by what both say, codes, numbers and some names, often say one thing in two
languages. Words that are together in such pairs more often than by chance stand for one another: by the likelihood
ratio of Dunning 1993, Accurate Methods for the Statistics of Surprise and Coincidence, the surest first, none a second
time (competitive linking; Melamed 2000, Models of Translational Equivalence among Words). Then more is said in common,
which finds better pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.special import xlogy

from aco_jax.data.fields import WORD
from aco_jax.data.records import Dataset, Table
from aco_jax.data.retrieval import nearest
from aco_jax.data.wording import plain

COMMON = 0.4  # share of the words said in a table that the other knows too, under which languages differ
CHANCE = 15.1  # likelihood ratio that one pair of words in ten thousand has by chance
FORMS = 2  # words of the other language that stand for one word
LENGTH = 64  # different words of a record that are looked at
PAIRS = 5000  # of records that are learned from: the most alike
ROUNDS = 12  # at most
SETTLED = 0.01  # share of the other language's words that stand for another one in the last round

Words = Mapping[str, str]  # word of a table -> word of the first table


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


def likelihood_ratio(both: np.ndarray, left: np.ndarray, right: np.ndarray, total: int) -> np.ndarray:
    """Twice the log of how much likelier two words are together as they are than by chance, 0 where they are less.

    Args:
        both: pairs of records that have both words; left, right: that have the one, and the other; total: all.
    """
    cells = both, left - both, right - both, total - left - right + both
    margins = left, total - left, right, total - right
    inside, outside = (sum(xlogy(count, count) for count in counts) for counts in (cells, margins))
    found = 2 * (inside - outside + xlogy(total, total))
    return np.where(both * total > left * right, np.maximum(found, 0.0), 0.0)


def _said(table: Table) -> list[list[str]]:
    """The different words of each record."""
    texts = (plain(" ".join(cells)) for cells in table.cells)
    return [list(dict.fromkeys(WORD.findall(text)))[:LENGTH] for text in texts]


def _read(table: Table, words: Words) -> Table:
    if not words:
        return table
    cells = np.array([[put(cell, words) for cell in row] for row in table.cells], object)
    return dataclasses.replace(table, cells=cells.reshape(table.cells.shape))


def _stand_for(first: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> dict[str, str]:
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(word for row in (*first, *other) for word in row))}
    own, foreign = (
        _matrix([[vocabulary[word] for word in row] for row in rows], len(vocabulary)) for rows in (first, other)
    )
    letters = np.array([word.isalpha() for word in vocabulary], bool)
    said = [_column_sums(matrix) * letters for matrix in (own, foreign)]
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


def _links(
    own: sp.csr_matrix, foreign: sp.csr_matrix, stands: np.ndarray, unknown: np.ndarray, letters: np.ndarray
) -> np.ndarray:
    """What each word [V] stands for, itself if nothing else, by the pairs that `stands` [V] as it was brings."""
    size = len(stands)
    reading = sp.csr_matrix((np.ones(size, np.float32), (np.arange(size), stands)), (size, size))
    left, right = _pairs(own, sp.csr_matrix((foreign @ reading).minimum(1)))
    theirs = foreign[right]
    ours = own[left] - own[left].multiply(theirs)  # what both say needs no other word
    x, y = (
        sp.csr_matrix(part @ sp.diags(kept.astype(np.float32))) for part, kept in ((ours, letters), (theirs, unknown))
    )
    together = sp.coo_matrix(x.T @ y)
    together.eliminate_zeros()
    ratio = likelihood_ratio(together.data, _column_sums(x)[together.row], _column_sums(y)[together.col], len(left))
    found, uses = np.arange(size), np.zeros(size, int)
    sure = np.flatnonzero(ratio > CHANCE)
    for link in sure[np.argsort(-ratio[sure], kind="stable")].tolist():
        word, other = int(together.row[link]), int(together.col[link])
        if found[other] == other and uses[word] < FORMS:
            found[other], uses[word] = word, uses[word] + 1
    return found


def _pairs(own: sp.csr_matrix, other: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Records that are each other's most alike by the words that both tables say, rare ones more: rows of either."""
    counts = [_column_sums(matrix) for matrix in (own, other)]
    records = own.shape[0] + other.shape[0]
    rarity = np.where(np.minimum(*counts) > 0, np.log((records + 1) / np.maximum(sum(counts), 1)), 0.0)
    a, b = (_unit(matrix @ sp.diags(rarity.astype(np.float32))) for matrix in (own, other))
    (there, score), (back, _) = nearest(a, b, 1), nearest(b, a, 1)
    best = there[:, 0]
    mutual = np.flatnonzero((best >= 0) & (back[best, 0] == np.arange(len(best))))
    most = mutual[np.argsort(-score[mutual, 0], kind="stable")[:PAIRS]]
    return most, best[most]


def _matrix(rows: Sequence[Sequence[int]], size: int) -> sp.csr_matrix:
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((word for row in rows for word in row), np.int32, ends[-1])
    return sp.csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(rows), size))


def _unit(matrix: sp.spmatrix) -> sp.csr_matrix:
    matrix = sp.csr_matrix(matrix, dtype=np.float32)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1 / np.maximum(length, 1e-12)) @ matrix, dtype=np.float32)


def _column_sums(matrix: sp.spmatrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0), np.float64).ravel()
