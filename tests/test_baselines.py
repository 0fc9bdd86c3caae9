"""Against enumeration: all permutations for the assignment, all pairs for the mutual best."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from aco_jax import baselines
from aco_jax.data import records

SIMILARITY = np.array(
    [
        [0.9, 0.8, 0.0, 0.0],
        [0.8, 0.1, 0.0, 0.0],
        [0.0, 0.3, 0.0, 0.3],
    ]
)


def as_vectors(similarity):
    """Vectors whose dot products are the given similarities."""
    return sp.csr_matrix(similarity), sp.eye(similarity.shape[1]).tocsr()


def make_dataset():
    names = ["Sony PSLX350H turntable", "Bose speaker", ""]
    titles = ["bose SPEAKER black", "turntable sony pslx350h"]
    frames = {
        "A": pd.DataFrame({"id": ["a0", "a1", "a2"], "name": names, "price": ["9", "5", "1"]}),
        "B": pd.DataFrame({"id": ["b0", "b1"], "title": titles, "price": ["1", "1"]}),
        "C": pd.DataFrame({"id": ["c0"], "label": ["Sony turntable pslx350h"]}),
    }
    return records.from_frames(frames)


def test_mutual_best_by_hand():
    # rows 0 and 1 both prefer column 0, which prefers row 0; row 2's first best is 1, which prefers row 0
    assert baselines.mutual_best(*as_vectors(SIMILARITY)) == [(0, 0, 0.9)]


@pytest.mark.parametrize("rows", [1, 2, 256])
def test_mutual_best_is_the_definition(monkeypatch, rows):
    monkeypatch.setattr(baselines, "_ROWS", rows)
    table = np.random.default_rng(0).integers(0, 6, (9, 7)) / 8  # with ties and zeros
    expected = [
        (i, j, table[i, j])
        for i in range(9)
        for j in range(7)
        if table[i, j] > 0 and table[i].argmax() == j and table[:, j].argmax() == i
    ]
    assert baselines.mutual_best(*as_vectors(table)) == expected


def test_assignment_by_hand():
    # 0.8 + 0.8 beats 0.9 + 0.1; row 2 takes what is left of its two equals; zeros are no pairs
    assert baselines.assignment(*as_vectors(SIMILARITY)) == [(0, 1, 0.8), (1, 0, 0.8), (2, 3, 0.3)]
    assert baselines.assignment(*as_vectors(np.zeros((2, 2)))) == []


@pytest.mark.parametrize("cells", [0, 10**6])
def test_assignment_is_the_best_of_all(monkeypatch, cells):
    monkeypatch.setattr(baselines, "_DENSE_CELLS", cells)
    table = np.random.default_rng(1).uniform(size=(5, 6))
    total = max(table[np.arange(5), list(order)].sum() for order in permutations(range(6), 5))
    found = baselines.assignment(*as_vectors(table))
    assert sum(similarity for _, _, similarity in found) == pytest.approx(total)
    assert len({i for i, _, _ in found}) == len({j for _, j, _ in found}) == 5
    assert all(table[i, j] == similarity for i, j, similarity in found)


def test_sparse_assignment_leaves_records_alone(monkeypatch):
    monkeypatch.setattr(baselines, "_DENSE_CELLS", 0)
    monkeypatch.setattr(baselines, "_NEAREST", 1)
    table = np.array([[0.9, 0.1], [0.8, 0.2], [0.0, 0.0]])
    assert baselines.assignment(*as_vectors(table)) == [(0, 0, 0.9), (1, 1, 0.2)]


def test_a_similarity_is_the_mean_of_two_cosines():
    left, right = baselines.vectors(["red lamp", "blue lamp"], ["red lamp", "green"])
    similarity = (left @ right.T).toarray()
    assert similarity[0, 0] == pytest.approx(1)
    assert similarity[0, 1] == 0
    assert 0 < similarity[1, 0] < 1


@pytest.mark.parametrize("method", baselines.METHODS.values())
def test_every_two_tables_are_matched(method):
    dataset = make_dataset()
    found = {(dataset.key(i)[1], dataset.key(j)[1]) for i, j, _ in baselines.propose(dataset, method)}
    assert found == {("a0", "b1"), ("a1", "b0"), ("a0", "c0"), ("b1", "c0")}
    assert all(0 < similarity <= 1 + 1e-9 for _, _, similarity in baselines.propose(dataset, method))
