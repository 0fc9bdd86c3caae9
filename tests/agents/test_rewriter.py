"""The rewriter: its form, its size, its two teachers and its penalty."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.agents import rewriter
from aco_jax.data.tokens import Special
from aco_jax.models import distillation, quantization, transformer

S = Special.at(0)
T = S.count
TEACHER = transformer.Config(
    vocab_size=T + 12, width=24, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32, max_length=16
)
MODEL = transformer.Config(**{**vars(TEACHER), "width": 16})
CONFIG = rewriter.Config(model=MODEL, special=S, source_length=12, length=6)
SOURCE = jnp.array(
    [
        [[S.rewrite, S.level(m), S.table(0), T, T + 1, S.sep, T + 1] for m in range(2)],
        [[S.rewrite, S.level(m), T + 2, S.sep, T + 2, 0, 0] for m in range(2)],
    ]
)
TARGET = jnp.array([[S.level(0), T, S.eos, 0], [S.level(0), T + 2, T + 2, S.eos]])


@pytest.fixture(scope="module")
def params():
    return rewriter.init(jax.random.key(0), CONFIG)


def test_the_smaller_network_has_at_most_half_the_parameters():
    full = transformer.Config(vocab_size=2048)

    def size(config):
        shapes = jax.eval_shape(lambda key: transformer.init(key, config), jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    small = rewriter.smaller(full)
    assert size(small) <= 0.5 * size(full)
    assert (small.vocab_size, small.max_length) == (full.vocab_size, full.max_length)


def test_each_subquery_begins_with_its_number_and_holds_text(params):
    found = rewriter.rewrite(params, CONFIG, SOURCE, jax.random.key(1))
    assert found.tokens.shape == (2, 2, 6)
    np.testing.assert_array_equal(found.tokens[:, :, 0], SOURCE[:, :, 1])
    rest = np.asarray(found.tokens[:, :, 1:])
    assert np.isin(rest, [0, S.eos, *range(T, T + 12)]).all()
    again = jax.jit(rewriter.subquery_log_prob, static_argnums=1)(params, CONFIG, SOURCE, found.tokens)
    np.testing.assert_allclose(found.log_prob, again, atol=1e-4)


def test_int8_weights_write_too(params):
    found = rewriter.rewrite(quantization.quantize(params), CONFIG, SOURCE, jax.random.key(1), 0.0)
    exact = rewriter.rewrite(params, CONFIG, SOURCE, jax.random.key(1), 0.0)
    assert found.tokens.shape == exact.tokens.shape
    np.testing.assert_allclose(found.log_prob, exact.log_prob, atol=0.5)


def test_loss_is_cross_entropy_and_kl_to_the_teacher(params):
    teacher = transformer.init(jax.random.key(5), TEACHER)
    source = SOURCE[:, 0]
    batch = rewriter.SftBatch(source, TARGET)
    loss = jax.jit(
        lambda p, t: rewriter.loss(p, CONFIG, batch, t, TEACHER)  # the two configs are constants
    )
    value, metrics = loss(params, teacher)

    @functools.partial(jax.jit, static_argnums=1)
    def log_probs(tree, config):
        inputs = transformer.shift(TARGET, config.bos)
        return transformer.log_probs(tree, config, inputs, transformer.encode(tree, config, source), source)

    student = log_probs(params, MODEL)
    chosen = jnp.take_along_axis(student, TARGET[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(metrics["cross_entropy"], -chosen[TARGET > 0].mean(), rtol=1e-4)
    kl = distillation.token_kl(log_probs(teacher, TEACHER), student, TARGET > 0)
    np.testing.assert_allclose(metrics["distillation_kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(value, 0.5 * metrics["cross_entropy"] + 0.5 * kl, rtol=1e-4)
    to_teacher = jax.jit(jax.grad(lambda t: loss(params, t)[0]))(teacher)
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(to_teacher))


def test_policy_loss_raises_what_was_rewarded(params):
    found = rewriter.rewrite(params, CONFIG, SOURCE, jax.random.key(1))
    advantage = jnp.array([1.0, -1.0])
    gradient = jax.jit(jax.grad(lambda p, a: rewriter.policy_loss(p, CONFIG, SOURCE, found.tokens, a)))
    grads = gradient(params, advantage)
    log_prob = jax.jit(lambda p: rewriter.subquery_log_prob(p, CONFIG, SOURCE, found.tokens).mean(axis=1))
    moved = jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)
    assert jnp.sum((log_prob(moved) - log_prob(params)) * advantage) > 0
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(gradient(params, jnp.zeros(2))))


def test_penalty_counts_invented_and_lost_facts():
    facts = jnp.zeros(T + 12, bool).at[T : T + 5].set(True)  # T .. T + 4 state facts
    record = jnp.array([[S.table(0), T, T + 1, T + 9, T, 0]])  # two different facts
    written = jnp.array(
        [
            [
                [S.level(0), T, T + 9, S.eos],  # keeps one, invents none
                [S.level(1), T + 2, T, S.eos],  # one of two stated facts is invented
                [S.level(2), T + 10, S.eos, 0],  # states none
            ]
        ]
    )
    found = jax.jit(rewriter.penalty)(written, record, facts)
    np.testing.assert_allclose(found, [[0.25, 0.25 + 0.25, 0.25]])
    kept = rewriter.penalty(written.at[0, 2, 1].set(T + 1), record, facts)
    np.testing.assert_allclose(kept, [[0.0, 0.25, 0.0]])
    padded = rewriter.penalty(jnp.pad(written, ((0, 0), (0, 0), (0, 3))), jnp.pad(record, ((0, 0), (0, 2))), facts)
    np.testing.assert_array_equal(found, padded)
