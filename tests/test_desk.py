"""The desk: anchors of tables in which nothing can be changed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

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
