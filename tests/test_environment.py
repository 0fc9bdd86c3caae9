"""Walks by hand, one for each action; what ends a walk and what cuts it; what padding never changes."""

from __future__ import annotations

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import environment
from aco_jax.ops import states
from aco_jax.types import UNKNOWN

BINS = states.Config(relations=2, posterior=4, reading=3, reverse=2, reward=1)
CONFIG = environment.Config(BINS, max_steps=6, discount=0.9, step_cost=0.01, token_cost=0.001, rewrite_cost=0.1)
SAME, OTHER, NONE, READ, REWRITE, STOP = range(6)
EDGES = states.first_edges(BINS)
step = jax.jit(partial(environment.step, CONFIG))
observe = jax.jit(partial(environment.observe, CONFIG, EDGES))


def problem(padding: int = 0) -> environment.Problem:
    """Places 0, 1 in row 0 and 2 in row 1, by order 1, 0, 2; then places that hold nothing."""
    posterior = np.array([[0.3, 0.1], [0.2, 0.9], [0.6, 0.1]])

    def padded(values: object, fill: float = 0.0) -> jax.Array:
        values = np.asarray(values)
        widths = [(0, padding)] + [(0, 0)] * (values.ndim - 1)
        return jnp.asarray(np.pad(values, widths, constant_values=values.dtype.type(fill)))

    return environment.Problem(
        anchor=jnp.int32(7),
        query=jnp.int32(70),
        record=padded(np.array([100, 101, 102], np.int32), 99),
        row=padded(np.array([0, 0, 1], np.int32), 1),
        valid=padded(np.array([True, True, True]), False),
        order=padded(np.array([0.5, 2.0, 9.0], np.float32), 99),
        posterior=padded(posterior.astype(np.float32), 0.99),
        posterior_read=padded((posterior / 2).astype(np.float32), 0.99),
        reverse=padded(np.array([1.0, -1.0, 0.5], np.float32), 9),
        validity=padded(np.ones(3, np.float32)),
        reading=padded(np.array([-2.0, 2.0, 0.0], np.float32), 9),
        ready=padded(np.ones(3, bool)),
        pending=jnp.array(False),
        tokens=padded(np.array([10, 20, 30], np.int32), 999),
        reward=padded(np.array([[-1.0, -2.0], [0.5, 3.0], [1.5, -1.5]], np.float32), 99),
        spread=padded(np.zeros(3, np.float32)),
        shares=jnp.array([0.5, 0.1], jnp.float32),
    )


def scripted(script: jax.Array) -> environment.Policy:
    """The action that stands in the script for a walk's step, by the key's own number."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(0), CONFIG.max_steps)
        now = jnp.argmax(jnp.all(jax.random.key_data(keys) == jax.random.key_data(key)[None], axis=1))
        return jnp.full(state.shape, script[now]), jnp.full(state.shape, 0.5)

    return policy


def batched(one: environment.Problem) -> environment.Problem:
    return jax.tree.map(lambda x: x[None], one)


@jax.jit
def walked(one: environment.Problem, script: jax.Array) -> environment.Episode:
    return environment.play(CONFIG, EDGES, batched(one), scripted(script), jax.random.key(0))


def play(script: list[int], one: environment.Problem | None = None) -> environment.Episode:
    script = script + [STOP] * (CONFIG.max_steps - len(script))
    return walked(problem() if one is None else one, jnp.asarray(script, jnp.int32))


def test_the_first_candidate_is_the_best_visible_one() -> None:
    one = problem()
    state = environment.reset(one)
    place, present = environment.current(one, state)
    # Place 2 has the best order of all, but stands in a hidden row.
    assert (int(place), bool(present)) == (1, True)
    seen = observe(one, state)
    raw = dict(zip(states.RAW, np.asarray(seen.raw), strict=True))
    assert raw["relation"] == 1
    assert raw["revealed"] == raw["reading"] == raw["taken"] == 0
    assert raw["rewrites"] == 1
    assert raw["reward"] == 3.0
    np.testing.assert_allclose(raw["posterior"], np.log(0.9 / 0.1), rtol=1e-5)
    np.testing.assert_allclose(raw["null_mass"], 0.7 * 0.1, rtol=1e-5)
    np.testing.assert_allclose(raw["several"], 0.1)


def test_stating_a_relation_pays_its_reward_and_moves_on() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), OTHER)
    np.testing.assert_allclose([reward, discount], [3.0 - 0.01, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [UNKNOWN, 2, UNKNOWN])
    assert int(environment.current(one, state)[0]) == 0
    assert observe(one, state).raw[states.RAW.index("taken")] == 1
    state, reward, _ = step(one, state, SAME)
    np.testing.assert_allclose(reward, -1.0 - 0.01, rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [1, 2, UNKNOWN])


def test_none_pays_only_the_step() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), NONE)
    np.testing.assert_allclose([reward, discount], [-0.01, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(state.decision, [UNKNOWN, 0, UNKNOWN])
    assert observe(one, state).raw[states.RAW.index("taken")] == 0


def test_read_reveals_stays_and_is_charged_once() -> None:
    one = problem()
    start = environment.reset(one)
    state, reward, discount = step(one, start, READ)
    np.testing.assert_allclose([reward, discount], [-0.01 - 0.001 * 20, 0.9], rtol=1e-6)
    assert int(environment.current(one, state)[0]) == 1
    assert int(state.tokens) == 20
    before, after = observe(one, start), observe(one, state)
    raw = dict(zip(states.RAW, np.asarray(after.raw), strict=True))
    assert (raw["revealed"], raw["reading"]) == (1.0, 2.0)
    np.testing.assert_allclose(raw["posterior"], np.log(0.45 / 0.55), rtol=1e-5)
    assert int(before.state) != int(after.state)
    assert bool(states.valid_actions(BINS, before.state)[READ])
    assert not bool(states.valid_actions(BINS, after.state)[READ])
    again, reward, _ = step(one, state, READ)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    assert int(again.tokens) == 20


def test_rewrite_shows_the_next_row_and_is_charged() -> None:
    one = problem()
    state, reward, _ = step(one, environment.reset(one), REWRITE)
    np.testing.assert_allclose(reward, -0.01 - 0.1, rtol=1e-6)
    assert int(environment.current(one, state)[0]) == 2
    assert not bool(states.valid_actions(BINS, observe(one, state).state)[REWRITE])
    again, reward, _ = step(one, state, REWRITE)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    assert int(again.shown) == 1


def test_with_nothing_at_hand_only_rewrite_and_stop_are_left() -> None:
    one = problem()
    state = environment.reset(one)
    for action in (NONE, OTHER):
        state, _, _ = step(one, state, action)
    assert not bool(state.ended)
    seen = observe(one, state)
    assert seen.factors[0] == states.EXHAUSTED
    np.testing.assert_array_equal(np.flatnonzero(states.valid_actions(BINS, seen.state)), [REWRITE, STOP])
    same, reward, _ = step(one, state, SAME)
    np.testing.assert_array_equal(same.decision, state.decision)
    np.testing.assert_allclose(reward, -0.01, rtol=1e-6)
    shown, _, _ = step(one, state, REWRITE)
    ended, _, discount = step(one, shown, SAME)
    assert bool(ended.ended)
    assert float(discount) == 0.0
    assert int(observe(one, ended).state) == BINS.terminal


def test_stop_ends_free_of_charge() -> None:
    one = problem()
    state, reward, discount = step(one, environment.reset(one), STOP)
    assert (float(reward), float(discount), bool(state.ended)) == (0.0, 0.0, True)
    np.testing.assert_array_equal(state.decision, [UNKNOWN] * 3)


def test_a_walk_records_what_happened() -> None:
    walk = play([READ, OTHER, REWRITE, SAME, STOP])
    steps = jax.tree.map(lambda x: np.asarray(x[0]), walk.transition)
    np.testing.assert_array_equal(walk.mask[0], [True] * 5 + [False])
    np.testing.assert_array_equal(steps.a_tm1[:5], [READ, OTHER, REWRITE, SAME, STOP])
    np.testing.assert_array_equal(steps.record, [101, 101, -1, 102, -1, -1])
    rewards = [-0.03, 2.99, -0.11, 1.49, 0.0, 0.0]
    np.testing.assert_allclose(steps.r_t, rewards, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(steps.discount_t, [0.9, 0.9, 0.9, 0.9, 0.0, 0.0])
    np.testing.assert_array_equal(steps.s_tm1[1:5], steps.s_t[:4])
    assert steps.s_t[4] == BINS.terminal
    np.testing.assert_array_equal(steps.anchor, [7] * 6)
    np.testing.assert_array_equal(steps.query, [70] * 6)
    np.testing.assert_array_equal(walk.final.decision[0], [UNKNOWN, 2, 1])
    assert (int(walk.final.tokens[0]), int(walk.final.steps[0])) == (20, 5)
    expected = sum(reward * 0.9**t for t, reward in enumerate(rewards))
    np.testing.assert_allclose(environment.returns(walk), [expected], rtol=1e-5)
    codes = jax.vmap(partial(states.number, BINS, EDGES))
    np.testing.assert_array_equal(codes(walk.raw_tm1[0]), steps.s_tm1)
    np.testing.assert_array_equal(codes(walk.raw_t[0]), steps.s_t)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    cut = play([READ, NONE, READ, NONE, REWRITE, READ])
    np.testing.assert_allclose(cut.transition.discount_t[0], np.full(6, 0.9))
    assert not bool(cut.final.ended[0])
    assert int(cut.transition.s_t[0, 5]) != BINS.terminal
    assert bool(environment.over(CONFIG, jax.tree.map(lambda x: x[0], cut.final)))
    # As long a walk, but nothing is left after it: ended, not truncated.
    ended = play([READ, NONE, READ, NONE, REWRITE, NONE])
    np.testing.assert_allclose(ended.transition.discount_t[0], [0.9] * 5 + [0.0])
    assert bool(ended.final.ended[0])
    assert int(ended.transition.s_t[0, 5]) == BINS.terminal


def test_an_anchor_without_candidates_takes_no_step() -> None:
    empty = dataclasses.replace(problem(), valid=jnp.zeros(3, bool))
    walk = play([SAME], empty)
    assert not np.any(walk.mask)
    np.testing.assert_array_equal(environment.returns(walk), [0.0])
    rewarded = environment.add_terminal_reward(walk, jnp.array([5.0]))
    chex.assert_trees_all_equal(rewarded, walk)
    chex.assert_tree_all_finite((walk.raw_tm1, walk.transition.r_t))


def test_the_last_step_gets_the_share() -> None:
    walk = play([NONE, SAME, STOP])
    after = environment.add_terminal_reward(walk, jnp.array([2.0]))
    np.testing.assert_allclose(after.transition.r_t - walk.transition.r_t, [[0.0, 0.0, 2.0, 0.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(environment.returns(after) - environment.returns(walk), [2.0 * 0.9**2], rtol=1e-5)


def test_places_that_hold_nothing_change_nothing() -> None:
    script = [READ, OTHER, REWRITE, SAME, NONE]
    plain, padded = play(script), play(script, problem(padding=4))
    chex.assert_trees_all_equal(plain.transition, padded.transition)
    chex.assert_trees_all_equal((plain.raw_tm1, plain.mask), (padded.raw_tm1, padded.mask))
    np.testing.assert_array_equal(plain.final.decision, padded.final.decision[:, :3])
    assert np.all(np.asarray(padded.final.decision[:, 3:]) == UNKNOWN)


def test_a_hidden_reading_never_shows() -> None:
    one = problem()
    other = dataclasses.replace(
        one, reading=one.reading + 5.0, posterior_read=1.0 - one.posterior_read, tokens=one.tokens * 3
    )
    chex.assert_trees_all_equal(play([OTHER, REWRITE, SAME], one), play([OTHER, REWRITE, SAME], other))


def test_a_reading_that_is_not_there_is_waited_for() -> None:
    waiting = dataclasses.replace(problem(), ready=jnp.array([False, True, True]))
    first = play([NONE, READ, READ, READ, READ, READ], waiting)
    np.testing.assert_array_equal(first.mask[0], [True] + [False] * 5)
    stopped = jax.tree.map(lambda x: x[0], first.final)
    place, present = environment.current(waiting, stopped)
    assert (int(place), bool(present)) == (0, True)
    assert int(stopped.tokens) == 0
    script = scripted(jnp.array([READ, SAME, STOP, STOP, STOP, STOP]))
    then = environment.play(CONFIG, EDGES, batched(problem()), script, jax.random.key(0), first.final)
    whole = play([NONE, READ, SAME, STOP])
    chex.assert_trees_all_equal(then.final, whole.final)
    np.testing.assert_array_equal(then.transition.s_tm1[0, :3], whole.transition.s_tm1[0, 1:4])


def test_rows_that_are_not_made_yet_are_waited_for() -> None:
    """Pending rows are offered although they hold nothing yet; the walk then ends as if they had been there."""
    known = problem()
    hollow = dataclasses.replace(known, valid=known.valid & (known.row == 0), pending=jnp.array(True))
    first = play([NONE, NONE, REWRITE, REWRITE, REWRITE, REWRITE], hollow)
    np.testing.assert_array_equal(first.mask[0], [True, True] + [False] * 4)
    assert not bool(first.final.ended[0])
    script = scripted(jnp.array([REWRITE, SAME, STOP, STOP, STOP, STOP]))
    then = environment.play(CONFIG, EDGES, batched(known), script, jax.random.key(0), first.final)
    chex.assert_trees_all_equal(then.final, play([NONE, NONE, REWRITE, SAME], known).final)
    nothing = dataclasses.replace(hollow, valid=jnp.zeros(3, bool))
    assert not bool(environment.reset(nothing).ended)


def test_a_shift_of_null_lowers_all_odds() -> None:
    one = problem()
    shifted = environment.shift_null(one, jnp.float32(0.7))
    odds = shifted.posterior / (1 - shifted.posterior)
    expected = one.posterior / (1 - one.posterior) * np.exp(-0.7)
    np.testing.assert_allclose(odds, expected, rtol=1e-4)
    chex.assert_trees_all_close(environment.shift_null(shifted, jnp.float32(-0.7)), one, rtol=1e-4)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="max_steps of at least 1"):
        environment.Config(BINS, max_steps=0)
