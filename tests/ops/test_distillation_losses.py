"""Distillation against loops in float64, and its policy gradient against the exact one over all texts."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.ops import distillation

RNG = np.random.default_rng(0)
TEACHER, STUDENT = RNG.normal(size=(2, 7))


def softmax(logits, temperature):
    weights = [math.exp(x / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_token_kl_is_the_float64_sum(temperature, reverse):
    p, q = softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    if reverse:
        p, q = q, p
    expected = temperature**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    found = distillation.token_kl(jnp.float32(TEACHER), jnp.float32(STUDENT), temperature, reverse)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_is_that_of_the_closed_form_and_the_teachers_is_none(reverse):
    """Forward at temperature T: T (softmax(s / T) - softmax(t / T)); reversed: T q_v (log q_v - log p_v - KL)."""
    temperature = 2.0
    p, q = (np.array(softmax(x, temperature)) for x in (TEACHER, STUDENT))
    kl = (q * np.log(q / p)).sum()
    expected = temperature * (q * (np.log(q / p) - kl) if reverse else q - p)
    to_teacher, to_student = jax.grad(distillation.token_kl, argnums=(0, 1))(
        jnp.float32(TEACHER), jnp.float32(STUDENT), temperature, reverse
    )
    np.testing.assert_allclose(to_student, expected, atol=1e-5)
    np.testing.assert_array_equal(to_teacher, 0)


def test_sequence_cross_entropy_is_the_weighted_loop():
    log_prob, length, weight = [-3.0, -7.5, -2.0], [2, 6, 1], [0.5, 0.2, 0.3]
    expected = sum(-w * p for w, p in zip(weight, log_prob, strict=True)) / sum(
        w * n for w, n in zip(weight, length, strict=True)
    )
    found = distillation.sequence_cross_entropy(jnp.array(log_prob), jnp.array(length), jnp.array(weight))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(
        distillation.sequence_cross_entropy(jnp.array(log_prob), jnp.array(length), jnp.ones(3)), 12.5 / 9, rtol=1e-6
    )
    assert distillation.sequence_cross_entropy(jnp.zeros(2), jnp.zeros(2, int), jnp.zeros(2)) == 0


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_mean_gradient_on_own_texts_is_that_of_the_kl(samples):
    """Over all tuples of samples of four texts, each as often as the student writes it, in float64."""
    student, teacher = STUDENT[:4], np.log(np.array(softmax(TEACHER[:4], 1.0)))
    q = np.array(softmax(student, 1.0))
    expected = q * (np.log(q) - teacher - (q * (np.log(q) - teacher)).sum())
    slope = jax.jit(
        jax.grad(lambda s, drawn: distillation.on_policy_kl(jax.nn.log_softmax(s)[drawn], jnp.float32(teacher)[drawn]))
    )
    found = np.zeros(4)
    for drawn in itertools.product(range(4), repeat=samples):
        found += q[list(drawn)].prod() * np.float64(slope(jnp.float32(student), jnp.array(drawn)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_student_that_agrees_is_left_alone():
    same = jnp.array([-3.0, -1.0, -2.0])
    slope = jax.grad(distillation.on_policy_kl)(same, same)
    np.testing.assert_array_equal(slope, 0)
