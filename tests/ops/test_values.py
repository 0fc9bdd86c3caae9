from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.ops import values

Q_TM1 = np.array([1.0, 2.0, 3.0], np.float32)
Q_VALUE = np.array([10.0, 20.0, 30.0], np.float32)
Q_SELECTOR = np.array([5.0, 9.0, 7.0], np.float32)


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        ([True, True, True], 0.5 + 0.9 * 20.0 - 2.0),  # the selector likes 1, worth 20 to the target
        ([True, False, True], 0.5 + 0.9 * 30.0 - 2.0),  # 1 is barred, then 2
        ([False, False, False], 0.5 - 2.0),  # nothing can be done there
    ],
)
def test_td_error_by_hand(variant, valid, expected):
    error = variant(
        values.td_error,
        Q_TM1,
        np.int32(1),
        np.float32(0.5),
        np.float32(0.9),
        Q_VALUE,
        Q_SELECTOR,
        np.array(valid),
    )
    assert error == pytest.approx(expected, rel=1e-6)


def test_td_error_agrees_with_rlax(rlax):
    rng = np.random.default_rng(1)
    for _ in range(5):
        q_tm1, q_value, q_selector = rng.normal(size=(3, 6)).astype(np.float32)
        action, reward, discount = rng.integers(6), np.float32(rng.normal()), np.float32(rng.uniform())
        ours = values.td_error(q_tm1, action, reward, discount, q_value, q_selector, jnp.ones(6, bool))
        theirs = float(rlax.double_q_learning(q_tm1, action, reward, discount, q_value, q_selector))
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_td_error_moves_the_prediction_only():
    def error(q_tm1, q_value, q_selector):
        return values.td_error(q_tm1, 1, 0.5, 0.9, q_value, q_selector, jnp.ones(3, bool))

    by_q, by_value, by_selector = jax.grad(error, argnums=(0, 1, 2))(Q_TM1, Q_VALUE, Q_SELECTOR)
    np.testing.assert_array_equal(by_q, [0.0, -1.0, 0.0])
    np.testing.assert_array_equal(by_value, np.zeros(3))
    np.testing.assert_array_equal(by_selector, np.zeros(3))


def test_termination_does_not_bootstrap():
    error = values.td_error(Q_TM1, 0, 2.0, 0.0, Q_VALUE, Q_SELECTOR, jnp.ones(3, bool))
    assert error == pytest.approx(2.0 - 1.0)


def test_invalid_q_changes_nothing():
    valid = np.array([True, True, False])
    args = (Q_TM1, 0, 0.5, 0.9)
    clean = values.td_error(*args, Q_VALUE, Q_SELECTOR, valid)
    for rubbish in (np.nan, np.inf, 1e38):
        spoiled = np.where(valid, Q_SELECTOR, rubbish).astype(np.float32)
        assert values.td_error(*args, np.where(valid, Q_VALUE, rubbish), spoiled, valid) == clean


def test_expected_target(variant):
    p, v = np.array([0.25, 0.75, 0.0], np.float32), np.array([4.0, 8.0, 100.0], np.float32)
    target = variant(values.expected_target, np.float32(1.0), np.float32(0.5), p, v)
    assert target == pytest.approx(1.0 + 0.5 * 7.0)
    assert not np.any(jax.grad(values.expected_target, argnums=3)(1.0, 0.5, p, v))


def test_shared_value_target(variant):
    v = np.array([3.0, -1.0, 9.0], np.float32)
    reward, discount = np.float32(0.5), np.float32(0.5)
    seen = np.array([True, True, False])
    assert variant(values.shared_value_target, reward, discount, v, seen) == pytest.approx(2.0)
    assert variant(values.shared_value_target, reward, discount, v, np.zeros(3, bool)) == pytest.approx(0.5)
    assert not np.any(jax.grad(values.shared_value_target, argnums=2)(reward, discount, v, seen))


def test_masked_maxima(variant):
    x = np.array([5.0, 1.0, 3.0, 3.0], np.float32)
    valid = np.array([False, True, True, True])
    assert variant(values.masked_max, x, valid) == 3.0
    assert variant(values.masked_argmax, x, valid) == 2  # the first of equals
    assert variant(values.masked_max, x, np.zeros(4, bool)) == 0.0
    assert variant(values.masked_max, -x, valid) == -1.0  # 0 is no floor


def test_soft_value_is_the_mean_q(variant):
    policy = np.array([0.1, 0.6, 0.3], np.float32)
    assert variant(values.soft_value, policy, Q_TM1) == pytest.approx(0.1 + 1.2 + 0.9)


def n_step_oracle(rewards, discounts, v, steps):
    length = len(rewards)
    returns = np.zeros(length)
    for t in range(length):
        end = min(t + steps, length)
        total = v[end - 1]
        for i in reversed(range(t, end)):
            total = rewards[i] + discounts[i] * total
        returns[t] = total
    return returns


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_n_step_return(variant, steps, rlax):
    rng = np.random.default_rng(steps)
    rewards, v = rng.normal(size=(2, 5)).astype(np.float32)
    discounts = np.array([0.9, 0.5, 0.0, 0.8, 0.7], np.float32)  # an episode ends at the third step
    ours = variant(functools.partial(values.n_step_return, steps=steps), rewards, discounts, v, np.ones(5, bool))
    np.testing.assert_allclose(ours, n_step_oracle(rewards, discounts, v, steps), rtol=1e-5)
    if steps <= 5:
        theirs = rlax.n_step_bootstrapped_returns(rewards, discounts, v, steps)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_padding_changes_no_n_step_return():
    rng = np.random.default_rng(7)
    rewards, v, discounts = rng.uniform(size=(3, 4)).astype(np.float32)
    short = values.n_step_return(rewards, discounts, v, jnp.ones(4, bool), 3)
    padded = [np.append(x, [np.nan, 5.0]).astype(np.float32) for x in (rewards, discounts, v)]
    long = values.n_step_return(*padded, np.array([True] * 4 + [False] * 2), 3)
    np.testing.assert_allclose(long[:4], short, rtol=1e-6)
    np.testing.assert_array_equal(long[4:], 0.0)


def bootstrapped(v, *given):
    reward, discount = values.corrected_n_step(*given)
    return reward + discount * v


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_corrected_n_steps_are_retrace(variant, steps, rlax):
    """As one transition from the first action; a step behind the mask says nothing."""
    rng = np.random.default_rng(steps)
    r, v, q = rng.normal(size=(3, 5)).astype(np.float32)
    c, discounts = rng.random((2, 5)).astype(np.float32)
    mask = np.arange(5) < steps
    hidden = [np.where(mask, x, np.float32(99)) for x in (r, discounts, v, q, c)]
    ours = variant(bootstrapped, v[steps - 1], *hidden, mask)
    held = slice(0, steps)
    theirs = rlax.general_off_policy_returns_from_q_and_v(
        q[1:steps], v[held], r[held], discounts[held], c[1:steps], stop_target_gradients=True
    )
    np.testing.assert_allclose(ours, theirs[0], rtol=1e-5)


def test_where_nothing_is_corrected_they_are_the_plain_n_step_return(rlax):
    """Greedy steps of certain behaviour: Q of what was done is V, and every ratio is 1."""
    rng = np.random.default_rng(3)
    r, v = rng.normal(size=(2, 4)).astype(np.float32)
    discounts = np.array([0.9, 0.5, 0.8, 0.7], np.float32)
    q = np.append(np.float32(0), v[:-1])
    ours = bootstrapped(v[-1], r, discounts, v, q, np.ones(4, np.float32), np.ones(4, bool))
    np.testing.assert_allclose(ours, rlax.n_step_bootstrapped_returns(r, discounts, v, 4)[0], rtol=1e-5)
    np.testing.assert_allclose(ours, values.n_step_return(r, discounts, v, np.ones(4, bool), 4)[0], rtol=1e-5)


def test_corrected_n_steps_pass_no_gradient():
    slope = jax.grad(lambda v: bootstrapped(0.0, jnp.ones(3), jnp.ones(3), v, v, jnp.ones(3), jnp.ones(3, bool)))
    np.testing.assert_array_equal(slope(jnp.arange(3.0)), np.zeros(3))


def test_polyak_agrees_with_optax():
    target = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array(3.0)}}
    online = {"a": jnp.array([5.0, -2.0]), "b": {"c": jnp.array(4.0)}}
    ours = values.polyak(target, online, 0.25)
    theirs = optax.incremental_update(online, target, 0.25)
    jax.tree.map(np.testing.assert_allclose, ours, theirs)
    np.testing.assert_allclose(ours["a"], [2.0, 1.0])
    with pytest.raises(AssertionError):
        values.polyak(target, {"a": jnp.zeros(3), "b": {"c": jnp.array(4.0)}}, 0.25)


@pytest.mark.parametrize("step", [0, 1, 4, 5, 8])
def test_periodic_agrees_with_optax(variant, step):
    target, online = {"a": np.array([1.0, 2.0], np.float32)}, {"a": np.array([5.0, -2.0], np.float32)}
    ours = variant(functools.partial(values.periodic, every=4), target, online, np.int32(step))
    theirs = optax.periodic_update(online, target, jnp.int32(step), 4)
    np.testing.assert_array_equal(ours["a"], theirs["a"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.booleans()), min_size=4, max_size=4))
def test_the_greedy_action_is_valid_and_best(entries):
    x = np.array([entry[0] for entry in entries], np.float32)
    valid = np.array([entry[1] for entry in entries])
    if valid.any():
        assert valid[values.masked_argmax(x, valid)]
        assert values.masked_max(x, valid) == x[valid].max()
