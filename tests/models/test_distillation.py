"""Distillation against sums in float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.models import distillation, transformer
from aco_jax.models.config import Architecture

RNG = np.random.default_rng(0)
TEACHER, STUDENT = (RNG.normal(size=(2, 3, 5)) for _ in range(2))
MASK = np.array([[True, True, False], [True, False, False]])

token_kl = jax.jit(distillation.token_kl, static_argnums=4)


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
    found = token_kl(as_log_probs(TEACHER), as_log_probs(STUDENT), MASK, temperature, reverse)
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


FULL = {"vocab_size": 14, "width": 16, "heads": 2, "mlp_width": 24, "max_length": 16, "decoder_layers": 1}
BOTH = transformer.Config(**FULL, encoder_layers=1)
ALONE = transformer.Config(**FULL, encoder_layers=0, copy=False)
ROTARY = dataclasses.replace(ALONE, architecture=Architecture(position="rotary", gated=True, source_match=False))
SOURCE = jnp.array([[5, 6, 7, 0], [8, 9, 0, 0], [5, 10, 11, 12]])
TARGET = jnp.array([[6, 7, 2, 0], [9, 2, 0, 0], [3, 4, 5, 2]])
EOS = 2

of_one = jax.jit(transformer.log_probs, static_argnums=1)
log_probs, sequence_log_prob, text_loss = (
    jax.jit(f, static_argnums=1)
    for f in (distillation.log_probs, distillation.sequence_log_prob, distillation.text_loss)
)
sample = jax.jit(distillation.sample, static_argnums=1, static_argnames=("eos", "length", "samples"))
sequence_loss = jax.jit(distillation.sequence_loss, static_argnums=(1, 3, 8))
on_policy_loss = jax.jit(distillation.on_policy_loss, static_argnums=(1, 3), static_argnames=("eos", "length"))


@pytest.fixture(scope="module")
def made():
    """Parameters in general position, by config."""
    return {
        config: jax.tree.map(
            lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape),
            transformer.init(jax.random.key(number), config),
        )
        for number, config in enumerate((BOTH, ALONE, ROTARY))
    }


@pytest.mark.parametrize("config", [ALONE, ROTARY])
def test_a_decoder_alone_continues_the_source_as_one_row(made, config):
    """Each row as one unpadded sequence: begin token, source, target."""
    found = log_probs(made[config], config, SOURCE, TARGET)
    total, count = sequence_log_prob(made[config], config, SOURCE, TARGET)
    for i, (source, target) in enumerate(zip(np.asarray(SOURCE), np.asarray(TARGET), strict=True)):
        source, target = source[source > 0], target[target > 0]
        row = jnp.array([[config.bos, *source, *target[:-1]]])
        expected = of_one(made[config], config, row)[0, len(source) :]
        np.testing.assert_allclose(found[i, : len(target)], expected, atol=2e-5)
        own = np.float64(expected)[np.arange(len(target)), target].sum()
        np.testing.assert_allclose(total[i], own, atol=1e-4)
        assert count[i] == len(target)


@pytest.mark.parametrize("config", [BOTH, ALONE])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_teacher_teaches_any_student_over_the_same_tokens(made, config, reverse):
    loss, metrics = sequence_loss(made[config], config, made[ROTARY], ROTARY, SOURCE, TARGET, 0.5, 2.0, reverse)
    taught = log_probs(made[ROTARY], ROTARY, SOURCE, TARGET)
    own = log_probs(made[config], config, SOURCE, TARGET)
    kl = token_kl(taught, own, TARGET > 0, 2.0, reverse)
    np.testing.assert_allclose(metrics["distillation_kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * kl + 0.5 * metrics["cross_entropy"], rtol=1e-5)


@pytest.mark.parametrize("config", [BOTH, ALONE])
def test_samples_are_the_students_own(made, config):
    """Their frequencies are its probabilities, and they begin after the source."""
    source = jnp.repeat(SOURCE[1:2], 3000, axis=0)
    drawn = np.asarray(sample(made[config], config, source, eos=EOS, length=1, key=jax.random.key(0)))
    p = np.exp(log_probs(made[config], config, SOURCE[1:2], jnp.array([[3]]))[0, 0])
    p[0] = 0  # padding is never sampled
    np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=14) / 3000, p / p.sum(), atol=0.035)
    texts = sample(made[config], config, SOURCE, eos=EOS, length=5, key=jax.random.key(1), samples=2)
    assert texts.shape == (6, 5)
    ended = np.cumsum(np.asarray(texts) == EOS, axis=1) - (np.asarray(texts) == EOS) > 0
    np.testing.assert_array_equal(np.asarray(texts)[ended], 0)


def test_on_policy_loss_is_the_divergence_along_own_samples(made):
    given = {"eos": EOS, "length": 5, "key": jax.random.key(3)}
    student = (made[BOTH], BOTH)
    loss, _ = on_policy_loss(*student, made[ALONE], ALONE, SOURCE, **given)
    written = sample(*student, SOURCE, **given)
    taught, own = (log_probs(*model, SOURCE, written) for model in ((made[ALONE], ALONE), student))
    np.testing.assert_allclose(loss, token_kl(taught, own, written > 0, 1.0, True), rtol=1e-5)


def test_a_teachers_texts_weigh_as_they_are_weighed(made):
    total, count = (np.float64(x) for x in sequence_log_prob(made[BOTH], BOTH, SOURCE, TARGET))
    loss, _ = text_loss(made[BOTH], BOTH, SOURCE, TARGET)
    np.testing.assert_allclose(loss, -total.sum() / count.sum(), rtol=1e-5)
    weight = np.array([0.2, 0.0, 0.8])
    loss, _ = text_loss(made[BOTH], BOTH, SOURCE, TARGET, jnp.float32(weight))
    np.testing.assert_allclose(loss, -(weight * total).sum() / (weight * count).sum(), rtol=1e-5)


def test_a_student_comes_to_write_what_the_teacher_likes(made):
    """By opinions alone, without a token of the teacher's: the KL over whole texts falls."""
    config, source = BOTH, SOURCE[:1]
    rule = optax.adam(0.02)

    @jax.jit
    def step(params, state, key):
        written = sample(params, config, source, eos=EOS, length=3, key=key, samples=16)
        opinion, _ = sequence_log_prob(made[ALONE], ALONE, jnp.repeat(source, 16, axis=0), written)
        (_, metrics), slope = jax.value_and_grad(distillation.opinion_loss, has_aux=True)(
            params, config, source, written[None], opinion[None]
        )
        change, state = rule.update(slope, state)
        return optax.apply_updates(params, change), state, metrics["distillation_kl"]

    params, state, found = made[config], rule.init(made[config]), []
    for key in jax.random.split(jax.random.key(0), 150):
        params, state, kl = step(params, state, key)
        found.append(float(kl))
    assert np.mean(found[-10:]) < 0.5 * np.mean(found[:10])
