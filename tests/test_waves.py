"""Which lists are walked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import configuration, learner_state, replicas, settings, train, waves
from aco_jax import desk as desks
from aco_jax.data import records
from aco_jax.ops import states
from aco_jax.settings import TrainConfig

Begun = tuple[desks.Desk, learner_state.Config, train.Run]


def test_lists_that_the_evidence_settles_are_left_out() -> None:
    posterior = np.array([0.99, 0.5, 0.01, 0.04, 0.94])
    place = np.array([[0, 1], [2, 1], [2, -1], [3, 2], [4, 2], [-1, -1]])
    # sure of a partner; open; sure of none; sure of none; open; nothing found
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=6), [1, 4])


def test_of_too_many_the_most_open_are_walked_in_their_order() -> None:
    posterior, place = np.array([0.9, 0.6, 0.3, 0.45, 0.99]), np.arange(5)[:, None]
    np.testing.assert_array_equal(waves.unsettled(place, posterior, most=2), [1, 3])


@pytest.fixture(name="begun")
def fixture_begun(tiny: TrainConfig, shops: Path, tmp_path: Path) -> Begun:
    """A run that has not learned anything yet."""
    desk = train.open_desk(tiny, records.read_folder(shops, relations=records.SAME), tmp_path)
    agents = settings.learner_config(tiny, desk.dataset, desk.tokenizer)
    return desk, agents, train.start(tiny, agents, desk)


def test_where_the_evidence_settles_every_list_nothing_is_walked(tiny: TrainConfig, begun: Begun) -> None:
    desk, agents, run = begun
    sure = dataclasses.replace(run.believed, posterior=np.ones_like(run.believed.posterior))
    choice = np.zeros(agents.environment.bins.state_count, np.int32)
    walked = waves.walk(tiny, agents, desk, dataclasses.replace(run, believed=sure), choice)
    assert walked.record.shape == walked.decision.shape == (0, walked.revealed.shape[1])
    assert walked.tokens == 0


def test_an_actor_that_learned_to_state_nothing_does_not_walk(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of planted copies show it; of an actor that decides as the fixed policy nothing is held."""
    desk = train.open_desk(tiny, configuration.load(tiny.data, tmp_path, tiny.seed), tmp_path)
    agents = settings.learner_config(tiny, desk.dataset, desk.tokenizer)
    mesh = replicas.make_mesh(tiny.train.replicas)
    run, _ = train.believe(tiny, agents, desk, mesh, train.start(tiny, agents, desk), rounds=1)
    fixed = jnp.asarray(states.fixed_policy(agents.environment.bins))
    silent = jnp.zeros_like(fixed).at[:, -1].set(1.0)
    for table, trusted in ((fixed, True), (silent, False)):
        monkeypatch.setattr(learner_state, "policy_table", lambda params, config, table=table: table)
        found = waves.trial(tiny, agents, desk, run)
        assert found.trusted == trusted
        np.testing.assert_array_equal(found.choice, fixed.argmax(axis=1))
    assert found.fixed > found.actor + 0.3


def test_what_is_kept_of_the_reward_model_is_what_it_says_of_the_candidates_there_are(
    tiny: TrainConfig, begun: Begun
) -> None:
    desk, agents, run = begun
    choice = np.zeros(agents.environment.bins.state_count, np.int32)
    lists = waves._Lists(tiny, agents, desk, run, np.arange(5), choice)

    def said() -> np.ndarray:
        parts = (train.parameters(run, agents), lists._scale, agents, jnp.asarray(desk.texts))
        return np.asarray(waves.rewards(*parts, lists._batch, jnp.asarray(lists._shift))[0])

    before, first = said(), lists._value.copy()
    np.testing.assert_allclose(first, before, rtol=1e-4, atol=1e-5)
    lists.rewrite(np.array([1, 3]))
    after = said()
    np.testing.assert_allclose(lists._value, after, rtol=1e-4, atol=1e-5)
    changed = np.abs(after - before).max(axis=(1, 2)) > 1e-3
    assert not changed[[0, 2, 4]].any()
    assert changed[[1, 3]].any()


def test_lists_that_are_given_are_walked_and_measured_by_themselves_once(
    tiny: TrainConfig, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads all of several candidates reads the searched record itself a single time."""
    desk, agents, run = begun
    measured: list[int] = []
    own = waves.inquiry.own_readings

    def counted(team: waves.inquiry.Staff, batch: waves.play.Batch, anchor: np.ndarray) -> np.ndarray:
        measured.extend(anchor)
        return own(team, batch, anchor)

    monkeypatch.setattr(waves.inquiry, "own_readings", counted)
    bins, rows = agents.environment.bins, np.array([1, 3, 8], np.int32)
    candidates = tiny.train.candidates  # the query's; nothing is rewritten
    everything = states.fixed_policy(bins, reach=bins.posterior // 2, stops=False).argmax(axis=1).astype(np.int32)
    walked = waves.walk(tiny, agents, desk, run, everything, rows)
    np.testing.assert_array_equal(walked.lists, rows)
    np.testing.assert_array_equal(walked.revealed[:, :candidates], walked.record[:, :candidates] >= 0)
    assert sorted(measured) == [0, 1, 2]


def test_what_was_read_stays_read_when_subqueries_come(tiny: TrainConfig, begun: Begun) -> None:
    desk, agents, run = begun
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, temperature=0.0))
    rows, choice = np.arange(4), np.zeros(agents.environment.bins.state_count, np.int32)
    lists = waves._Lists(config, agents, desk, run, rows, choice)
    lists.read(rows, np.zeros(4, np.int64))
    before = lists._batch.candidates.reading.copy()
    assert before[:, 0, 0].all()
    lists.rewrite(np.array([1, 3]))
    after = lists._batch.candidates
    np.testing.assert_array_equal(after.reading, before)
    assert (after.record[[1, 3], 1:] >= 0).any()
    assert not (after.record[[0, 2], 1:] >= 0).any()
