from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.kernels import tiles
from aco_jax.kernels import token_log_prob as kernel

SIZES = [(1, 4, 1), (3, 5, 2), (8, 16, 16), (13, 24, 77), (9, 33, 64)]  # tokens, width, vocabulary
FORMS = {
    "reference": kernel.reference,
    "chunked": functools.partial(kernel.chunked, chunk=10),
    "pallas": functools.partial(kernel.pallas, platform="interpret", chunk=16),
    "chosen": kernel.token_log_prob,
}
CARD = functools.partial(kernel.pallas, platform="cuda")  # compiled, on an NVIDIA card


def example(length, width, vocabulary, scale=1.0):
    rng = np.random.default_rng(length + 7 * vocabulary)
    hidden, embedding = rng.normal(size=(length, width)), rng.normal(size=(vocabulary, width))
    tokens = rng.integers(vocabulary, size=length)
    return (
        jnp.asarray(scale * hidden, jnp.float32),
        jnp.asarray(embedding, jnp.float32),
        jnp.asarray(tokens, jnp.int32),
    )


def shapes(length, width, vocabulary):
    return (
        jax.ShapeDtypeStruct((length, width), jnp.float32),
        jax.ShapeDtypeStruct((vocabulary, width), jnp.float32),
        jax.ShapeDtypeStruct((length,), jnp.int32),
    )


def oracle(hidden, embedding, tokens):
    """Float64, one token at a time."""
    hidden, embedding = np.asarray(hidden, np.float64), np.asarray(embedding, np.float64)
    log_prob, entropy = [], []
    for state, token in zip(hidden, tokens, strict=True):
        logits = embedding @ state
        log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        log_prob.append(log_p[token])
        entropy.append(-np.exp(log_p) @ log_p)
    return np.array(log_prob), np.array(entropy)


@pytest.fixture(params=[*FORMS, pytest.param("card", marks=pytest.mark.gpu)])
def form(request):
    return {**FORMS, "card": CARD}[request.param]


@pytest.mark.parametrize("size", SIZES)
def test_values(form, size):
    args = example(*size)
    for found, expected in zip(jax.jit(form)(*args), oracle(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert found.dtype == jnp.float32


def test_by_hand(form):
    # logits log 1, log 2, log 5: the token of weight 2 has probability 1/4
    embedding = jnp.log(jnp.array([[1.0], [2.0], [5.0]]))
    log_prob, entropy = jax.jit(form)(jnp.ones((1, 1)), embedding, jnp.array([1]))
    assert log_prob[0] == pytest.approx(np.log(1 / 4), rel=1e-5)
    p = np.array([1, 2, 5]) / 8
    assert entropy[0] == pytest.approx(-p @ np.log(p), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_flat_and_sharp_distributions(form, scale):
    args = example(6, 16, 40, scale)
    for found, expected in zip(jax.jit(form)(*args), oracle(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def weighted(function):
    def total(hidden, embedding, tokens):
        log_prob, entropy = function(hidden, embedding, tokens)
        weights = np.arange(1.0, 1.0 + len(log_prob))
        return (weights * log_prob + 0.3 * weights[::-1] * entropy).sum()

    return total


@pytest.mark.parametrize("size", [(3, 5, 2), (5, 6, 23)])
def test_gradients(form, size):
    hidden, embedding, tokens = example(*size)
    found = jax.jit(jax.grad(weighted(form), argnums=(0, 1)))(hidden, embedding, tokens)
    step, scored = 1e-6, weighted(oracle)
    for gradient, (at, other) in zip(found, ((0, embedding), (1, hidden)), strict=True):
        x = np.asarray((hidden, embedding)[at], np.float64)
        for index in np.ndindex(x.shape):
            nudge = np.zeros_like(x)
            nudge[index] = step
            up, down = ((x + sign * nudge, other) for sign in (1, -1))
            if at == 1:
                up, down = up[::-1], down[::-1]
            slope = (scored(*up, tokens) - scored(*down, tokens)) / (2 * step)
            assert gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_what_fills_the_last_tile_reaches_no_gradient(form):
    """All logits are -200: a filling logit of 0 would outweigh them by e^200."""
    hidden, embedding, tokens = jnp.full((2, 4), -50.0), jnp.ones((5, 4)), jnp.array([0, 4])
    by_hidden, by_embedding = jax.jit(jax.grad(weighted(form), argnums=(0, 1)))(hidden, embedding, tokens)
    np.testing.assert_allclose(by_hidden, np.zeros((2, 4)), atol=1e-5)
    one_hot = np.array([1.0, 0, 0, 0, 2.0]) - 3 / 5  # weights 1 and 2, each p 1/5; the entropy is at its top
    np.testing.assert_allclose(by_embedding, -50.0 * one_hot[:, None] * np.ones((1, 4)), rtol=1e-4)


def test_vmap_and_scan(form):
    hidden, embedding, tokens = example(7, 8, 30)
    batch = jnp.stack([hidden, -hidden]), embedding, jnp.stack([tokens, tokens[::-1]])
    mapped = jax.jit(jax.vmap(form, in_axes=(0, None, 0)))(*batch)
    _, scanned = jax.lax.scan(lambda carry, x: (carry, form(x[0], embedding, x[1])), 0, (batch[0], batch[2]))
    for row in range(2):
        expected = oracle(batch[0][row], embedding, batch[2][row])
        for part in range(2):
            np.testing.assert_allclose(mapped[part][row], expected[part], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(scanned[part][row], expected[part], rtol=1e-4, atol=1e-5)


def test_half_precision_in_float32_out(form):
    hidden, embedding, tokens = (x.astype(jnp.bfloat16) if x.ndim == 2 else x for x in example(5, 16, 20))
    log_prob, entropy = jax.jit(form)(hidden, embedding, tokens)
    expected = oracle(hidden.astype(jnp.float32), embedding.astype(jnp.float32), tokens)
    np.testing.assert_allclose(log_prob, expected[0], rtol=1e-3, atol=1e-3)
    assert entropy.dtype == jnp.float32
    gradient = jax.jit(jax.grad(lambda x: form(x, embedding, tokens)[0].sum()))(hidden)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["chunked", "pallas", "platform"])
def test_all_logits_never_stand_together(name, largest_array):
    length, width, vocabulary = 2048, 16, 16384
    args = shapes(length, width, vocabulary)
    forms = FORMS | {"platform": kernel.token_log_prob}

    def program(function):
        return jax.make_jaxpr(jax.value_and_grad(weighted(function), argnums=(0, 1)))(*args).jaxpr

    assert largest_array(program(kernel.reference)) >= length * vocabulary
    assert largest_array(program(forms[name])) < length * vocabulary / 4


def test_the_choice_follows_the_number_of_logits(monkeypatch):
    args = example(13, 24, 77)
    small = str(jax.make_jaxpr(lambda *args: kernel.token_log_prob(*args))(*args))
    monkeypatch.setattr(tiles, "FEW_LOGITS", 13 * 77 - 1)
    large = str(jax.make_jaxpr(lambda *args: kernel.token_log_prob(*args))(*args))
    assert "platform_index" not in small
    assert "platform_index" in large
    for found, expected in zip(kernel.token_log_prob(*args), oracle(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_shapes_that_differ_are_refused(form):
    hidden, embedding, tokens = example(4, 8, 10)
    with pytest.raises(AssertionError):
        form(hidden[:, :7], embedding, tokens)
    with pytest.raises(AssertionError):
        form(hidden[:3], embedding, tokens)
