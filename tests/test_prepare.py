"""What the host says of candidates before a round is played."""

from __future__ import annotations

import numpy as np

from aco_jax import prepare
from aco_jax.desk import Anchors
from aco_jax.types import UNKNOWN, UNRELATED


def test_of_candidates_the_partners_are_related_the_unsure_unknown_the_others_unrelated() -> None:
    anchors = Anchors(
        row=np.array([0, 1]),
        rows=[{}, {}],
        planted=np.array([True, False]),
        truth=np.array([[7, -1], [-1, -1]]),
        unsure=np.array([[8, -1], [-1, -1]]),
        hidden=np.full((2, 2), -1),
        weight=np.array([1.0, 0.5], np.float32),
    )
    belief = prepare.believe(anchors, np.array([[[7, 8, 9, -1]], [[7, 8, 9, -1]]]))
    np.testing.assert_array_equal(belief.relation[0, 0], [1, UNKNOWN, UNRELATED, UNKNOWN])
    np.testing.assert_array_equal(belief.relation[1, 0], [UNRELATED] * 3 + [UNKNOWN])
    np.testing.assert_array_equal(belief.planted, [True, False])
    np.testing.assert_array_equal(belief.weight, [1.0, 0.5])


def test_the_candidates_that_look_best_are_read() -> None:
    record = np.array([[[4, 5, -1], [6, 7, 8]], [[-1, -1, -1], [3, -1, -1]]])
    score = np.array([[[0.2, 0.9, 2.0], [0.5, 0.1, 0.3]], [[2.0, 2.0, 2.0], [0.1, 2.0, 2.0]]], np.float32)
    anchor, row, slot = prepare._worth_reading(record, score)
    read = {(int(a), int(record[a, r, s])) for a, r, s in zip(anchor, row, slot, strict=True)}
    assert read == {(0, 5), (0, 6), (1, 3)}  # READ each, where there are as many; an empty slot is nobody
