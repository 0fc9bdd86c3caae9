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
