"""What TF-IDF similarity alone says, without learning: the figures to be ahead of.

Similarity is the mean of two cosines, of words and of character 3- and 4-grams within words, both with
sublinear term frequencies, fitted on the two tables compared. Ids, URLs and prices say nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from sklearn.feature_extraction.text import TfidfVectorizer

from aco_jax.data.records import Dataset

Match = tuple[int, int, float]  # left, right, similarity in (0, 1]
Method = Callable[[sp.csr_matrix, sp.csr_matrix], list[Match]]

LEFT_OUT = ("id", "url", "price")
_ROWS = 256  # of the similarity matrix, held at a time
_DENSE_CELLS = 50_000_000  # 400 MB of float64: above it only _NEAREST neighbours compete for assignment
_NEAREST = 20
_NEXT_TO_NOTHING = 1e-9  # similarity to "none of these": any real similarity is larger


def propose(dataset: Dataset, method: Method) -> list[Match]:
    """The matches between every two tables, as records."""
    matches = []
    for i, j in dataset.pairs_of_tables():
        left, right = vectors(_texts(dataset, i), _texts(dataset, j))
        starts = int(dataset.offsets[i]), int(dataset.offsets[j])
        matches += [(starts[0] + row, starts[1] + column, s) for row, column, s in method(left, right)]
    return matches


def vectors(left: Sequence[str], right: Sequence[str]) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """[n, features], [m, features] TF-IDF rows whose dot products are the mean of the two cosines."""
    views = (
        TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True),
    )
    stacked = sp.hstack([view.fit_transform([*left, *right]) for view in views]).tocsr()
    unit = stacked / np.sqrt(len(views))
    return unit[: len(left)], unit[len(left) :]


def mutual_best(left: sp.csr_matrix, right: sp.csr_matrix) -> list[Match]:
    """Pairs in which each is the other's most similar record; the first of equals is the most similar."""
    best_right, similarity = _best(left, right)
    best_left, _ = _best(right, left)
    rows = np.flatnonzero((best_left[best_right] == np.arange(len(best_right))) & (similarity > 0))
    return [(int(i), int(best_right[i]), float(similarity[i])) for i in rows]


def assignment(left: sp.csr_matrix, right: sp.csr_matrix) -> list[Match]:
    """The one-to-one assignment with the largest sum of similarities; nothing in common is no pair."""
    if left.shape[0] * right.shape[0] <= _DENSE_CELLS:
        table = (left @ right.T).toarray()
        rows, columns = linear_sum_assignment(table, maximize=True)
        similarity = table[rows, columns]
    else:
        rows, columns, similarity = _assignment_of_nearest(left, right)
    real = similarity > 0
    found = zip(rows[real].tolist(), columns[real].tolist(), similarity[real].tolist(), strict=True)
    return list(found)


METHODS: dict[str, Method] = {"mutual best": mutual_best, "one-to-one": assignment}


def _texts(dataset: Dataset, number: int) -> list[str]:
    table = dataset.tables[number]
    kept = [place for place, column in enumerate(table.columns) if column not in LEFT_OUT]
    return [" ".join(" ".join(row[kept]).lower().split()) for row in table.cells]


def _best(rows: sp.csr_matrix, columns: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """[n] the most similar column of each row, [n] how similar."""
    best, similarity = np.zeros(rows.shape[0], int), np.zeros(rows.shape[0])
    for start in range(0, rows.shape[0], _ROWS):
        block = (rows[start : start + _ROWS] @ columns.T).toarray()
        best[start : start + _ROWS] = block.argmax(axis=1)
        similarity[start : start + _ROWS] = block.max(axis=1)
    return best, similarity


def _assignment_of_nearest(left: sp.csr_matrix, right: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Only the nearest of each record, from either side, compete; each row may also stay alone."""
    table = _nearest(left, right).maximum(_nearest(right, left).T.tocsr())
    alone = _NEXT_TO_NOTHING * sp.eye(table.shape[0])
    rows, columns = min_weight_full_bipartite_matching(sp.hstack([table, alone]).tocsr(), maximize=True)
    paired = columns < table.shape[1]
    rows, columns = rows[paired], columns[paired]
    return rows, columns, np.asarray(table[rows, columns]).ravel()


def _nearest(rows: sp.csr_matrix, columns: sp.csr_matrix) -> sp.csr_matrix:
    """[n, m] similarities, all but the largest few of each row left out."""
    count = min(_NEAREST, columns.shape[0])
    blocks = []
    for start in range(0, rows.shape[0], _ROWS):
        block = (rows[start : start + _ROWS] @ columns.T).toarray()
        kept = np.argpartition(-block, count - 1, axis=1)[:, :count]
        sparse = np.zeros_like(block)
        np.put_along_axis(sparse, kept, np.take_along_axis(block, kept, axis=1), axis=1)
        blocks.append(sp.csr_matrix(sparse))
    return sp.vstack(blocks).tocsr()
