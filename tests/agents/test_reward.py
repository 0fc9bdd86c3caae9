"""The reward model: its loss against hand-made scores, its invariances, and that it learns."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.agents import reward
from aco_jax.models import transformer
from aco_jax.types import Params, Preference

MODEL = transformer.Config(
    vocab_size=40,
    width=16,
    heads=2,
    encoder_layers=0,
    decoder_layers=1,
    mlp_width=32,
    max_length=12,
    copy=False,
)
CONFIG = reward.Config(model=MODEL, evidence_size=3, evidence_width=8)
B, K, T = 4, 3, 10
compiled = functools.partial(jax.jit, static_argnames="config")
init, loss, hollow_loss, language_loss = map(
    compiled, (reward.init, reward.loss, reward.hollow_loss, reward.language_loss)
)
score, member_scores, text_value = map(compiled, (reward.score, reward.member_scores, reward.text_value))
last_hidden, decode = map(compiled, (reward._last_hidden, transformer.decode))


def make_batch(seed: int = 0) -> Preference:
    """Candidate 0 is right: its first evidence item is 1 and its text repeats token 7."""
    rng = np.random.default_rng(seed)
    response = rng.integers(8, 40, (B, K + 1, T))
    response[:, 0, 4:8] = 7
    response[..., 8:] = 0
    evidence = rng.normal(size=(B, K, 3))
    evidence[:, :, 0] = [1, 0, 0]
    pairs = np.array([(0, 1), (0, 2), (0, 3), (3, 1), (3, 2)])
    return Preference(
        response=jnp.asarray(response, jnp.int32),
        evidence=jnp.asarray(evidence, jnp.float32),
        rules=jnp.zeros((B, K, 1)),
        chosen=jnp.broadcast_to(jnp.asarray(pairs[:, 0]), (B, 5)),
        rejected=jnp.broadcast_to(jnp.asarray(pairs[:, 1]), (B, 5)),
        weight=jnp.ones((B, 5)),
    )


@pytest.fixture(scope="module")
def params() -> chex.ArrayTree:
    return init(jax.random.key(0), CONFIG)


def one(batch: Preference, index: int = 0) -> Preference:
    return jax.tree.map(lambda x: x[index], batch)


def test_constant_added_to_a_head_changes_no_reward(params: chex.ArrayTree) -> None:
    """A head is linear: the constant enters by a direction along which all responses lie equally far."""
    batch, scale = one(make_batch()), jnp.ones(CONFIG.members)
    hidden = np.float64(last_hidden(params, CONFIG, batch.response))
    direction = np.linalg.lstsq(hidden, np.full(K + 1, 3.0), rcond=None)[0]
    np.testing.assert_allclose(hidden @ direction, 3.0, rtol=1e-5)
    heads = params["heads"].at[:, : CONFIG.text_heads].add(jnp.asarray(direction, jnp.float32)[:, None])
    shifted = params | {"heads": heads}
    text, moved = (reward._text_scores(p, CONFIG, jnp.float32(hidden), None)[0] for p in (params, shifted))
    np.testing.assert_allclose(moved - text, 3.0, atol=1e-3)
    before, after = (member_scores(p, CONFIG, batch, None) for p in (params, shifted))
    assert before.shape == (CONFIG.members, K)
    assert (np.std(before[-CONFIG.text_heads :], axis=1) > 0.01).all()  # every text head tells responses apart
    np.testing.assert_allclose(before[-CONFIG.text_heads :], text[:, :-1] - text[:, -1:], atol=1e-5)
    np.testing.assert_allclose(after, before, atol=1e-3)
    rewards = [score(p, CONFIG, batch, scale, None)[0] for p in (params, shifted)]
    assert rewards[0].shape == (K, 1)
    np.testing.assert_allclose(rewards[1], rewards[0], atol=1e-3)


def test_the_trunk_is_held_back_by_its_kl_to_the_start(params: chex.ArrayTree) -> None:
    """In float64, token by token of the first responses; the trunk has moved."""
    moved = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(p.size), p.shape), params["trunk"])
    batch, given = make_batch(), params | {"trunk": moved}
    tokens = batch.response[:, 0]
    now, start = (
        np.float64(jax.jit(transformer.log_probs, static_argnums=1)(given[name], MODEL, tokens))
        for name in ("trunk", "start")
    )
    each = (np.exp(now) * (now - start)).sum(axis=-1)
    expected = np.mean([row[: np.count_nonzero(said)].mean() for row, said in zip(each, tokens, strict=True)])
    free, held = (dataclasses.replace(CONFIG, kl_weight=weight) for weight in (0.0, 0.7))
    value, metrics = loss(given, free, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics["kl"], expected, rtol=1e-3)
    assert expected > 0.01
    np.testing.assert_allclose(loss(given, held, batch, jax.random.key(1))[0] - value, 0.7 * expected, rtol=1e-3)


def test_padding_changes_nothing(params: chex.ArrayTree) -> None:
    batch = make_batch()
    longer = dataclasses.replace(batch, response=jnp.pad(batch.response, ((0, 0), (0, 0), (0, 2))))
    first, _ = loss(params, CONFIG, batch, jax.random.key(1))
    second, _ = loss(params, CONFIG, longer, jax.random.key(1))
    np.testing.assert_allclose(first, second, rtol=1e-5)


END = 2


@pytest.mark.parametrize("ends", [0, 1, 3])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_text_is_read_at_its_last_token_wherever_it_stands(params: chex.ArrayTree, ends: int, side: str) -> None:
    """Padding on any side, rows of several lengths, ends that are repeated: as each alone, by hand."""
    rng = np.random.default_rng(1)
    rows = [[*rng.integers(8, 40, size=n).tolist(), *[END] * ends] for n in (1, 6, 3, 6)]
    room = [T + 2 - len(row) for row in rows]
    left = [{"left": n, "right": 0, "both": n // 2}[side] for n in room]
    padded = jnp.array([[0] * at + row + [0] * (n - at) for at, row, n in zip(left, rows, room, strict=True)])
    expected = []
    for row in rows:
        states = np.float64(decode(params["trunk"], MODEL, jnp.array([row]))[0])
        expected.append((states[-1] @ np.float64(params["heads"])[:, : CONFIG.text_heads]).mean())
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(text_value(params, CONFIG, padded), expected, atol=1e-5)
    np.testing.assert_allclose(text_value(params, CONFIG, padded[2:3])[0], expected[2], atol=1e-5)


@pytest.mark.parametrize("ends", [0, 2])
def test_the_loss_of_texts_padded_on_the_left_is_the_same(params: chex.ArrayTree, ends: int) -> None:
    batch = make_batch()
    right = batch.replace(response=batch.response.at[..., 8 : 8 + ends].set(END))
    left = right.replace(response=jnp.roll(right.response, T - 8 - ends, axis=-1))
    values = [loss(params, CONFIG, given, jax.random.key(1))[0] for given in (right, left)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_masked_pairs_change_nothing(params: chex.ArrayTree) -> None:
    batch = make_batch()
    some = dataclasses.replace(batch, weight=batch.weight.at[:, 3:].set(0))
    other = dataclasses.replace(some, chosen=some.chosen.at[:, 3:].set(1))
    np.testing.assert_allclose(
        loss(params, CONFIG, some, jax.random.key(1))[0],
        loss(params, CONFIG, other, jax.random.key(1))[0],
        rtol=1e-6,
    )


def test_bradley_terry_of_the_evidence_heads_in_float64(params: chex.ArrayTree) -> None:
    """With one evidence head and dead text heads the loss is the mean of -log sigmoid(r_a - r_b)."""
    config = dataclasses.replace(
        CONFIG, evidence_heads=1, scalar_heads=1, dropout_heads=0, gaussian_heads=0, kl_weight=0.0
    )
    start = init(jax.random.key(2), config)
    start = start | {"heads": jnp.zeros_like(start["heads"])}
    batch = make_batch()
    value, _ = loss(start, config, batch, jax.random.key(0))
    scores = np.asarray(jax.vmap(lambda b: reward._table_scores(start, config, b))(batch), np.float64)[:, 1]
    scores = np.concatenate([scores, np.zeros((B, 1))], axis=1)
    margins = [
        s[c] - s[r]
        for s, chosen, rejected in zip(scores, batch.chosen, batch.rejected, strict=True)
        for c, r in zip(chosen, rejected, strict=True)
    ]
    expected = (np.mean([np.log1p(np.exp(-m)) for m in margins]) + np.log(2)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_margins_soft_labels_and_centring_are_their_formulas(params: chex.ArrayTree) -> None:
    """Without Gaussian heads; the deterministic members of one loss against NumPy in float64."""
    plain = dataclasses.replace(CONFIG, dropout_heads=0, gaussian_heads=0, kl_weight=0.0)
    config = dataclasses.replace(plain, label_smoothing=0.2, margin=0.3, centring=0.05)
    start = init(jax.random.key(4), config)
    batch = make_batch()
    value, _ = loss(start, config, batch, jax.random.key(0))
    assert value != loss(start, plain, batch, jax.random.key(0))[0]
    table = np.asarray(jax.vmap(lambda b: reward._table_scores(start, config, b))(batch), np.float64)[:, 1:]
    hidden = last_hidden(start, config, batch.response)
    text = np.asarray(jax.vmap(lambda h: reward._text_scores(start, config, h, None)[0])(hidden), np.float64)
    losses, offsets = [], []
    for b in range(B):
        for c, r in zip(batch.chosen[b], batch.rejected[b], strict=True):
            for scores in (*np.pad(table[b], ((0, 0), (0, 1))), *text[b]):
                ahead = scores[c] - scores[r] - 0.3
                losses.append(0.8 * np.log1p(np.exp(-ahead)) + 0.2 * np.log1p(np.exp(ahead)))
            offsets += [(scores[c] + scores[r]) ** 2 for scores in text[b]]
    np.testing.assert_allclose(value, np.mean(losses) + 0.05 * np.mean(offsets), rtol=1e-5)


def test_start_gets_no_gradient_and_drift_is_zero_there(params: chex.ArrayTree) -> None:
    batch = make_batch()
    grads = jax.jit(jax.grad(lambda p: loss(p, CONFIG, batch, jax.random.key(0))[0]))(params)
    assert all(float(jnp.max(jnp.abs(g))) == 0 for g in jax.tree.leaves(grads["start"]))
    assert any(float(jnp.max(jnp.abs(g))) > 0 for g in jax.tree.leaves(grads["trunk"]))

    def drift(tree: Params) -> float:
        tokens = batch.response[:, 0]
        return float(reward.drift(tree, CONFIG, decode(tree["trunk"], CONFIG.model, tokens), tokens))

    assert drift(params) == pytest.approx(0, abs=1e-6)
    moved = params | {"trunk": jax.tree.map(lambda x: x * 1.1, params["trunk"])}
    assert drift(moved) > 1e-4
    restarted = reward.restart(moved)
    assert drift(restarted) == pytest.approx(0, abs=1e-6)


def test_stochastic_members_vary_with_the_key_and_deterministic_ones_do_not(params: chex.ArrayTree) -> None:
    batch = one(make_batch())
    first = member_scores(params, CONFIG, batch, jax.random.key(1))
    second = member_scores(params, CONFIG, batch, jax.random.key(2))
    same = np.isclose(first, second).all(axis=1)
    fixed = 1 + CONFIG.evidence_heads + CONFIG.scalar_heads
    assert same[:fixed].all()
    assert not same[fixed:].any()


def test_learns_the_preferences_from_text_and_from_evidence(params: chex.ArrayTree) -> None:
    optimiser = optax.adam(1e-2)
    batch = make_batch()

    @jax.jit
    def step(params, state, key):
        (_, metrics), grads = jax.value_and_grad(reward.loss, has_aux=True)(params, CONFIG, batch, key)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, metrics

    state = optimiser.init(params)
    for key in jax.random.split(jax.random.key(3), 60):
        params, state, metrics = step(params, state, key)
    assert float(metrics["accuracy"]) == 1
    assert float(metrics["text_accuracy"]) > 0.9
    value, spread = score(params, CONFIG, one(batch), jnp.ones(CONFIG.members), None)
    assert float(value[0, 0]) > 0 > float(value[1, 0])
    assert spread.shape == (K, 1)


def make_hollow(seed: int) -> reward.Hollow:
    """Responses of 5 tokens, and the same with 1 to 3 of token 9 at their end; the last of no account."""
    rng = np.random.default_rng(seed)
    plain = np.where(np.arange(T) < 5, rng.integers(10, 40, (B, T)), 0)
    added = (np.arange(T) >= 5) & (np.arange(T) < 5 + rng.integers(1, 4, (B, 1)))
    return reward.Hollow(
        plain=jnp.asarray(plain, jnp.int32),
        hollow=jnp.asarray(np.where(added, 9, plain), jnp.int32),
        mask=jnp.arange(B) < B - 1,
    )


def test_the_loss_of_hollow_responses_is_its_formula(params: chex.ArrayTree) -> None:
    config = dataclasses.replace(
        CONFIG, dropout_heads=0, gaussian_heads=0, scalar_heads=2, hollow_weight=0.3, hollow_label=0.7
    )
    start, batch = init(jax.random.key(4), config), make_hollow(0)
    found, margin = hollow_loss(start, config, batch, jax.random.key(0))
    scores = [
        np.asarray(reward._text_scores(start, config, last_hidden(start, config, x), None)[0], np.float64)
        for x in (batch.plain, batch.hollow)
    ]
    ahead = (scores[0] - scores[1])[:, : B - 1]
    wanted = np.mean(0.7 * np.log1p(np.exp(-ahead)) + 0.3 * np.log1p(np.exp(ahead)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(margin, ahead.mean(), rtol=1e-4)
    whole, metrics = loss(start, config, make_batch(), jax.random.key(0), batch)
    without, _ = loss(start, config, make_batch(), jax.random.key(0))
    np.testing.assert_allclose(whole, without + 0.3 * found, rtol=1e-5)
    assert metrics["hollow_margin"] == margin


def test_learns_that_hollow_responses_are_worse_and_the_evidence_heads_do_not_notice(params: chex.ArrayTree) -> None:
    optimiser = optax.adam(1e-2)
    grad = jax.jit(jax.grad(lambda p, batch, key: hollow_loss(p, CONFIG, batch, key)[0]))
    state, moved = optimiser.init(params), params
    for seed, key in enumerate(jax.random.split(jax.random.key(3), 40)):
        grads = grad(moved, make_hollow(seed), key)
        assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves((grads["evidence"], grads["start"])))
        updates, state = optimiser.update(grads, state)
        moved = optax.apply_updates(moved, updates)
    fresh = make_hollow(1000)
    ahead = text_value(moved, CONFIG, fresh.plain) - text_value(moved, CONFIG, fresh.hollow)
    assert float(ahead.min()) > 0


def test_scale_is_the_running_root_mean_square() -> None:
    scores = jnp.stack([jnp.full((2, 3), 2.0), jnp.full((2, 3), 4.0)], axis=1)
    mask = jnp.array([[1, 1, 0], [1, 0, 0]], bool)
    scale = reward.update_scale(jnp.ones(2), scores, mask, 0.5)
    np.testing.assert_allclose(scale, np.sqrt([0.5 * 1 + 0.5 * 4, 0.5 * 1 + 0.5 * 16]), rtol=1e-6)


def test_language_loss_of_a_uniform_model(params: chex.ArrayTree) -> None:
    flat = params | {"trunk": params["trunk"] | {"embedding": jnp.zeros_like(params["trunk"]["embedding"])}}
    value, _ = language_loss(flat, CONFIG, make_batch().response[:, 0])
    np.testing.assert_allclose(value, np.log(MODEL.vocab_size), rtol=1e-5)


@pytest.mark.parametrize("combination", [*reward.COMBINATIONS, "scalar", "dropout"])
def test_members_are_combined_as_configured(params: chex.ArrayTree, combination: str) -> None:
    config = dataclasses.replace(CONFIG, combination=combination, spread_coefficient=0.3)
    batch, scale = one(make_batch()), jnp.arange(1.0, 1 + CONFIG.members)
    value, spread = score(params, config, batch, scale, None)
    scaled = np.asarray(member_scores(params, config, batch, None), np.float64) / np.asarray(scale)[:, None]
    expected = {
        "mean": scaled.mean(axis=0),
        "worst_case": scaled.min(axis=0),
        "uncertainty_weighted": scaled.mean(axis=0) - 0.3 * scaled.var(axis=0),
        "scalar": scaled[3],
        "dropout": scaled[4:6].mean(axis=0),
    }[combination]
    taken = {"scalar": scaled[3:4], "dropout": scaled[4:6]}.get(combination, scaled)
    np.testing.assert_allclose(value[:, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(spread[:, 0], taken.std(axis=0), rtol=1e-4)


def test_every_member_is_of_one_kind() -> None:
    kinds = CONFIG.kinds
    assert tuple(kinds) == reward.KINDS
    assert [i for which in kinds.values() for i in range(CONFIG.members)[which]] == list(range(CONFIG.members))
    assert CONFIG.kinds["dropout"] == slice(4, 6)


def test_margins_are_what_the_loss_is_of(params: chex.ArrayTree) -> None:
    """Without dropout, the mean of -log sigmoid(margin) over pairs and learned members, in float64."""
    config = dataclasses.replace(CONFIG, dropout_heads=0, gaussian_heads=2, kl_weight=0.0)
    start, batch = init(jax.random.key(5), config), make_batch()
    value, _ = loss(start, config, batch, jax.random.key(0))
    margins = np.asarray(jax.vmap(lambda b: reward.margins(start, config, b))(batch), np.float64)
    assert margins.shape == (B, config.members, 5)
    np.testing.assert_allclose(value, np.logaddexp(0, -margins[:, 1:]).mean(), rtol=1e-5)
    scores = np.asarray(member_scores(start, config, one(batch), None))
    np.testing.assert_allclose(margins[0, 3, 2], scores[3, 0], rtol=1e-4)  # candidate 0 over NULL, the scalar head
