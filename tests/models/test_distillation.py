"""Distillation against sums in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import distillation

RNG = np.random.default_rng(0)
TEACHER, STUDENT = (RNG.normal(size=(2, 3, 5)) for _ in range(2))
MASK = np.array([[True, True, False], [True, False, False]])


def normalised(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def as_log_probs(logits):
    return jnp.asarray(normalised(logits), jnp.float32)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_token_kl_is_the_float64_sum(temperature, reverse):
    teacher, student = (normalised(normalised(x) / temperature) for x in (TEACHER, STUDENT))
    p, q = (student, teacher) if reverse else (teacher, student)
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=-1)[MASK].mean()
    found = jax.jit(distillation.token_kl, static_argnums=4)(
        as_log_probs(TEACHER), as_log_probs(STUDENT), MASK, temperature, reverse
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_token_kl_of_equals_is_zero_and_only_the_student_learns():
    teacher, student = as_log_probs(TEACHER), as_log_probs(STUDENT)
    np.testing.assert_allclose(distillation.token_kl(teacher, teacher, MASK), 0, atol=1e-6)
    to_teacher, to_student = jax.grad(distillation.token_kl, argnums=(0, 1))(teacher, student, MASK)
    np.testing.assert_array_equal(to_teacher, 0)
    assert np.abs(to_student[MASK]).max() > 0
    np.testing.assert_array_equal(to_student[~MASK], 0)


def test_mixed_loss_weighs_both_parts():
    teacher, student = as_log_probs(TEACHER), as_log_probs(STUDENT)
    targets = jnp.array([[1, 4, 0], [2, 0, 0]])
    chosen = [normalised(STUDENT)[0, 0, 1], normalised(STUDENT)[0, 1, 4], normalised(STUDENT)[1, 0, 2]]
    loss, metrics = distillation.mixed_loss(teacher, student, targets, weight=0.25, temperature=2.0)
    np.testing.assert_allclose(metrics["cross_entropy"], -np.mean(chosen), rtol=1e-5)
    kl = distillation.token_kl(teacher, student, MASK, 2.0)
    np.testing.assert_allclose(loss, 0.75 * -np.mean(chosen) + 0.25 * kl, rtol=1e-5)


def test_padding_changes_nothing_and_no_token_is_no_loss():
    wide = (
        jnp.pad(as_log_probs(TEACHER), ((0, 0), (0, 2), (0, 0))),
        jnp.pad(as_log_probs(STUDENT), ((0, 0), (0, 2), (0, 0))),
    )
    mask = np.pad(MASK, ((0, 0), (0, 2)))
    np.testing.assert_allclose(
        distillation.token_kl(*wide, mask),
        distillation.token_kl(as_log_probs(TEACHER), as_log_probs(STUDENT), MASK),
        rtol=1e-6,
    )
    assert distillation.token_kl(*wide, np.zeros_like(mask)) == 0
