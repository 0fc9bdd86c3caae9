"""The desk: tables that have nothing in common, and those in which nothing can be changed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aco_jax import desk as desks
from aco_jax import supervision
from aco_jax.data import descriptions, listing, records, retrieval
from aco_jax.settings import TrainConfig


def test_a_copy_that_cannot_be_contradicted_has_its_original() -> None:
    """All records say the same word: there is no other fact to take in its place, so that NULL is never right."""
    frames = {name: pd.DataFrame({"id": ["1", "2"], "name": ["kettle", "kettle"]}) for name in "ab"}
    dataset = records.from_frames(frames)
    index = descriptions.fit(dataset)
    problem = listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=2, depth=2))
    desk = SimpleNamespace(dataset=dataset, problem=problem)
    anchors = desks.choose(desk, TrainConfig(), supervision.init(problem, 0), np.random.default_rng(0), 0)
    assert anchors.planted.any()
    assert (anchors.truth[anchors.planted] >= 0).any(axis=1).all()
    assert all(row["name"] for row in anchors.rows)


def test_tables_that_have_nothing_in_common_are_refused(tiny: TrainConfig) -> None:
    words = {"a": ["aba", "bab", "abba", "baab"], "b": ["xyx", "yxy", "xyyx", "yxxy"]}
    frames = {name: pd.DataFrame({"id": list("0123"), "title": titles}) for name, titles in words.items()}
    with pytest.raises(records.InputError, match="tables a, b: nothing in common, expected a word"):
        desks.open_desk(tiny, records.from_frames(frames))
