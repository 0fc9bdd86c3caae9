"""How well searches did, where the answer is known."""

from __future__ import annotations

import numpy as np

from aco_jax import inquiry, outcomes
from aco_jax.desk import Anchors
from aco_jax.types import Query


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
    np.testing.assert_allclose(outcomes.lost(anchors, asked, raw), [1 / 2, -2 / 3, 1 / 2, 0, 1], rtol=1e-6)


def test_a_hit_is_a_known_answer_among_what_each_text_finds() -> None:
    """Of three anchors the answer is 7; of the last nobody knows it, and nothing is no answer to that."""
    anchors = Anchors(
        row=np.arange(3),
        rows=[{}] * 3,
        planted=np.ones(3, bool),
        truth=np.array([[7, 8], [7, -1], [-1, -1]]),
        unsure=np.full((3, 1), -1),
        hidden=np.full((3, 1), -1),
        weight=np.ones(3, np.float32),
    )
    blank = np.zeros((3, 1), np.int32)
    query = Query(blank, np.zeros(3), np.ones(3), np.ones(3), np.ones((3, 1), bool), np.zeros(3, np.float32))

    def answers(*rows: list[int]) -> np.ndarray:
        return np.array([row + [-1] * (inquiry.DEPTH + 1 - len(row)) for row in rows], np.int32)

    late = [*range(100, 100 + inquiry.DEPTH), 7]
    asked = inquiry.Asked(blank, blank, query, found=answers([5, 7], late, []), similar=answers([8], [7], [-1]))
    split = inquiry.Split(blank, blank, blank, found=answers([5], [5, 7], [5])[:, None])
    record, raw = np.array([[[5, 8]], [[7, 5]], [[5, -1]]]), answers([7], [7], [5])[:, : inquiry.DEPTH]
    expected = {
        "data/raw_recall": [True, True, False],
        "base/query_recall": [True, False, False],  # the second stands beyond DEPTH
        "base/dense_recall": [False, True, False],  # 8 is a further partner, not the answer
        "rewriter/recall": [False, True, False],
        "data/recall": [False, True, False],
    }
    found = outcomes.hits(anchors, asked, split, record, raw)
    assert {name: hit.tolist() for name, hit in found.items()} == expected
