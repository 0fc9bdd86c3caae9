"""Competition: which pairs of one record may be right together, by what the table itself says of its copies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax import competition
from aco_jax.data import descriptions, evidence, listing, records, retrieval

# Of eight things the right table says the first twice, in much the same words, and has a stranger much like the second.
COLOURS = ("red", "green", "blue", "grey", "pink", "black", "white", "brown")
NAMES = [f"{colour} lamp code{k}{k}{k}" for k, colour in enumerate(COLOURS)]
COPY, STRANGER = 8, 9


@pytest.fixture(scope="module")
def problem() -> listing.Problem:
    other = [f"{name} new" for name in NAMES]
    right = [*other, f"new {NAMES[0]}", "green desk other999 new"]
    dataset = records.from_frames(
        {
            "a": pd.DataFrame({"id": [str(i) for i in range(8)], "name": NAMES}),
            "b": pd.DataFrame({"id": [str(i) for i in range(10)], "name": right}),
        }
    )
    index = descriptions.fit(dataset)
    return listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=10, depth=10))


def logits(problem: listing.Problem) -> np.ndarray:
    """The copy and the stranger are as sure of the first two as their partners are."""
    meant = {8 + k: k for k in range(8)} | {8 + COPY: 0, 8 + STRANGER: 1}
    low, high = np.minimum(problem.anchor[:, None], problem.record), np.maximum(problem.anchor[:, None], problem.record)
    right = np.array([[meant.get(b) == a for a, b in zip(*row, strict=True)] for row in zip(low, high, strict=True)])
    own = (high - 8 == low) & right
    return np.where(own, 8.0, np.where(right, 6.0, -8.0)).astype(np.float32)


def test_likeness_is_the_score_of_pairs_that_are_compared(problem: listing.Problem) -> None:
    found = listing.likeness(problem, *problem.pair.T)
    np.testing.assert_allclose(found, evidence.base_score(problem.facts), atol=1e-5)
    np.testing.assert_allclose(listing.likeness(problem, np.arange(18), np.arange(18)), 1.0, atol=1e-5)


def test_a_copy_goes_together_with_its_like_and_a_stranger_does_not(problem: listing.Problem) -> None:
    partner = np.array([8, 8 + COPY, 9, 8 + STRANGER])
    record, strength = np.array([0, 0, 1, 1]), np.array([3.0, 2.0, 3.0, 2.0])
    found = competition.go_together(problem, record, record, partner, strength)
    assert found.tolist() == [True, True, True, False]
    assert competition.go_together(problem, record[:0], record[:0], partner[:0], strength[:0]).shape == (0,)


def test_where_repeats_are_rare_only_a_copy_is_stated_as_a_further_partner(problem: listing.Problem) -> None:
    said, rare = logits(problem), competition.Config(several=0.5)
    several = competition.multiplicity(problem, competition.null_softmax(said))
    alike = competition.multiplicity(problem, competition.null_softmax(said), alike=True)
    np.testing.assert_allclose(sorted(several), [0.0, 2 / 8])
    np.testing.assert_allclose(sorted(alike), [0.0, 1 / 8])
    learned, stated = (
        competition.posteriors(problem, said, np.zeros(2), several, rare, stating=stating) for stating in (False, True)
    )
    one_each = {(k, 8 + k) for k in range(8)}
    assert {tuple(pair) for pair in problem.pair[learned > 0.5].tolist()} == one_each
    assert {tuple(pair) for pair in problem.pair[stated > 0.5].tolist()} == one_each | {(0, 8 + COPY)}


def test_where_partners_are_many_a_table_tells_which_of_them_are_one_thing(problem: listing.Problem) -> None:
    """Record 0 is as sure of its copy's partner as of a sibling's, which the right table says is another thing."""
    sure = {(0, 8): 0.95, (0, 8 + COPY): 0.9, (0, 9): 0.9, (1, 9): 0.95}
    posterior = np.array([sure.get(tuple(pair), 0.01) for pair in problem.pair.tolist()])
    said = competition.Within(np.array([[8, 9], [8, 8 + COPY], [9, 8 + COPY]]), np.array([0.02, 0.95, 0.02]))
    found = competition.in_groups(problem, posterior, said)
    stated = {tuple(pair) for pair in problem.pair[found > 0.5].tolist()}
    assert stated == {(0, 8), (0, 8 + COPY), (1, 9)}
    alone = problem.pair.tolist().index([0, 9])
    assert abs(found[alone] - posterior[alone] / 2) < 0.05  # a mean of what it is by itself and of nothing
