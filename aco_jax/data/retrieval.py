"""Candidates for every record: lexical, dense and TF-IDF nearest neighbours, and their fusion."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sparse_dot_topn import sp_matmul_topn

from aco_jax.data.records import Dataset
from aco_jax.data.wording import plain

EMPTY = -1
BLOCK = 512  # queries whose scores are held at a time
PAIRS = 100_000  # pairs whose sparse rows are held at a time
EXACT = 8192  # rows up to which all terms are looked at
COMMON, COMMON_WORD = 2048, 8192  # rows that may have a term which finds; a word, of which a text has fewer
SPARE = 16  # rows on a shortlist beside four times those wanted


@dataclass(frozen=True)
class Lexical:
    """Of each table its records [n], what each word adds to their BM25 [n, V], and the columns of the words."""

    weights: tuple[sp.csr_matrix, ...]
    columns: tuple[Mapping[str, int], ...]
    records: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Grams:
    """TF-IDF of the character 3- and 4-grams of words: a TfidfVectorizer that looks at each different word once.

    Grams do not reach over the end of a word, so that a text has those of its words, and texts say the same words.
    """

    counts: CountVectorizer  # of one word
    weights: TfidfTransformer

    def transform(self, texts: Sequence[str]) -> sp.csr_matrix:
        """[n] texts -> [n, V] sparse rows of unit length (empty texts: zero rows)."""
        said, words = _words_said(texts)
        return self.weights.transform(_gram_counts(said, self.counts.transform(words)))


@dataclass(frozen=True)
class Vectors:
    """TF-IDF of words and of character 3- and 4-grams; a dot product is the mean of the two cosines."""

    words: TfidfVectorizer
    grams: Grams

    def transform(self, texts: Sequence[str]) -> sp.csr_matrix:
        """[n] texts -> [n, V] sparse rows of unit length (empty texts: zero rows)."""
        parts = [self.words.transform(texts), self.grams.transform(texts)]
        return sp.csr_matrix(sp.hstack(parts) / np.sqrt(len(parts)), dtype=np.float32)


@dataclass(frozen=True)
class Lists:
    """The candidates of each anchor in each other table; list r is about anchor[r] and table[r].

    anchor [R] int32, table [R] int32, record [R, K] int32 (-1 where empty; best first).
    """

    anchor: np.ndarray
    table: np.ndarray
    record: np.ndarray


def fit_lexical(dataset: Dataset) -> Lexical:
    """BM25 over the records' texts, a separate index for each table so that its idf is its own."""
    import bm25s  # here, for it starts jax's devices, which processes must join before

    logging.getLogger(bm25s.__name__).setLevel(logging.WARNING)  # it says at length what it does
    weights, columns = [], []
    records = tuple(_members(dataset, table) for table in range(len(dataset.tables)))
    for members in records:
        tokens = [_words(dataset.text(int(record))) for record in members]
        known, added = {}, sp.csr_matrix((len(members), 0), dtype=np.float32)
        if any(tokens):
            index = bm25s.BM25()
            index.index(tokens, show_progress=False)
            # In the order of the texts: its own is that of a set, by which equal scores would be drawn in each process.
            known = {word: column for column, word in enumerate(dict.fromkeys(chain.from_iterable(tokens)))}
            parts = (index.scores["data"], index.scores["indices"], index.scores["indptr"])
            theirs = sp.csc_matrix(parts, (len(members), len(parts[2]) - 1))
            added = sp.csr_matrix(theirs[:, [index.vocab_dict[word] for word in known]])
        weights.append(added)
        columns.append(known)
    return Lexical(tuple(weights), tuple(columns), records)


def search(lexical: Lexical, queries: Sequence[str], table: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k records of `table` that best answer each query: ids [n, k] int32 (-1 padded), scores [n, k].

    Of large tables a shortlist is scored, see `nearest`.
    """
    weights, columns = lexical.weights[table], lexical.columns[table]
    said = [[columns[word] for word in _words(query) if word in columns] for query in queries]
    ends = np.cumsum([0, *map(len, said)])
    column = np.fromiter(chain.from_iterable(said), np.int64, ends[-1])
    counts = sp.csr_matrix((np.ones(len(column), np.float32), column, ends), (len(said), weights.shape[1]))
    counts.sum_duplicates()
    rows, scores = nearest(counts, weights, k, common=COMMON_WORD)
    return np.where(rows == EMPTY, EMPTY, np.append(lexical.records[table], EMPTY)[rows]).astype(np.int32), scores


@partial(jax.jit, static_argnames=("k", "block"))
def top_k(
    queries: chex.Array,
    embeddings: chex.Array,
    first: chex.Array,
    end: chex.Array,
    *,
    k: int,
    block: int = BLOCK,
) -> tuple[chex.Array, chex.Array]:
    """Largest dot products of [Q, D] with rows [first, end) of [N, D], a range of its own for each query.

    Queries go through in blocks of `block`, so that only [block, N] scores exist at a time.

    Returns:
      rows [Q, k] int32 of the N, -1 where the range has fewer, and scores [Q, k], 0 there.
    """
    chex.assert_rank([queries, embeddings, first, end], [2, 2, 1, 1])
    depth, count = min(k, embeddings.shape[0]), queries.shape[0]
    blocks, number = -(-count // block), jnp.arange(embeddings.shape[0])[None]

    def blocked(x: chex.Array) -> chex.Array:
        padded = jnp.pad(x, ((0, blocks * block - count), *[(0, 0)] * (x.ndim - 1)))
        return padded.reshape(blocks, block, *x.shape[1:])

    def best(part: tuple[chex.Array, chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        queries, first, end = part
        inside = (number >= first[:, None]) & (number < end[:, None])
        return jax.lax.top_k(jnp.where(inside, queries @ embeddings.T, -jnp.inf), depth)

    scores, rows = jax.lax.map(best, (blocked(queries), blocked(first), blocked(end)))
    scores, rows = (x.reshape(-1, depth)[:count] for x in (scores, rows))
    found = jnp.isfinite(scores)
    rows, scores = jnp.where(found, rows, EMPTY).astype(jnp.int32), jnp.where(found, scores, 0.0)
    tail = ((0, 0), (0, k - depth))
    return jnp.pad(rows, tail, constant_values=EMPTY), jnp.pad(scores, tail)


def fuse(rankings: Sequence[np.ndarray], k: int, constant: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Reciprocal-rank fusion of rankings [n, k_i]: ids [n, k], scores [n, k] = sum 1 / (constant + rank).

    Cormack, Clarke and Buettcher 2009, Reciprocal Rank Fusion outperforms Condorcet. -1 is nobody.
    """
    everyone = np.concatenate(rankings, axis=1)
    parts = [1.0 / (constant + 1 + np.arange(ranking.shape[1])) for ranking in rankings]
    points = np.broadcast_to(np.concatenate(parts), everyone.shape)
    rows = np.broadcast_to(np.arange(len(everyone))[:, None], everyone.shape)
    filled = everyone != EMPTY
    return _best(rows[filled], everyone[filled], points[filled], len(everyone), k)


def fit_vectors(texts: Sequence[str]) -> Vectors:
    """TF-IDF vocabularies of all records' texts together (sublinear term frequency)."""
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True, dtype=np.float32).fit(texts)
    counts, (said, each) = CountVectorizer(analyzer="char_wb", ngram_range=(3, 4), dtype=np.float32), _words_said(texts)
    weights = TfidfTransformer(sublinear_tf=True).fit(_gram_counts(said, counts.fit_transform(each)))
    return Vectors(words, Grams(counts, weights))


def nearest(
    queries: sp.csr_matrix, rows: sp.csr_matrix, k: int, *, same: bool = False, common: int = COMMON
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows most similar to each query: indices [Q, k] int32 (-1 padded), scores [Q, k], best first.

    same=True leaves out row q for query q (a table against itself). Of a table of more than EXACT rows, terms that more
    than `common` rows have do not bring a row onto the shortlist, of which the whole scores then choose, unless a query
    has no other: so the work grows as the table, not as its square, but for queries of such terms alone. Of smaller
    tables the answer is exact.
    """
    inverted, finding, wanted = sp.csr_matrix(rows.T, dtype=queries.dtype), queries, k + same
    if rows.shape[0] > EXACT:
        have = np.diff(inverted.indptr)
        finding, wanted = _rare(queries, (have > 0) & (have <= common)), 4 * k + SPARE
    short = sp_matmul_topn(finding, inverted, top_n=wanted, n_threads=os.cpu_count()).tocoo()
    kept = short.row != short.col if same else np.ones(short.nnz, bool)
    query, row, scores = short.row[kept], short.col[kept], short.data[kept]
    if rows.shape[0] > EXACT:
        blocks = [slice(start, start + PAIRS) for start in range(0, len(query), PAIRS)]
        scores = [np.asarray(queries[query[b]].multiply(rows[row[b]]).sum(axis=1)).ravel() for b in blocks]
        scores = np.concatenate([np.zeros(0), *scores])
    return _best(query, row, scores, queries.shape[0], k)


def _rare(queries: sp.csr_matrix, rare: np.ndarray) -> sp.csr_matrix:
    """Queries [Q, V] with those of their terms that are `rare` [V] bool; with all where they have none."""
    query = np.repeat(np.arange(queries.shape[0]), np.diff(queries.indptr))
    finds = rare[queries.indices]
    kept = finds | (np.bincount(query, finds, queries.shape[0])[query] == 0)
    return sp.csr_matrix((queries.data[kept], (query[kept], queries.indices[kept])), queries.shape)


def candidates(
    dataset: Dataset, matrices: Sequence[sp.csr_matrix], k: int = 16, depth: int = 12, lexical: Lexical | None = None
) -> Lists:
    """For each record and each other table the k likeliest partners, found from either side.

    matrices: [N, V] sparse, one for each view of a record (all text, title). Each view and BM25 rank
    `depth` records in both directions; the fused points of both directions are added.
    """
    anchors, tables, lists = [], [], []
    pairs = [(i, j) for i in range(len(dataset.tables)) for j in range(len(dataset.tables)) if i < j]
    found = {pair: _both_ways(dataset, matrices, pair, k, depth, lexical) for pair in pairs}
    for anchor_table in range(len(dataset.tables)):
        for other in range(len(dataset.tables)):
            if anchor_table == other:
                continue
            pair = (min(anchor_table, other), max(anchor_table, other))
            anchors.append(_members(dataset, anchor_table))
            tables.append(np.full(len(anchors[-1]), other, np.int32))
            lists.append(found[pair][0 if anchor_table < other else 1])
    return Lists(np.concatenate(anchors), np.concatenate(tables), np.concatenate(lists))


def _both_ways(
    dataset: Dataset,
    matrices: Sequence[sp.csr_matrix],
    pair: tuple[int, int],
    k: int,
    depth: int,
    lexical: Lexical | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists of the left table [n_left, k] and of the right table [n_right, k], as records."""
    left, right = _members(dataset, pair[0]), _members(dataset, pair[1])
    forward, backward = [], []
    for matrix in matrices:
        forward.append(nearest(matrix[left], matrix[right], depth)[0])
        backward.append(nearest(matrix[right], matrix[left], depth)[0])
    if lexical is not None:
        for mine, other, rankings in ((left, pair[1], forward), (right, pair[0], backward)):
            ids, _ = search(lexical, [dataset.text(int(r)) for r in mine], other, depth)
            rankings.append(np.where(ids == EMPTY, EMPTY, ids - dataset.offsets[other]).astype(np.int32))
    there, points = fuse(forward, depth * len(forward))
    back, back_points = fuse(backward, depth * len(backward))
    rows, columns, value = _edges(there, points)
    back_rows, back_columns, back_value = _edges(back, back_points)
    rows, columns = np.concatenate([rows, back_columns]), np.concatenate([columns, back_rows])
    value = np.concatenate([value, back_value])
    mine = _best(rows, columns, value, len(left), k)[0]
    theirs = _best(columns, rows, value, len(right), k)[0]
    offset_left, offset_right = dataset.offsets[pair[0]], dataset.offsets[pair[1]]
    return (
        np.where(mine == EMPTY, EMPTY, mine + offset_right).astype(np.int32),
        np.where(theirs == EMPTY, EMPTY, theirs + offset_left).astype(np.int32),
    )


def _edges(ids: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, slots = np.nonzero(ids != EMPTY)
    return rows, ids[rows, slots], points[rows, slots]


def _best(
    rows: np.ndarray, columns: np.ndarray, points: np.ndarray, count: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k columns of each row with the most points (those of repeated cells are added), best first."""
    ids = np.full((count, k), EMPTY, np.int32)
    scores = np.zeros((count, k), np.float32)
    if len(rows) == 0:
        return ids, scores
    width = int(columns.max()) + 1
    cell, inverse = np.unique(rows.astype(np.int64) * width + columns, return_inverse=True)
    value = np.bincount(inverse, points)
    row, column = cell // width, cell % width
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < k
    ids[row[kept], place[kept]] = column[kept]
    scores[row[kept], place[kept]] = value[kept]
    return ids, scores


def _members(dataset: Dataset, table: int) -> np.ndarray:
    start = int(dataset.offsets[table])
    return np.arange(start, start + len(dataset.tables[table].ids), dtype=np.int32)


def _words_said(texts: Sequence[str]) -> tuple[sp.csr_matrix, list[str]]:
    """How often each text says each word, [n, w], and the w different words, of which the last is empty and unsaid."""
    split = [text.split() for text in texts]
    number = {word: i for i, word in enumerate(dict.fromkeys(word for words in split for word in words))}
    column = np.fromiter((number[word] for words in split for word in words), np.int64)
    row = np.repeat(np.arange(len(split)), [len(words) for words in split])
    shape = (len(split), len(number) + 1)
    return sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape), [*number, ""]


def _gram_counts(said: sp.csr_matrix, grams: sp.csr_matrix) -> sp.csr_matrix:
    """[n, w] x [w, V] -> [n, V], the grams of each row in order, as their sums are taken."""
    found = sp.csr_matrix(said @ grams)
    found.sort_indices()
    return found


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in plain(text)).split()
