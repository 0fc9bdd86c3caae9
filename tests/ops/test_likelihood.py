from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.ops import likelihood

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 5)).astype(np.float32)
TOKENS = np.array([3, 0, 4, 4], np.int32)
MASK = np.array([True, True, True, False])


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_token_log_probs(variant):
    expected = [log_softmax(LOGITS[t])[TOKENS[t]] for t in range(4)]
    np.testing.assert_allclose(variant(likelihood.token_log_probs, LOGITS, TOKENS), expected, rtol=1e-5)


def test_token_log_probs_of_log_probs_are_the_same():
    log_p = log_softmax(LOGITS).astype(np.float32)
    np.testing.assert_allclose(
        likelihood.token_log_probs(log_p, TOKENS),
        likelihood.token_log_probs(LOGITS, TOKENS),
        rtol=1e-5,
    )


def test_sequence_log_prob_and_its_mean(variant):
    log_p = np.array([-1.0, -2.0, -6.0, -100.0], np.float32)
    assert variant(likelihood.sequence_log_prob, log_p, MASK) == pytest.approx(-9.0)
    assert variant(likelihood.length_normalised, log_p, MASK) == pytest.approx(-3.0)


def test_an_empty_sequence_is_worth_nothing():
    nothing = jnp.zeros(4, bool)
    value, gradient = jax.value_and_grad(likelihood.length_normalised)(jnp.full(4, -jnp.inf), nothing)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(4))


def test_chain_rule_over_records():
    joint = RNG.dirichlet(np.ones(12)).reshape(3, 4)
    first = joint.sum(1)
    steps = np.log([first[2], joint[2, 1] / first[2]])
    value = likelihood.sequence_log_prob(jnp.asarray(steps), jnp.ones(2, bool))
    assert value == pytest.approx(np.log(joint[2, 1]), rel=1e-5)


def test_cross_entropy_is_the_mean_over_valid_tokens(variant):
    expected = -np.mean([log_softmax(LOGITS[t])[TOKENS[t]] for t in range(3)])
    assert variant(likelihood.cross_entropy, LOGITS, TOKENS, MASK) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_agrees_with_optax():
    losses = optax.softmax_cross_entropy_with_integer_labels(LOGITS, TOKENS)
    expected = float((losses * MASK).sum() / MASK.sum())
    assert likelihood.cross_entropy(LOGITS, TOKENS, MASK) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_gradient(finite_difference):
    def oracle(logits):
        return -np.mean([log_softmax(logits[t])[TOKENS[t]] for t in range(3)])

    gradient = jax.grad(likelihood.cross_entropy)(LOGITS, TOKENS, MASK)
    np.testing.assert_allclose(gradient, finite_difference(oracle, LOGITS), atol=1e-6)


@pytest.mark.parametrize("rubbish", [1e30, -1e30, np.inf, np.nan])
def test_padding_changes_no_cross_entropy(rubbish):
    spoiled = LOGITS.copy()
    spoiled[3] = rubbish
    changed = likelihood.cross_entropy(spoiled, np.array([3, 0, 4, 1], np.int32), MASK)
    assert changed == likelihood.cross_entropy(LOGITS, TOKENS, MASK)


def test_conditional_gain_by_hand(variant):
    # two orders: (-6 - -10) / 4 = 1 and (-3 - -9) / 2 = 3
    gain = variant(
        likelihood.conditional_gain,
        np.array([-6.0, -3.0], np.float32),
        np.array([-10.0, -9.0], np.float32),
        np.array([4, 2], np.int32),
    )
    assert gain == pytest.approx(2.0)


def test_independent_records_gain_nothing():
    p = jnp.log(jnp.array([0.2, 0.7]))
    assert likelihood.conditional_gain(p, p, jnp.array([1, 3])) == 0.0


def copy_oracle(logits, copy, ids, gate):
    g = 1 / (1 + np.exp(-np.float64(gate)))
    p = g * np.exp(log_softmax(logits))
    for attention, token in zip(copy, ids, strict=True):
        p[token] += (1 - g) * attention
    return np.log(p)


COPY = np.array([0.5, 0.2, 0.3, 0.0], np.float32)
IDS = np.array([1, 4, 1, 0], np.int32)  # token 1 stands twice in the source, the last slot is padding


def test_copy_mixture(variant):
    log_p = variant(likelihood.copy_mixture, jax.nn.log_softmax(LOGITS[0]), COPY, IDS, np.float32(-0.4))
    np.testing.assert_allclose(log_p, copy_oracle(LOGITS[0], COPY, IDS, -0.4), rtol=1e-5)
    assert np.exp(log_p).sum() == pytest.approx(1.0, rel=1e-6)


def test_copy_mixture_gradients(finite_difference):
    weights = RNG.normal(size=5)

    def scored(logits, copy, gate):
        return jnp.sum(
            weights.astype(np.float32) * likelihood.copy_mixture(jax.nn.log_softmax(logits), copy, IDS, gate)
        )

    by_logits, by_copy, by_gate = jax.grad(scored, argnums=(0, 1, 2))(LOGITS[0], COPY, np.float32(0.3))
    np.testing.assert_allclose(
        by_logits,
        finite_difference(lambda x: weights @ copy_oracle(x, COPY, IDS, 0.3), LOGITS[0]),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        by_copy[:3],
        finite_difference(lambda x: weights @ copy_oracle(LOGITS[0], x, IDS, 0.3), COPY)[:3],
        atol=1e-4,
    )
    slope = finite_difference(lambda x: weights @ copy_oracle(LOGITS[0], COPY, IDS, x), 0.3)
    np.testing.assert_allclose(by_gate, slope, atol=1e-5)


@pytest.mark.parametrize("gate", [-40.0, 40.0])
def test_copy_mixture_stays_finite_at_a_shut_gate(gate):
    value, gradient = jax.value_and_grad(
        lambda g: likelihood.copy_mixture(jax.nn.log_softmax(LOGITS[0]), COPY, IDS, g)[2]
    )(gate)
    assert np.isfinite(value)
    assert np.isfinite(gradient)
