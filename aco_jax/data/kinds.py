"""What sort of thing each record is and how large it is, and which sorts go together; found in the tables alone.

Records of one kind share words that are neither rare (names, codes) nor said everywhere. A kind's size is the quantity
that most of its records state and that varies most. Two kinds go together where they are sized on one scale, with the
same values, though they are different things of different price: what fits something comes in its sizes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from aco_jax.data import fields as columns_of
from aco_jax.data import measures
from aco_jax.data.records import Dataset

NOBODY = -1
SAMPLE = 4096  # records that are clustered; the others go with the nearest kind
WIDTH = 40  # of a record's vector
RARE, COMMON = 0.006, 0.5  # shares of the records between which a word tells kinds
APART = 0.6  # mean cosine distance from which two groups are two kinds
SHARED = 0.5  # of two kinds' sizes that are the same, from which they are sized on one scale
DEARER = 0.25  # least difference of two kinds' median prices, of the natural logarithm, where both are known


@dataclass(frozen=True)
class Kinds:
    """N records and G kinds.

    kind [N] int32, NOBODY where nothing is known; size [N] float64, the logarithm of the main quantity in base units,
    NaN where it is not stated; level [N] int32, number of the size among those equal up to rounding, NOBODY;
    share [G] float64, of the records; sizes [G, levels] float64, how the sizes of each kind are distributed, zero for a
    kind that states none that varies; fits [G, G] bool, symmetric, of kinds that go together.
    """

    kind: np.ndarray
    size: np.ndarray
    level: np.ndarray
    share: np.ndarray
    sizes: np.ndarray
    fits: np.ndarray


def fit(dataset: Dataset, same: np.ndarray) -> Kinds:
    """Groups the records of all tables.

    Args:
        same: [n, 2] records that are believed to be the same: words that only they have in common are brought
            together by them.
    """
    rows = [dataset.row(record) for record in range(dataset.size)]
    texts = [" ".join(row.values()).lower() for row in rows]
    kind = cluster(_brought_together(_vectors(texts), same))
    stated = [measures.quantities(measures.stated(row)) for row in rows]
    size, dimension = _sizes(kind, stated)
    level = _levels(kind, size, dimension)
    count = max(1, int(kind.max()) + 1)
    histogram = _histogram(kind, level, count)
    return Kinds(
        kind=kind,
        size=size,
        level=level,
        share=np.bincount(kind[kind >= 0], minlength=count) / max(1, len(kind)),
        sizes=histogram,
        fits=_fitting(histogram, _prices(dataset, kind, count)),
    )


def agreement(kinds: Kinds, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of pairs of records: of one kind, of kinds that go together, both sizes known, sizes equal; bool [P] each."""
    ours, theirs = kinds.kind[left], kinds.kind[right]
    known = (ours >= 0) & (theirs >= 0)
    sized = (kinds.level[left] >= 0) & (kinds.level[right] >= 0)
    return (
        known & (ours == theirs),
        known & kinds.fits[ours, theirs],
        sized,
        sized & (kinds.level[left] == kinds.level[right]),
    )


def one_size(kinds: Kinds, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[P] float64: how likely two records have one size where one of them does not state it, or neither does.

    It is the chance that a record of that kind has the size that the other states. In a kind without sizes that vary
    nothing tells two things apart but what they are.
    """
    ours, theirs = kinds.kind[left], kinds.kind[right]
    unsized = (ours == theirs) & (kinds.sizes.sum(axis=1) == 0)[ours]
    found = (kinds.sizes @ kinds.sizes.T)[ours, theirs]
    for level, other in ((kinds.level[left], theirs), (kinds.level[right], ours)):
        found = np.where(level >= 0, kinds.sizes[other, level], found)
    return np.where((ours >= 0) & (theirs >= 0), np.where(unsized, 1.0, found), 0.0)


def partners(dataset: Dataset, kinds: Kinds, most: int) -> np.ndarray:
    """Pairs of different tables [P, 2], each once, whose sizes are equal and whose kinds are one or go together.

    Of those of one kind and table a record gets at most about `most`, the next ones in the order of the tables, so that
    the work grows as the tables do.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for record, cell in enumerate(zip(kinds.kind.tolist(), kinds.level.tolist(), strict=True)):
        if min(cell) >= 0:
            members.setdefault(cell, []).append(record)
    found: set[tuple[int, int]] = set()
    for (kind, level), lefts in members.items():
        for other in [kind, *np.flatnonzero(kinds.fits[kind]).tolist()]:
            found.update(_across(dataset, lefts, members.get((other, level), []), most))
    return np.array(sorted(found), np.int32).reshape(-1, 2)


def count_partners(kinds: Kinds, table_of: np.ndarray) -> tuple[int, int]:
    """How many pairs of different tables have equal sizes: of one kind, and of two kinds that go together.

    table_of: [N] the table of each record.
    """
    known = np.flatnonzero((kinds.kind >= 0) & (kinds.level >= 0))
    cells = np.zeros((*kinds.sizes.shape, int(table_of.max(initial=0)) + 1))
    np.add.at(cells, (kinds.kind[known], kinds.level[known], table_of[known]), 1)
    every, tables = cells.sum(axis=2), cells.reshape(len(cells), -1)
    across = every @ every.T - tables @ tables.T  # [G, G] ordered pairs of records
    return int(np.trace(across)) // 2, int((across * kinds.fits).sum()) // 2


def cluster(vectors: np.ndarray) -> np.ndarray:
    """[N, D] unit vectors (or zero: nothing is known) -> [N] the number of each one's group, NOBODY for zero ones.

    Groups are joined while their mean cosine distance is below APART (average linkage, Sokal and Michener 1958).
    """
    kind = np.full(len(vectors), NOBODY, np.int32)
    told = np.flatnonzero((vectors**2).sum(axis=1) > 0)
    if len(told) < 2:
        kind[told] = 0
        return kind
    some = np.sort(np.random.default_rng(len(told)).permutation(told)[:SAMPLE])
    linkage = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=APART)
    group = linkage.fit_predict(vectors[some])
    centre = np.stack([vectors[some[group == g]].mean(axis=0) for g in range(group.max() + 1)])
    centre /= np.maximum(np.linalg.norm(centre, axis=1, keepdims=True), 1e-9)
    kind[told] = (vectors[told] @ centre.T).argmax(axis=1)
    kind[some] = group
    return kind


def _vectors(texts: list[str]) -> np.ndarray:
    """[N, D] unit vectors of the words, and pairs of them, that tell kinds; zero where a text has none of them."""
    words = TfidfVectorizer(token_pattern=r"(?u)[^\W\d_]{2,}", ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    try:
        told = sp.csr_matrix(words.fit_transform(texts))
    except ValueError:  # no text has a word
        return np.zeros((len(texts), 1))
    count = np.bincount(told.indices, minlength=told.shape[1])
    told = told[:, (count >= max(2, RARE * len(texts))) & (count <= max(2, COMMON * len(texts)))]
    width = min(WIDTH, told.shape[1] - 1, len(texts) - 1)
    vectors = TruncatedSVD(width, random_state=0).fit_transform(told) if width > 0 else told.toarray()
    return _unit(np.asarray(vectors, np.float64)) if vectors.shape[1] else np.zeros((len(texts), 1))


def _brought_together(vectors: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Every vector moved to the mean of its own and those of the records that are the same."""
    moved = vectors.copy()
    for a, b in ((0, 1), (1, 0)):
        np.add.at(moved, same[:, a], vectors[same[:, b]])
    return _unit(moved)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _sizes(kind: np.ndarray, stated: list[frozenset[measures.Quantity]]) -> tuple[np.ndarray, list[str]]:
    """Each record's size [N], and the dimension of each kind's sizes, "" where it states none that varies.

    A record that states a dimension twice is as large as the larger says.
    """
    largest: list[dict[str, float]] = []
    for quantities in stated:
        largest.append({})
        for dimension, value in sorted(quantities):
            largest[-1][dimension] = value  # sorted: the largest is last
    size, dimensions = np.full(len(kind), np.nan), []
    for number in range(int(kind.max()) + 1):
        members = np.flatnonzero(kind == number).tolist()
        values: dict[str, list[float]] = {}
        for record in members:
            for dimension, value in largest[record].items():
                values.setdefault(dimension, []).append(value)
        best = max(sorted(values), key=lambda dimension: _varied(values[dimension]), default="")
        dimensions.append(best if best and _varied(values[best]) > 0 else "")
        for record in members:
            size[record] = largest[record].get(dimensions[-1], np.nan)
    return size, dimensions


def _varied(values: list[float]) -> int:
    """How many of the values differ from the most frequent one."""
    return len(values) - max(Counter(_steps(np.array(values)).tolist()).values())


def _steps(values: np.ndarray) -> np.ndarray:
    """[n] -> [n] int32: numbers of the values in their order; those within TOLERANCE of the least of them are one."""
    order = np.argsort(values, kind="stable")
    ascending, number = values[order], np.empty(len(values), np.int32)
    start = step = 0
    while start < len(values):
        end = int(np.searchsorted(ascending, ascending[start] + measures.TOLERANCE, side="right"))
        number[order[start:end]] = step
        start, step = end, step + 1
    return number


def _levels(kind: np.ndarray, size: np.ndarray, dimensions: list[str]) -> np.ndarray:
    """[N] the number of each record's size, counted through all dimensions; NOBODY where it has none."""
    level, first = np.full(len(kind), NOBODY, np.int32), 0
    of = np.array([*dimensions, ""], dtype=object)[kind]
    for dimension in sorted(set(dimensions) - {""}):
        members = np.flatnonzero((of == dimension) & ~np.isnan(size))
        level[members] = first + _steps(size[members])
        first = int(level.max()) + 1
    return level


def _histogram(kind: np.ndarray, level: np.ndarray, count: int) -> np.ndarray:
    """[G, levels]: how the sizes of each kind are distributed; zero for a kind without sizes."""
    known = (kind >= 0) & (level >= 0)
    counted = np.zeros((count, int(level.max(initial=0)) + 1))
    np.add.at(counted, (kind[known], level[known]), 1)
    return counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)


def _prices(dataset: Dataset, kind: np.ndarray, count: int) -> np.ndarray:
    """[G] the median of the logarithm of the first amount that a kind's records state, NaN where none does."""
    amounts = columns_of.fit(dataset).amounts[:1]
    price = np.full(dataset.size, np.nan)
    for record, table in enumerate(dataset.table_of.tolist() if amounts else ()):
        price[record] = columns_of.amount(columns_of.value(amounts[0], table, dataset.row(record)))
    known = np.log(np.where(price > 0, price, np.nan))
    each = [known[(kind == number) & ~np.isnan(known)] for number in range(count)]
    return np.array([np.median(values) if len(values) else np.nan for values in each])


def _fitting(histogram: np.ndarray, price: np.ndarray) -> np.ndarray:
    """[G, G] bool: the kinds that are sized on one scale, with the same values, and are of different price."""
    shared = np.array([np.minimum(row, histogram).sum(axis=1) for row in histogram]).reshape(len(price), len(price))
    apart = ~(np.abs(price[:, None] - price[None]) < DEARER)
    return (shared >= SHARED) & apart & ~np.eye(len(price), dtype=bool)


def _across(dataset: Dataset, lefts: list[int], rights: list[int], most: int) -> set[tuple[int, int]]:
    """Pairs of a record of `lefts` and one of `rights` of another table, the lower first."""
    found = set()
    for table in range(len(dataset.tables)):
        others = [record for record in rights if dataset.table_of[record] == table]
        for place, left in enumerate(lefts):
            if dataset.table_of[left] != table:
                for step in range(min(most, len(others))):
                    right = others[(place + step) % len(others)]
                    found.add((min(left, right), max(left, right)))
    return found
