"""Behaviour probabilities by hand, the first epsilon, annealing, and draws that match their probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aco_jax import exploration, transitions

POLICY = jnp.array([0.5, 0.2, 0.3, 0.0])
VALID = jnp.array([True, False, True, True])


def test_behaviour_mixes_uniform_and_policy_over_valid_actions() -> None:
    mu = exploration.behaviour(POLICY, VALID, 0.3)
    expected = [0.1 + 0.7 * 0.5 / 0.8, 0.0, 0.1 + 0.7 * 0.3 / 0.8, 0.1]
    np.testing.assert_allclose(mu, expected, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(mu), 1.0, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_a_policy_all_on_invalid_actions_becomes_uniform(epsilon: float) -> None:
    mu = exploration.behaviour(jnp.array([0.0, 1.0, 0.0, 0.0]), VALID, epsilon)
    np.testing.assert_allclose(mu, [1 / 3, 0.0, 1 / 3, 1 / 3], rtol=1e-6)


def test_greedy_policy_and_greedy_action_are_valid() -> None:
    q = jnp.array([1.0, 9.0, 2.0, 2.0])
    np.testing.assert_array_equal(exploration.greedy_policy(q, VALID), [0.0, 0.0, 1.0, 0.0])
    action, mu = exploration.greedy(jnp.array([0.1, 0.8, 0.0, 0.1]), VALID)
    assert (int(action), float(mu)) == (0, 1.0)


def test_draws_follow_mu_and_report_it() -> None:
    mu = exploration.behaviour(POLICY, VALID, 0.3)
    keys = jax.random.split(jax.random.key(0), 10_000)
    actions, reported = jax.jit(jax.vmap(exploration.sample, (0, None)))(keys, mu)
    np.testing.assert_array_equal(reported, mu[actions])
    observed = np.bincount(np.asarray(actions), minlength=4)
    assert observed[1] == 0
    expected = np.asarray(mu, np.float64)[[0, 2, 3]]
    assert stats.chisquare(observed[[0, 2, 3]], expected / expected.sum() * len(keys)).pvalue > 1e-3


def test_first_epsilon_is_1_before_and_falls_with_what_is_known() -> None:
    valid = jnp.ones((5, 2), bool).at[4].set(False)
    state = transitions.init(5, 2)

    def epsilon(state: transitions.State) -> float:
        reachable = transitions.reachable(state, valid)
        return float(exploration.epsilon_from_entropy(transitions.row_entropy(state), reachable))

    assert epsilon(state) == 1.0
    ones = jnp.ones(1, bool)
    one = transitions.observe(state, jnp.array([0]), jnp.array([0]), jnp.array([1]), ones)
    p = (np.array([0, 1, 0, 0, 0]) + 0.2) / 2
    row = -(p * np.log(p)).sum() / np.log(5)
    # State 0 alone is reachable: one row seen once, one never.
    np.testing.assert_allclose(epsilon(one), (row + 1) / 2, rtol=1e-6)
    many = transitions.State(merged=one.increment * 1000, increment=one.increment)
    assert epsilon(many) < epsilon(one)


def test_annealing_is_linear_and_stops() -> None:
    steps = jnp.array([0, 5, 10, 50])
    np.testing.assert_allclose(exploration.anneal(0.8, 0.1, steps, 10), [0.8, 0.45, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(exploration.anneal(0.4, 1.0, steps, 10), [0.4, 0.7, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(exploration.anneal(0.8, 0.1, 1, 0), 0.1, rtol=1e-6)


def test_noise_of_the_continuous_action_has_its_scale() -> None:
    shift = exploration.noisy_shift(jax.random.key(1), jnp.full(4000, 0.5), 0.2)
    assert abs(float(jnp.std(shift)) - 0.2) < 0.01
    assert abs(float(jnp.mean(shift)) - 0.5) < 0.02
