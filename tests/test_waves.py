"""Which lists are walked."""

from __future__ import annotations

import numpy as np

from aco_jax import waves


def test_lists_that_the_evidence_settles_are_left_out() -> None:
    posterior = np.array([0.99, 0.5, 0.01, 0.04, 0.94])
    place = np.array([[0, 1], [2, 1], [2, -1], [3, 2], [4, 2], [-1, -1]])
    # sure of a partner; open; sure of none; sure of none; open; nothing found
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=6), [1, 4])


def test_of_too_many_the_most_open_are_walked_in_their_order() -> None:
    posterior, place = np.array([0.9, 0.6, 0.3, 0.45, 0.99]), np.arange(5)[:, None]
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=2), [1, 3])
