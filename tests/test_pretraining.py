"""The supervised start: who takes lessons, and how the actor begins."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import configuration, learner_state, pretraining, settings, train
from aco_jax import desk as desks
from aco_jax.agents import actor
from aco_jax.ops import states
from aco_jax.settings import TrainConfig


@dataclasses.dataclass(frozen=True)
class Parts:
    config: TrainConfig
    desk: desks.Desk
    agents: learner_state.Config
    state: learner_state.State


@pytest.fixture(scope="module")
def parts(tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """One replica that has learned nothing."""
    workdir = tmp_path_factory.mktemp("desk")
    dataset = configuration.load(tiny.data, workdir, tiny.seed)
    desk = train.open_desk(tiny, dataset, workdir)
    agents = settings.learner_config(tiny, dataset, desk.tokenizer)
    state = jax.tree.map(lambda x: x[0], train.start(tiny, agents, desk).state)
    return Parts(tiny, desk, agents, state)


def test_the_actor_begins_at_the_fixed_policy(parts: Parts) -> None:
    agents = parts.agents
    params = learner_state.trees(parts.state.averaged.params, agents)
    lessons = desks.reasons(parts.desk, parts.config, agents.actor)
    longer = jax.tree.map(lambda x: jnp.concatenate([x] * 3), lessons)
    taught, metrics = pretraining.imitate(params["actor"], agents, jax.random.key(0), longer)
    wanted = states.fixed_policy(agents.environment.bins)
    found = np.asarray(learner_state.policy_table(taught, agents))
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.98
    entropy = -np.sum(np.where(wanted > 0, wanted * np.log(np.maximum(wanted, 1e-9)), 0), axis=1).mean()
    assert entropy - 0.05 < float(metrics["imitation"]) < entropy + 0.3
    before = actor.explanation_loss(params["actor"], agents.actor, jax.tree.map(lambda x: x[-1], lessons))
    assert float(metrics["explanation"]) < 0.7 * float(before)


def test_the_lessons_move_the_language_models_and_nobody_else(parts: Parts) -> None:
    desk, config, agents = parts.desk, parts.config, parts.agents
    material = jax.tree.map(lambda x: x[0, 0], desks.lessons(desk, config, 1, 1, 4))
    step = jax.jit(partial(pretraining.pretrain_step, config=agents, rate=1e-2))
    after, _ = step(parts.state, material, desks.tables(desk))
    before = parts.state.averaged.params
    moved = {name for name, x in after.averaged.params.items() if not np.array_equal(x, before[name])}
    assert moved == set(pretraining.LANGUAGE)
    assert int(after.step) == 1
