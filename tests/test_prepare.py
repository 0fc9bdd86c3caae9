"""What the host says of candidates before a round is played."""

from __future__ import annotations

import numpy as np

from aco_jax import inquiry, prepare
from aco_jax.desk import Anchors
from aco_jax.types import UNKNOWN, UNRELATED, Query


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


def test_what_a_query_loses_goes_by_the_rank_of_the_planted_answer_hidden_or_not() -> None:
    """Record 7 is sought: found second and own words find it first; the other way round; hidden, and beyond the
    guardrails; of anchors that are not planted, one whose query found something and one whose query found nothing."""
    anchors = Anchors(
        row=np.arange(5),
        rows=[{}] * 5,
        planted=np.array([True, True, True, False, False]),
        truth=np.array([[7], [7], [-1], [7], [7]]),
        unsure=np.full((5, 1), -1),
        hidden=np.array([[-1], [-1], [7], [-1], [-1]]),
        weight=np.ones(5, np.float32),
    )
    found = np.full((5, inquiry.DEPTH), -1, np.int32)
    found[:4, :3] = [[5, 7, 6], [7, 5, 6], [5, 6, 7], [5, 6, 8]]
    raw = np.full((5, inquiry.DEPTH), -1, np.int32)
    raw[:3, :3] = [[7, 5, 6], [5, 6, 7], [5, 7, 6]]
    least = np.array([0.0, 0.0, 0.9, 0.0, 0.0], np.float32)
    blank = np.zeros((5, 1), np.int32)
    query = Query(blank, np.zeros(5), np.ones(5), np.ones(5), np.ones((5, 1), bool), least)
    asked = inquiry.Asked(source=blank, written=blank, query=query, found=found, similar=found)
    np.testing.assert_allclose(prepare.lost(anchors, asked, raw), [1 / 2, -2 / 3, 1 / 2, 0, 1], rtol=1e-6)
