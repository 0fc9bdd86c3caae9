from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aco_jax.ops import policy_gradient
from aco_jax.ops.masking import masked_softmax

LOGITS = np.array([0.2, -1.0, 0.7, 0.1], np.float32)
ADVANTAGES = np.array([1.0, -2.0, 0.5, 9.0], np.float32)
VALID = np.array([True, True, True, False])
Q = np.array([1.0, 2.0, 3.0], np.float32)
POLICY = np.array([0.2, 0.5, 0.3], np.float32)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum()


# A decision process of two steps: in state 0 each action pays and leads by chance to state 1 or 2; there each
# action pays and ends.
FIRST_REWARD = np.array([0.3, -0.2, 0.5])
NEXT = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
SECOND_REWARD = np.array([[1.0, -1.0, 0.2], [0.0, 2.0, -0.7]])
DISCOUNT = 0.8
TABLE = np.random.default_rng(4).normal(size=(3, 3)).astype(np.float32)  # logits by state


def enumerated_return(table):
    """The expected return, by enumeration of every trajectory."""
    policy = jax.nn.softmax(table)
    total = 0.0
    for first, state, second in itertools.product(range(3), range(2), range(3)):
        p = policy[0, first] * NEXT[first, state] * policy[1 + state, second]
        total += p * (FIRST_REWARD[first] + DISCOUNT * SECOND_REWARD[state, second])
    return total


def true_q(table):
    policy = np.array([softmax(row) for row in table])
    later = (policy[1:] * SECOND_REWARD).sum(1)
    return np.vstack([FIRST_REWARD + DISCOUNT * NEXT @ later, SECOND_REWARD]), policy


def visits(policy):
    """Discounted probability of each state: the weight of its exact loss."""
    return np.append(1.0, DISCOUNT * policy[0] @ NEXT)


@pytest.fixture(scope="module")
def gradient_of_return():
    return jax.grad(enumerated_return)(jnp.asarray(TABLE))


def test_exact_policy_gradient_is_the_gradient_of_the_enumerated_return(gradient_of_return):
    q, policy = true_q(TABLE)

    def loss(table):
        advantages = jax.vmap(policy_gradient.advantage_q)(q.astype(np.float32), policy.astype(np.float32))
        each = jax.vmap(policy_gradient.exact_policy_loss)(
            table, advantages, jnp.ones((3, 3), bool), visits(policy).astype(np.float32)
        )
        return jnp.sum(each)

    np.testing.assert_allclose(-jax.grad(loss)(jnp.asarray(TABLE)), gradient_of_return, atol=1e-6)


@pytest.mark.parametrize("advantage", ["return", "td"])
def test_expected_reinforce_gradient_is_the_gradient_of_the_enumerated_return(gradient_of_return, advantage):
    """Every trajectory weighted by its probability; returns, or TD advantages under the true V."""
    q, policy = true_q(TABLE)
    v = (policy * q).sum(1).astype(np.float32)

    def loss(table):
        log_policy, total = jax.nn.log_softmax(table), 0.0
        for first, state, second in itertools.product(range(3), range(2), range(3)):
            p = policy[0, first] * NEXT[first, state] * policy[1 + state, second]
            rewards = jnp.array([FIRST_REWARD[first], SECOND_REWARD[state, second]])
            discounts = jnp.array([DISCOUNT, 0.0])
            if advantage == "return":
                gains = policy_gradient.discounted_return(rewards, discounts)
            else:
                gains = jax.vmap(policy_gradient.advantage_td)(
                    rewards,
                    discounts,
                    jnp.array([v[1 + state], 0.0]),
                    jnp.array([v[0], v[1 + state]]),
                )
            total += p * policy_gradient.reinforce_loss(log_policy[0, first], gains[0])
            total += p * DISCOUNT * policy_gradient.reinforce_loss(log_policy[1 + state, second], gains[1])
        return total

    np.testing.assert_allclose(-jax.grad(loss)(jnp.asarray(TABLE)), gradient_of_return, atol=1e-6)


def test_replayed_actions_with_ratios_give_the_same_gradient(gradient_of_return):
    """Actions of the first state drawn from another policy, each weighted by pi / mu."""
    q, policy = true_q(TABLE)
    mu = jnp.array([0.6, 0.3, 0.1])
    gains = policy_gradient.advantage_q(jnp.asarray(q[0], jnp.float32), jnp.asarray(policy[0], jnp.float32))

    def loss(logits):
        log_p = jax.nn.log_softmax(logits)
        ratios = jax.vmap(policy_gradient.truncated_ratio, in_axes=(0, 0, None))(log_p, mu, 1e3)
        return jnp.sum(mu * jax.vmap(policy_gradient.reinforce_loss)(log_p, ratios * gains))

    np.testing.assert_allclose(-jax.grad(loss)(jnp.asarray(TABLE[0])), gradient_of_return[0], atol=1e-6)


def test_reinforce_loss(variant):
    assert variant(policy_gradient.reinforce_loss, np.float32(-2.0), np.float32(3.0)) == 6.0
    by_log_prob, by_advantage = jax.grad(policy_gradient.reinforce_loss, argnums=(0, 1))(-2.0, 3.0)
    assert by_log_prob == -3.0
    assert by_advantage == 0.0


@pytest.mark.filterwarnings("ignore:Rlax softmax:PendingDeprecationWarning")
def test_reinforce_agrees_with_rlax(rlax):
    logits = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    actions = jnp.array([0, 2, 1, 1])

    def ours(x):
        log_p = jnp.take_along_axis(jax.nn.log_softmax(x), actions[:, None], axis=1)[:, 0]
        return jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(log_p, jnp.asarray(ADVANTAGES)))

    def theirs(x):
        return rlax.policy_gradient_loss(x, actions, jnp.asarray(ADVANTAGES), jnp.ones(4))

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), atol=1e-6)


def test_truncated_ratio(variant):
    log_pi = np.log(np.float32(0.6))
    assert variant(policy_gradient.truncated_ratio, log_pi, np.float32(0.3), np.float32(5.0)) == pytest.approx(2.0)
    assert variant(policy_gradient.truncated_ratio, log_pi, np.float32(0.1), np.float32(5.0)) == pytest.approx(5.0)
    assert variant(policy_gradient.truncated_ratio, log_pi, np.float32(0.0), np.float32(5.0)) == pytest.approx(5.0)
    assert jax.grad(policy_gradient.truncated_ratio)(log_pi, 0.3, 5.0) == 0.0


def test_exact_policy_loss(variant):
    expected = -0.5 * softmax(LOGITS[:3]) @ ADVANTAGES[:3]
    loss = variant(policy_gradient.exact_policy_loss, LOGITS, ADVANTAGES, VALID, np.float32(0.5))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_exact_policy_loss_gradient(finite_difference):
    by_logits, by_advantages, by_weight = jax.grad(policy_gradient.exact_policy_loss, argnums=(0, 1, 3))(
        LOGITS, ADVANTAGES, VALID, 0.5
    )
    expected = finite_difference(lambda x: -0.5 * softmax(x[:3]) @ ADVANTAGES[:3], LOGITS)
    np.testing.assert_allclose(by_logits, expected, atol=1e-6)
    np.testing.assert_array_equal(by_advantages, np.zeros(4))
    assert by_weight == 0.0


def test_exact_policy_loss_is_the_expectation_of_reinforce():
    policy = masked_softmax(LOGITS, VALID)
    gains = policy_gradient.advantage_q(jnp.asarray(ADVANTAGES), policy)

    def sampled(logits):
        log_p = jax.nn.log_softmax(logits[:3])
        return jnp.sum(policy[:3] * jax.vmap(policy_gradient.reinforce_loss)(log_p, gains[:3]))

    exact = jax.grad(policy_gradient.exact_policy_loss)(jnp.asarray(LOGITS), gains, VALID, 1.0)
    np.testing.assert_allclose(exact, jax.grad(sampled)(jnp.asarray(LOGITS)), atol=1e-6)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e38])
def test_invalid_actions_change_nothing(rubbish):
    logits = np.where(VALID, LOGITS, rubbish).astype(np.float32)
    gains = np.where(VALID, ADVANTAGES, rubbish).astype(np.float32)
    clean = jax.value_and_grad(policy_gradient.exact_policy_loss)(LOGITS, ADVANTAGES, VALID, 1.0)
    spoiled = jax.value_and_grad(policy_gradient.exact_policy_loss)(logits, gains, VALID, 1.0)
    jax.tree.map(np.testing.assert_array_equal, clean, spoiled)
    clean = jax.value_and_grad(policy_gradient.entropy)(LOGITS, VALID)
    spoiled = jax.value_and_grad(policy_gradient.entropy)(logits, VALID)
    jax.tree.map(np.testing.assert_array_equal, clean, spoiled)


def test_entropy(variant, finite_difference):
    p = softmax(LOGITS[:3])
    assert variant(policy_gradient.entropy, LOGITS, VALID) == pytest.approx(-p @ np.log(p), rel=1e-5)
    assert variant(policy_gradient.entropy, np.zeros(4, np.float32), VALID) == pytest.approx(np.log(3))

    def oracle(x):
        p = softmax(x[:3])
        return -p @ np.log(p)

    gradient = jax.grad(policy_gradient.entropy)(LOGITS, VALID)
    np.testing.assert_allclose(gradient, finite_difference(oracle, LOGITS), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Rlax softmax:PendingDeprecationWarning")
def test_entropy_agrees_with_rlax(rlax):
    ours = policy_gradient.entropy(LOGITS, jnp.ones(4, bool))
    assert ours == pytest.approx(float(rlax.softmax().entropy(LOGITS)), rel=1e-5)


def test_normalised_entropy(variant):
    assert variant(policy_gradient.normalised_entropy, np.full(5, 0.2, np.float32)) == pytest.approx(1.0)
    assert variant(policy_gradient.normalised_entropy, np.eye(5, dtype=np.float32)[2]) == 0.0
    half = np.array([0.5, 0.5, 0.0, 0.0], np.float32)
    assert variant(policy_gradient.normalised_entropy, half) == pytest.approx(0.5)
    assert variant(policy_gradient.normalised_entropy, np.ones(1, np.float32)) == 0.0


def test_advantages(variant):
    np.testing.assert_allclose(variant(policy_gradient.advantage_q, Q, POLICY), [-1.1, -0.1, 0.9], rtol=1e-5)
    td = variant(policy_gradient.advantage_td, *np.array([0.5, 0.9, 2.0, 1.0], np.float32))
    assert td == pytest.approx(1.3)


def test_advantages_carry_no_gradient():
    by_q, by_policy = jax.grad(lambda q, policy: jnp.sum(policy_gradient.advantage_q(q, policy) ** 2), argnums=(0, 1))(
        Q, POLICY
    )
    assert not np.any(by_q)
    assert not np.any(by_policy)
    assert jax.grad(policy_gradient.advantage_td, argnums=(0, 1, 2, 3))(0.5, 0.9, 2.0, 1.0) == (0, 0, 0, 0)


def test_a_policy_has_no_advantage_over_itself():
    assert POLICY @ policy_gradient.advantage_q(Q, POLICY) == pytest.approx(0.0, abs=1e-6)


def test_discounted_return(variant, rlax):
    rewards = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    discounts = np.array([0.5, 0.0, 0.5, 0.5], np.float32)  # an episode ends at the second step
    returns = variant(policy_gradient.discounted_return, rewards, discounts)
    np.testing.assert_allclose(returns, [2.0, 2.0, 5.0, 4.0])
    theirs = rlax.discounted_returns(rewards, discounts, jnp.zeros(4))
    np.testing.assert_allclose(returns, theirs, rtol=1e-6)
    padded = policy_gradient.discounted_return(
        np.append(rewards, [0.0, 0.0]).astype(np.float32), np.append(discounts, [1.0, 1.0]).astype(np.float32)
    )
    np.testing.assert_array_equal(padded[:4], returns)


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])
def test_gaussian_log_prob_and_its_score(variant, scale):
    x, mean = np.float32(0.7), np.float32(0.4)
    found = variant(policy_gradient.gaussian_log_prob, x, mean, np.float32(scale))
    np.testing.assert_allclose(found, stats.norm.logpdf(x, mean, scale), rtol=1e-5)
    score = jax.grad(policy_gradient.gaussian_log_prob, argnums=1)(x, mean, np.float32(scale))
    np.testing.assert_allclose(score, 0.3 / scale**2, rtol=1e-5)
