"""Retrieval: against brute force, padding, and both directions."""

from __future__ import annotations

import logging

import bm25s
import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from aco_jax.data import records, retrieval


@pytest.fixture
def dataset() -> records.Dataset:
    left = pd.DataFrame({"id": ["1", "2", "3"], "name": ["red apple", "green pear", "zinc"]})
    right = pd.DataFrame({"id": ["1", "2"], "name": ["pear green big", "apple of red"]})
    return records.from_frames({"a": left, "b": right})


def test_top_k_equals_brute_force_whatever_the_block():
    queries, rows = (np.array(jax.random.normal(jax.random.key(k), (n, 4))) for k, n in ((0, 7), (1, 5)))
    full = queries @ rows.T
    first, end = np.zeros(7, np.int32), np.full(7, 5, np.int32)
    for block in (2, 7, 512):
        ids, scores = retrieval.top_k(queries, rows, first, end, k=6, block=block)
        np.testing.assert_array_equal(ids[:, :5], np.argsort(-full, axis=1))
        np.testing.assert_allclose(scores[:, :5], -np.sort(-full, axis=1), rtol=1e-5)
        assert (np.asarray(ids[:, 5]) == -1).all()


def test_top_k_keeps_to_each_query_s_range_of_rows():
    queries, rows = (np.array(jax.random.normal(jax.random.key(k), (n, 4))) for k, n in ((0, 3), (1, 6)))
    first, end = np.array([0, 2, 6], np.int32), np.array([2, 6, 6], np.int32)
    ids, scores = (np.asarray(x) for x in retrieval.top_k(queries, rows, first, end, k=3, block=2))
    for query, (low, high) in enumerate(zip(first, end, strict=True)):
        known = rows[low:high] @ queries[query]
        best = np.argsort(-known)[:3]
        np.testing.assert_array_equal(ids[query], np.pad(low + best, (0, 3 - len(best)), constant_values=-1))
        np.testing.assert_allclose(scores[query], np.pad(known[best], (0, 3 - len(best))), rtol=1e-5)


def test_nearest_equals_brute_force_and_leaves_itself_out():
    rows = sp.random(9, 6, 0.5, format="csr", random_state=0, dtype=np.float32)
    full = (rows @ rows.T).toarray()
    np.fill_diagonal(full, 0)
    ids, scores = retrieval.nearest(rows, rows, 3, same=True)
    np.testing.assert_allclose(scores, -np.sort(-full, axis=1)[:, :3], rtol=1e-6)
    assert (ids != np.arange(9)[:, None]).all()


def test_in_a_large_table_terms_that_many_have_find_nobody_but_count(monkeypatch):
    """Row 0 shares its rare term with row 1 alone; rows 2 to 5 are nearer by the term that all have."""
    monkeypatch.setattr(retrieval, "EXACT", 4)
    rows = sp.csr_matrix(np.array([[0.9, 0.4], [0.1, 0.3]] + [[1.0, 0.0]] * 4, np.float32))
    ids, scores = retrieval.nearest(rows[:1], rows, 3, same=True, common=3)
    np.testing.assert_array_equal(ids, [[1, -1, -1]])
    np.testing.assert_allclose(scores, [[0.9 * 0.1 + 0.4 * 0.3, 0, 0]], rtol=1e-6)
    monkeypatch.setattr(retrieval, "EXACT", 6)
    assert set(retrieval.nearest(rows[:1], rows, 3, same=True)[0][0]) <= {2, 3, 4, 5}


def test_in_a_large_table_a_query_of_common_terms_alone_finds_by_them(monkeypatch):
    """Term 2 nobody has: it finds nothing, and leaves the query no rarer term than the one that all have."""
    monkeypatch.setattr(retrieval, "EXACT", 4)
    rows = sp.csr_matrix(np.array([[weight, 0.0, 0.0] for weight in (0.3, 0.9, 0.5, 0.1, 0.7)], np.float32))
    query = sp.csr_matrix(np.array([[1.0, 0.0, 1.0]], np.float32))
    np.testing.assert_array_equal(retrieval.nearest(query, rows, 3, common=3)[0], [[1, 4, 2]])


def test_fuse_adds_reciprocal_ranks():
    ids, scores = retrieval.fuse([np.array([[4, 7]]), np.array([[7, -1]])], k=3, constant=60)
    np.testing.assert_array_equal(ids, [[7, 4, -1]])
    np.testing.assert_allclose(scores, [[1 / 62 + 1 / 61, 1 / 61, 0]], rtol=1e-6)


def test_search_finds_in_the_table_asked_and_pads(dataset):
    ids, scores = retrieval.search(retrieval.fit_lexical(dataset), ["a green pear", "unheard"], 1, 3)
    assert ids[0, 0] == 3
    assert (ids[1] == -1).all()
    assert (scores[1] == 0).all()


def test_what_is_searched_by_is_the_same_in_every_process(dataset):
    """bm25s numbers words in the order of a set, which is another one in another process."""
    lexical = retrieval.fit_lexical(dataset)
    assert lexical.columns[1] == {"pear": 0, "green": 1, "big": 2, "apple": 3, "of": 4, "red": 5}
    assert np.diff(lexical.weights[1].tocsc().indptr).tolist() == [1] * 6


def test_search_without_words_or_queries_finds_nobody():
    frames = {name: pd.DataFrame({"id": ["1"], "name": [text]}) for name, text in (("a", "red apple"), ("b", "--"))}
    lexical = retrieval.fit_lexical(records.from_frames(frames))
    np.testing.assert_array_equal(retrieval.search(lexical, ["red", ""], 1, 2)[0], np.full((2, 2), -1))
    assert retrieval.search(lexical, [], 0, 2)[0].shape == (0, 2)


def test_search_scores_as_bm25s_does_word_by_word():
    """Also where a word is said twice, and where nothing is known of it; equal scores in any order."""
    names = ["red red apple", "green apple pie", "pie of pears", "", "red pie apple pie"]
    queries = ["a red, RED apple", "pie unheard", "unheard", "", "pears of red"]
    frames = {"a": pd.DataFrame({"id": ["1"], "name": ["zinc"]}), "b": pd.DataFrame({"id": [*"12345"], "name": names})}
    ids, scores = retrieval.search(retrieval.fit_lexical(records.from_frames(frames)), queries, 1, 9)
    index = bm25s.BM25()
    index.index([name.split() for name in names], show_progress=False)
    for query, found, value in zip(queries, ids, scores, strict=True):
        known = [word for word in query.lower().replace(",", "").split() if word in index.vocab_dict]
        truth = index.get_scores(known) if known else np.zeros(5)
        kept = found >= 0
        assert sorted(found[kept] - 1) == np.flatnonzero(truth > 0).tolist()
        np.testing.assert_allclose(value[kept], truth[found[kept] - 1], rtol=1e-6)
        assert (np.diff(value) <= 0).all()


TEXTS = ["Red apple, red  APPLE pie", "", "a pie  of pears-and-apples 12x", "éclair\u00a0pie i", "straße STRASSE ﬁg"]


@pytest.mark.parametrize("texts", [TEXTS, ["", " "], ["unknown words", "pie"]])
def test_grams_are_those_of_a_tfidf_vectorizer_to_the_bit(texts):
    like = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, dtype=np.float32).fit(TEXTS)
    grams = retrieval.fit_vectors(TEXTS).grams
    ours, theirs = grams.transform(texts), like.transform(texts)
    assert grams.counts.vocabulary_ == like.vocabulary_
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours.toarray(), theirs.toarray())


def test_it_says_nothing_of_what_it_does(dataset, caplog):
    with caplog.at_level(logging.DEBUG):
        retrieval.fit_lexical(dataset)
    assert caplog.messages == []


def test_candidates_are_symmetric_and_of_the_other_table(dataset):
    vectors = retrieval.fit_vectors([dataset.text(r) for r in range(dataset.size)])
    matrix = vectors.transform([dataset.text(r) for r in range(dataset.size)])
    lists = retrieval.candidates(dataset, [matrix], k=4, depth=2, lexical=retrieval.fit_lexical(dataset))
    found = {(int(a), int(b)) for a, row in zip(lists.anchor, lists.record, strict=True) for b in row if b >= 0}
    assert found == {(b, a) for a, b in found}
    assert {(0, 4), (1, 3)} <= found
    assert all(dataset.table_of[a] != dataset.table_of[b] for a, b in found)
    assert (lists.record[2] == -1).all()  # nothing in common: nobody
