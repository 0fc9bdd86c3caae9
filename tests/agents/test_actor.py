"""The actor: its policy, its gradient against the enumerated expectation, its reasons."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.agents import actor
from aco_jax.data.tokens import Special
from aco_jax.models import transformer

SPECIAL, TEXT = Special.at(0), 160
MODEL = transformer.Config(
    vocab_size=180, width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32, max_length=32
)
CONFIG = actor.Config(
    model=MODEL,
    factor_sizes=(3, 2),
    actions=4,
    special=SPECIAL,
    reason_length=5,
)
act = jax.jit(actor.act, static_argnums=1)
loss = jax.jit(actor.loss, static_argnums=1)
gradient = jax.jit(jax.grad(lambda params, *given: actor.loss(params, *given)[0]), static_argnums=1)


@pytest.fixture(scope="module")
def params() -> chex.ArrayTree:
    return jax.jit(actor.init, static_argnums=1)(jax.random.key(0), CONFIG)


def make_batch(params: chex.ArrayTree) -> actor.Batch:
    factors = jnp.array([[0, 1], [2, 0], [1, 1]])
    valid = jnp.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]], bool)
    source = actor.reason_source(
        CONFIG, jnp.array([0, 1]), TEXT + jnp.array([[0, 1, -TEXT], [2, 3, 6]]), TEXT + jnp.array([[1, 0], [6, -TEXT]])
    )
    return actor.Batch(
        factors=factors,
        valid=valid,
        state=jnp.arange(3),
        action=jnp.array([0, 2, 1]),
        mu=jnp.array([0.5, 0.25, 0.5]),
        advantage=jnp.array([1.0, -0.5, 0.2]),
        q=jnp.array([[1.0, 0, 0, 0], [0, 9, 2, 1], [0, 1, 9, 9]]),
        old_log_pi=act(params, CONFIG, factors, valid),
        mask=jnp.array([True, True, False]),
        reason_source=source,
        reason=jnp.array([[TEXT, TEXT + 1, SPECIAL.eos, 0, 0], [TEXT + 6, SPECIAL.eos, 0, 0, 0]]),
        reason_advantage=jnp.array([1.0, -1.0]),
    )


def test_state_tokens_are_distinct_for_each_factor_and_value() -> None:
    factors = jnp.array([[f, g] for f in range(3) for g in range(2)])
    tokens = actor.state_tokens(CONFIG, factors)
    np.testing.assert_array_equal(tokens[:, 0] - SPECIAL.first_state, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(tokens[:, 1] - SPECIAL.first_state, [3, 4] * 3)


def test_policy_is_normalised_over_valid_actions(params: chex.ArrayTree) -> None:
    batch = make_batch(params)
    pi = np.exp(np.asarray(act(params, CONFIG, batch.factors, batch.valid), np.float64))
    np.testing.assert_allclose(pi.sum(axis=1), 1, rtol=1e-5)
    assert (pi[~np.asarray(batch.valid)] == 0).all()


def test_gradient_is_that_of_the_enumerated_expectation(params: chex.ArrayTree) -> None:
    """Without replay (mu = pi) and other terms, the exact part ascends E_pi[Q] exactly."""
    config = dataclasses.replace(CONFIG, entropy_weight=0.0, reason_weight=0.0)
    batch = dataclasses.replace(make_batch(params), advantage=jnp.zeros(3))

    def expected(p: chex.ArrayTree) -> chex.Array:
        pi = jnp.exp(actor.act(p, config, batch.factors, batch.valid))
        return -jnp.sum(jnp.sum(pi * jnp.where(batch.valid, batch.q, 0), axis=1) * batch.mask) / 2

    ours = gradient(params, config, batch, 0.0)
    chex.assert_trees_all_close(ours, jax.jit(jax.grad(expected))(params), atol=1e-5)


def test_sampled_part_is_ratio_times_advantage(params: chex.ArrayTree) -> None:
    config = dataclasses.replace(CONFIG, entropy_weight=0.0, reason_weight=0.0, exact_weight=0.0)
    batch = make_batch(params)

    def by_hand(p: chex.ArrayTree) -> chex.Array:
        log_pi = actor.act(p, config, batch.factors, batch.valid)
        terms = []
        for row in range(2):
            taken = log_pi[row, batch.action[row]]
            ratio = jnp.minimum(jnp.exp(taken) / batch.mu[row], config.ratio_limit)
            terms.append(-jax.lax.stop_gradient(ratio) * batch.advantage[row] * taken)
        return (terms[0] + terms[1]) / 2

    ours = gradient(params, config, batch, 0.0)
    chex.assert_trees_all_close(ours, jax.jit(jax.grad(by_hand))(params), atol=1e-5)


def test_kl_is_zero_at_the_old_policy_and_its_weight_holds_back(params: chex.ArrayTree) -> None:
    batch = make_batch(params)
    assert float(loss(params, CONFIG, batch, 1.0)[1]["kl"]) == pytest.approx(0, abs=1e-6)

    def drift(kl_weight: float) -> float:
        state, moved = optax.adam(3e-3).init(params), params
        for _ in range(15):
            grads = gradient(moved, CONFIG, batch, kl_weight)
            updates, state = optax.adam(3e-3).update(grads, state)
            moved = optax.apply_updates(moved, updates)
        return float(loss(moved, CONFIG, batch, kl_weight)[1]["kl"])

    assert drift(10.0) < drift(0.0)


def test_penalty_and_bonus_are_those_of_a_float64_loop(params: chex.ArrayTree) -> None:
    """KL of the old policy from the new, over the decisions that count, and entropy, whose weight is taken off."""
    batch = make_batch(params)
    moved = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    old, new = (np.float64(act(p, CONFIG, batch.factors, batch.valid)) for p in (params, moved))
    kl, reverse, entropy = [], [], []
    for row in range(2):  # the third decision is masked
        ours, theirs = ([x[row, a] for a in np.flatnonzero(batch.valid[row])] for x in (old, new))
        kl.append(sum(np.exp(p) * (p - q) for p, q in zip(ours, theirs, strict=True)))
        reverse.append(sum(np.exp(q) * (q - p) for p, q in zip(ours, theirs, strict=True)))
        entropy.append(-sum(np.exp(q) * q for q in theirs))
    assert abs(np.mean(kl) - np.mean(reverse)) > 1e-3 * np.mean(kl)  # the directions can be told apart
    plain, bonus = (dataclasses.replace(CONFIG, entropy_weight=weight) for weight in (0.0, 0.5))
    start, metrics = loss(moved, plain, batch, 0.0)
    np.testing.assert_allclose(metrics["kl"], np.mean(kl), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], np.mean(entropy), rtol=1e-4)
    np.testing.assert_allclose(loss(moved, plain, batch, 2.0)[0] - start, 2 * np.mean(kl), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(loss(moved, bonus, batch, 0.0)[0] - start, -0.5 * np.mean(entropy), rtol=1e-3)


def test_learns_the_best_valid_action(params: chex.ArrayTree) -> None:
    batch = dataclasses.replace(make_batch(params), advantage=jnp.zeros(3))
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(p, state):
        grads = gradient(p, CONFIG, batch, 0.0)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(p, updates), state

    state = optimiser.init(params)
    for _ in range(40):
        params, state = step(params, state)
    log_pi = act(params, CONFIG, batch.factors, batch.valid)
    np.testing.assert_array_equal(jnp.argmax(log_pi, axis=1)[:2], [0, 2])


def test_reasons_use_only_what_both_records_say_and_no_more_often(params: chex.ArrayTree) -> None:
    heads = SPECIAL.first_column - TEXT  # a column's head is no fact, though both have it
    ours = jnp.array([[0, 1, 0, 0, 3, heads], [2, 3, 4, heads, 2, 2]])
    theirs = jnp.array([[1, heads, 0, 1, 5, 0], [6, heads, 5, 7, 6, 6]])
    source = actor.reason_source(CONFIG, jnp.array([0, 1]), TEXT + ours, TEXT + theirs)
    said: list[set[int]] = [set(), set()]
    for key in jax.random.split(jax.random.key(1), 20):
        tokens, log_prob = actor.give_reason(params, CONFIG, source, key, 9.0)
        assert np.isfinite(log_prob).all()
        for found, row in zip(said, np.asarray(tokens), strict=True):
            found.update(row.tolist())
            assert (np.bincount(row, minlength=TEXT + 2)[TEXT : TEXT + 2] <= [2, 1]).all()
    assert said[0] == {TEXT, TEXT + 1, SPECIAL.eos, 0}
    assert said[1] == {SPECIAL.eos, 0}  # nothing in common, nothing to say


def test_a_reason_is_as_likely_to_the_loss_as_when_it_was_given(params: chex.ArrayTree) -> None:
    ours = TEXT + jnp.array([[0, 1, 0, 2], [3, 3, 4, 3]])
    source = actor.reason_source(CONFIG, jnp.zeros(2, jnp.int32), ours, ours[:, ::-1])
    for key in jax.random.split(jax.random.key(2), 5):
        tokens, log_prob = actor.give_reason(params, CONFIG, source, key)
        np.testing.assert_allclose(actor._log_reason(params, CONFIG, source, tokens).sum(axis=1), log_prob, rtol=1e-4)


def test_explanation_loss_is_the_mean_over_the_tokens_among_those_allowed(params: chex.ArrayTree) -> None:
    both = TEXT + jnp.array([[0, 1, 1], [3, 4, 5]])
    source = actor.reason_source(CONFIG, jnp.zeros(2, jnp.int32), both, both)
    reason = jnp.array([[TEXT + 1, TEXT, TEXT + 1, SPECIAL.eos, 0], [SPECIAL.eos, 0, 0, 0, 0]])
    value = jax.jit(actor.explanation_loss, static_argnums=1)(params, CONFIG, actor.Reasons(source, reason))
    allowed = np.zeros((2, 5, MODEL.vocab_size), bool)
    allowed[0, :2, TEXT] = allowed[0, :3, TEXT + 1] = True  # the one may be said once, the other twice
    allowed[1, :, TEXT + 3 : TEXT + 6] = allowed[:, :, SPECIAL.eos] = True
    log_prob, _ = transformer.sequence_log_prob(params, MODEL, source, reason, jnp.asarray(allowed))
    np.testing.assert_allclose(value, -np.asarray(log_prob, np.float64).sum() / 5, rtol=1e-5)


def test_reason_tokens_get_the_gradient_of_their_advantage(params: chex.ArrayTree) -> None:
    config = dataclasses.replace(CONFIG, exact_weight=0.0, entropy_weight=0.0, reason_weight=1.0)
    batch = dataclasses.replace(make_batch(params), advantage=jnp.zeros(3))

    @jax.jit
    def log_prob(p: chex.ArrayTree) -> chex.Array:
        return jnp.sum(actor._log_reason(p, CONFIG, batch.reason_source, batch.reason), axis=1)

    before = log_prob(params)
    grads = gradient(params, config, batch, 0.0)
    after = log_prob(jax.tree.map(lambda p, g: p - 0.05 * g, params, grads))
    assert float(after[0] - after[1]) > float(before[0] - before[1])
