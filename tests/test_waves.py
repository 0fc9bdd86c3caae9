"""Which lists are walked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from aco_jax import settings, train, waves
from aco_jax.data import records
from aco_jax.settings import TrainConfig


def test_lists_that_the_evidence_settles_are_left_out() -> None:
    posterior = np.array([0.99, 0.5, 0.01, 0.04, 0.94])
    place = np.array([[0, 1], [2, 1], [2, -1], [3, 2], [4, 2], [-1, -1]])
    # sure of a partner; open; sure of none; sure of none; open; nothing found
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=6), [1, 4])


def test_of_too_many_the_most_open_are_walked_in_their_order() -> None:
    posterior, place = np.array([0.9, 0.6, 0.3, 0.45, 0.99]), np.arange(5)[:, None]
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=2), [1, 3])


def test_where_the_evidence_settles_every_list_nothing_is_walked(
    tiny: TrainConfig, shops: Path, tmp_path: Path
) -> None:
    desk = train.open_desk(tiny, records.read_folder(shops, relations=records.SAME), tmp_path)
    agents = settings.learner_config(tiny, desk.dataset, desk.tokenizer)
    run = train.start(tiny, agents, desk)
    sure = dataclasses.replace(run.believed, posterior=np.ones_like(run.believed.posterior))
    choice = np.zeros(agents.environment.bins.state_count, np.int32)
    walked = waves.walk(tiny, agents, desk, dataclasses.replace(run, believed=sure), choice)
    assert walked.record.shape == walked.decision.shape == (0, walked.revealed.shape[1])
    assert walked.tokens == 0
