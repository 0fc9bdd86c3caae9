"""What a local step keeps between rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import learner, learner_state, settings, train, transitions
from aco_jax.data import records
from aco_jax.ops import masking
from aco_jax.settings import TrainConfig


def test_the_kl_of_the_last_round_over_visited_states_sets_the_penalty(
    tiny: TrainConfig, shops: Path, tmp_path: Path
) -> None:
    """At the first step of a round alone, and not before a state was counted."""
    dataset = records.read_folder(shops, relations=records.SAME)
    desk = train.open_desk(tiny, dataset, tmp_path)
    config = dataclasses.replace(settings.learner_config(tiny, dataset, desk.tokenizer), merge_every=4)
    state = jax.jit(learner_state.init, static_argnums=1)(jax.random.key(0), config)
    bins = config.environment.bins
    valid = np.asarray(learner_state.all_valid(config))
    rng = np.random.default_rng(0)
    old, new = (np.asarray(jax.vmap(masking.masked_log_softmax)(rng.normal(size=valid.shape), valid)) for _ in range(2))
    visited = np.array([3, 5, 9])
    counts = transitions.observe(
        transitions.init(bins.state_count, bins.action_count),
        jnp.asarray(visited),
        jnp.argmax(valid[visited], axis=1),
        jnp.asarray(visited),
        jnp.ones(3, bool),
    )
    averaged = dataclasses.replace(state.averaged, old_policy=jnp.asarray(old), kl_weight=jnp.float32(3.0))
    state = dataclasses.replace(state, averaged=averaged)
    seen = dataclasses.replace(state, counts=counts)
    p = np.where(valid, np.exp(np.float64(old)), 0)[visited]
    kl = np.sum(p * np.where(p > 0, np.float64(old - new)[visited], 0), axis=1).mean()
    for start, number, known in ((seen, 8, True), (seen, 9, False), (state, 8, False)):
        start = dataclasses.replace(start, step=jnp.int32(number))
        after = learner._begin_round(start, jnp.asarray(new), config).averaged
        weight = float(np.clip(3.0 * np.clip(np.sqrt(kl / config.kl_target), 0.5, 4.0), 1e-2, 1e4)) if known else 3.0
        assert float(after.kl_weight) == pytest.approx(weight, rel=1e-5)
        assert float(after.kl) == pytest.approx(kl if known else 0.0, rel=1e-5)
        np.testing.assert_array_equal(after.old_policy, new if number == 8 else old)


def test_gradients_of_several_steps_move_an_agent_once_by_their_mean(
    tiny: TrainConfig, shops: Path, tmp_path: Path
) -> None:
    dataset = records.read_folder(shops, relations=records.SAME)
    tokenizer = train.open_desk(tiny, dataset, tmp_path).tokenizer
    more = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, accumulate=3))
    one, several = (learner_state.adam(settings.learner_config(each, dataset, tokenizer)) for each in (tiny, more))
    start = jnp.asarray([1.0, -2.0])
    gradients = jnp.asarray([[0.1, 0.2], [0.3, -0.2], [0.2, 0.6]])
    expected, _ = one.update(jnp.mean(gradients, axis=0), one.init(start), rate=0.5)
    state, moves = several.init(start), []
    for gradient in gradients:
        move, state = several.update(gradient, state, rate=0.5)
        moves.append(np.asarray(move))
    np.testing.assert_array_equal(moves[:2], np.zeros((2, 2)))
    np.testing.assert_allclose(moves[2], expected, rtol=1e-6)
