from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.ops import divergence
from aco_jax.ops.masking import masked_log_softmax

P_LOGITS = np.array([0.5, -0.3, 1.2, 0.0], np.float32)
Q_LOGITS = np.array([-0.2, 0.4, 0.1, 3.0], np.float32)
MASK = np.array([True, True, True, False])


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum())


def kl(p_logits, q_logits):
    log_p, log_q = log_softmax(p_logits), log_softmax(q_logits)
    return np.exp(log_p) @ (log_p - log_q)


def test_kl_over_valid_actions(variant):
    value = variant(
        divergence.kl_categorical,
        masked_log_softmax(P_LOGITS, MASK),
        masked_log_softmax(Q_LOGITS, MASK),
        MASK,
    )
    assert value == pytest.approx(kl(P_LOGITS[:3], Q_LOGITS[:3]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Rlax categorical_kl:PendingDeprecationWarning")
def test_kl_agrees_with_rlax(rlax):
    log_p, log_q = jax.nn.log_softmax(P_LOGITS), jax.nn.log_softmax(Q_LOGITS)
    theirs = rlax.categorical_kl_divergence(P_LOGITS, Q_LOGITS)
    ours = divergence.kl_categorical(log_p, log_q, jnp.ones(4, bool))
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_kl_gradient(finite_difference):
    def ours(p_logits, q_logits):
        return divergence.kl_categorical(masked_log_softmax(p_logits, MASK), masked_log_softmax(q_logits, MASK), MASK)

    by_p, by_q = jax.grad(ours, argnums=(0, 1))(P_LOGITS, Q_LOGITS)
    expected_p = finite_difference(lambda x: kl(x[:3], Q_LOGITS[:3]), P_LOGITS)
    expected_q = finite_difference(lambda x: kl(P_LOGITS[:3], x[:3]), Q_LOGITS)
    np.testing.assert_allclose(by_p, expected_p, atol=1e-6)
    np.testing.assert_allclose(by_q, expected_q, atol=1e-6)


def test_kl_of_a_certain_choice():
    certain = jnp.array([0.0, -jnp.inf])
    half = jnp.log(jnp.array([0.5, 0.5]))
    both = jax.value_and_grad(divergence.kl_categorical, argnums=(0, 1))
    value, gradients = both(certain, half, jnp.ones(2, bool))
    assert value == pytest.approx(np.log(2))
    assert np.isfinite(gradients[0]).all()
    assert np.isfinite(gradients[1]).all()
    assert divergence.kl_categorical(half, certain, jnp.ones(2, bool)) == np.inf


@settings(max_examples=30, deadline=None)
@given(*[st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4)] * 2)
def test_kl_is_zero_at_itself_and_never_negative(p, q):
    log_p = jax.nn.log_softmax(np.array(p, np.float32))
    log_q = jax.nn.log_softmax(np.array(q, np.float32))
    everything = np.ones(4, bool)
    assert divergence.kl_categorical(log_p, log_q, everything) >= -1e-6
    assert divergence.kl_categorical(log_p, log_p, everything) == 0.0


def test_kl_tokens_is_the_mean_over_valid_tokens(variant):
    rng = np.random.default_rng(3)
    p, q = rng.normal(size=(2, 3, 5))
    log_p = np.array([log_softmax(row) for row in p], np.float32)
    log_q = np.array([log_softmax(row) for row in q], np.float32)
    log_p[2], log_q[2] = np.nan, -np.inf  # padding
    value = variant(divergence.kl_tokens, log_p, log_q, np.array([True, True, False]))
    assert value == pytest.approx((kl(p[0], q[0]) + kl(p[1], q[1])) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("kl_measured", "expected"), [(0.2, 2.0), (0.8, 4.0), (0.45, 3.0), (20.0, 8.0), (0.1, np.sqrt(2)), (0.0, 1.0)]
)
def test_adaptive_weight_goes_by_the_square_root_of_what_is_too_much(variant, kl_measured, expected):
    args = np.array([2.0, kl_measured, 0.2], np.float32)
    assert variant(divergence.adaptive_weight, *args) == pytest.approx(expected, rel=1e-6)


def test_adaptive_weight_stays_within_bounds():
    assert divergence.adaptive_weight(1e4, 9.0, 0.1) == pytest.approx(1e4)
    assert divergence.adaptive_weight(1e-2, 0.0, 0.1) == pytest.approx(1e-2)


def test_adaptive_weight_is_where_the_kl_is_its_target_within_a_few_rounds_from_anywhere():
    """A penalty that holds a policy back: its KL is (pull / weight)^2, in each round a little otherwise."""
    rng = np.random.default_rng(0)
    for weight in (1e-2, 1.0, 1e3):
        ratios = []
        for _ in range(30):
            kl = (0.5 / weight * np.exp(rng.normal(0, 0.05))) ** 2
            ratios.append(kl / 0.02)
            weight = float(divergence.adaptive_weight(weight, kl, 0.02))
        assert np.all((np.array(ratios[10:]) < 1.5) & (np.array(ratios[10:]) > 1 / 1.5))
