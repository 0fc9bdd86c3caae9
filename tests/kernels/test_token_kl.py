"""KL of two models' tokens against a float64 loop, each form alike."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.kernels import tiles
from aco_jax.kernels import token_kl as kernel

Arrays = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Form = Callable[..., jax.Array]

SIZES = [(1, 4, 3, 1), (3, 5, 5, 2), (8, 16, 8, 16), (13, 24, 17, 77)]  # tokens, width, width of the other, vocabulary
FORMS = {
    "reference": kernel.reference,
    "chunked": functools.partial(kernel.chunked, chunk=10),
    "pallas": functools.partial(kernel.pallas, platform="interpret", chunk=16),
    "chosen": kernel.token_kl,
}
CARD = functools.partial(kernel.pallas, platform="cuda")  # compiled, on an NVIDIA card


def example(length: int, width: int, other: int, vocabulary: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(length + 7 * vocabulary)
    shapes = (length, width), (vocabulary, width), (length, other), (vocabulary, other)
    hidden, embedding, hidden_ref, embedding_ref = (jnp.asarray(rng.normal(size=x), jnp.float32) for x in shapes)
    return scale * hidden, embedding, scale * hidden_ref, embedding_ref


def oracle(*arrays: jax.Array) -> np.ndarray:
    """Float64, one token at a time."""
    hidden, embedding, hidden_ref, embedding_ref = (np.asarray(x, np.float64) for x in arrays)

    def log_p(logits: np.ndarray) -> np.ndarray:
        return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())

    kl = []
    for state, state_ref in zip(hidden, hidden_ref, strict=True):
        ours, theirs = log_p(embedding @ state), log_p(embedding_ref @ state_ref)
        kl.append(np.exp(ours) @ (ours - theirs))
    return np.array(kl)


@pytest.fixture(params=[*FORMS, pytest.param("card", marks=pytest.mark.gpu)])
def form(request: pytest.FixtureRequest) -> Form:
    return {**FORMS, "card": CARD}[request.param]


@pytest.mark.parametrize("size", SIZES)
def test_values(form: Form, size: tuple[int, ...]) -> None:
    arrays = example(*size)
    found = jax.jit(form)(*arrays)
    np.testing.assert_allclose(found, oracle(*arrays), rtol=1e-4, atol=1e-5)
    assert found.dtype == jnp.float32


def test_by_hand(form: Form) -> None:
    # weights 1, 2, 5 against 1, 1, 2
    embedding, other = jnp.log(jnp.array([[1.0], [2.0], [5.0]])), jnp.log(jnp.array([[1.0], [1.0], [2.0]]))
    p, q = np.array([1, 2, 5]) / 8, np.array([1, 1, 2]) / 4
    found = jax.jit(form)(jnp.ones((1, 1)), embedding, jnp.ones((1, 1)), other)
    assert found[0] == pytest.approx(p @ np.log(p / q), rel=1e-5)


def test_of_a_model_and_itself_it_is_nothing(form: Form) -> None:
    hidden, embedding, *_ = example(6, 16, 16, 40)
    np.testing.assert_allclose(jax.jit(form)(hidden, embedding, hidden, embedding), np.zeros(6), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 30.0])
def test_flat_and_sharp_distributions(form: Form, scale: float) -> None:
    arrays = example(6, 16, 12, 40, scale)
    np.testing.assert_allclose(jax.jit(form)(*arrays), oracle(*arrays), rtol=1e-4, atol=1e-4)


def weighted(function: Form) -> Callable[..., jax.Array]:
    def total(*arrays: jax.Array) -> jax.Array:
        kl = function(*arrays)
        return (np.arange(1.0, 1.0 + len(kl)) * kl).sum()

    return total


@pytest.mark.parametrize("size", [(3, 5, 4, 2), (5, 6, 7, 23)])
def test_gradients(form: Form, size: tuple[int, ...]) -> None:
    arrays = example(*size)
    found = jax.jit(jax.grad(weighted(form), argnums=(0, 1)))(*arrays)
    step, scored = 1e-6, weighted(oracle)
    for at, gradient in enumerate(found):
        for index in np.ndindex(gradient.shape):
            nudge = np.zeros(gradient.shape)
            nudge[index] = step
            up, down = (scored(*arrays[:at], np.float64(arrays[at]) + x, *arrays[at + 1 :]) for x in (nudge, -nudge))
            assert gradient[index] == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-4)


def test_the_other_model_is_a_constant(form: Form) -> None:
    for gradient in jax.jit(jax.grad(weighted(form), argnums=(2, 3)))(*example(5, 6, 7, 23)):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_what_fills_the_last_tile_counts_for_nothing(form: Form) -> None:
    """All logits are -200: a filling logit of 0 would outweigh them by e^200."""
    hidden, embedding = jnp.full((2, 4), -50.0), jnp.ones((5, 4))
    arrays = hidden, embedding, hidden, embedding.at[0].set(1.01)
    np.testing.assert_allclose(jax.jit(form)(*arrays), oracle(*arrays), rtol=1e-3)
    by_hidden, by_embedding = jax.jit(jax.grad(weighted(form), argnums=(0, 1)))(*arrays)
    expected = jax.grad(weighted(kernel.reference), argnums=(0, 1))(*arrays)
    np.testing.assert_allclose(by_hidden, expected[0], atol=1e-3)
    np.testing.assert_allclose(by_embedding, expected[1], atol=1e-3)


def test_vmap_and_scan(form: Form) -> None:
    hidden, embedding, hidden_ref, embedding_ref = example(7, 8, 6, 30)
    both, both_ref = jnp.stack([hidden, -hidden]), jnp.stack([hidden_ref, hidden_ref[::-1]])
    mapped = jax.jit(jax.vmap(form, in_axes=(0, None, 0, None)))(both, embedding, both_ref, embedding_ref)
    _, scanned = jax.lax.scan(lambda c, x: (c, form(x[0], embedding, x[1], embedding_ref)), 0, (both, both_ref))
    for row in range(2):
        expected = oracle(both[row], embedding, both_ref[row], embedding_ref)
        np.testing.assert_allclose(mapped[row], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scanned[row], expected, rtol=1e-4, atol=1e-5)


def test_half_precision_in_float32_out(form: Form) -> None:
    arrays = [x.astype(jnp.bfloat16) for x in example(5, 16, 8, 20)]
    found = jax.jit(form)(*arrays)
    np.testing.assert_allclose(found, oracle(*(x.astype(jnp.float32) for x in arrays)), rtol=1e-3, atol=1e-3)
    assert found.dtype == jnp.float32
    assert jax.jit(jax.grad(lambda *a: form(*a).sum()))(*arrays).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["chunked", "pallas", "chosen"])
def test_all_logits_never_stand_together(name: str, largest_array: Callable[..., int]) -> None:
    length, width, vocabulary = 2048, 16, 16384
    shapes = (length, width), (vocabulary, width)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (*shapes, *shapes)]

    def size_of(function: Form) -> int:
        return largest_array(jax.make_jaxpr(jax.value_and_grad(weighted(function), argnums=(0, 1)))(*arrays).jaxpr)

    assert size_of(kernel.reference) >= length * vocabulary
    assert size_of(FORMS[name]) < length * vocabulary / 4


def test_the_choice_follows_the_number_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = example(13, 24, 17, 77)
    small = str(jax.make_jaxpr(lambda *args: kernel.token_kl(*args))(*arrays))
    monkeypatch.setattr(tiles, "FEW_LOGITS", 13 * 77 - 1)
    large = str(jax.make_jaxpr(lambda *args: kernel.token_kl(*args))(*arrays))
    assert "platform_index" not in small
    assert "platform_index" in large
    np.testing.assert_allclose(kernel.token_kl(*arrays), oracle(*arrays), rtol=1e-4, atol=1e-5)


def test_shapes_that_differ_are_refused(form: Form) -> None:
    hidden, embedding, hidden_ref, embedding_ref = example(4, 8, 6, 10)
    for wrong in (
        (hidden[:, :7], embedding, hidden_ref, embedding_ref),
        (hidden, embedding, hidden_ref[:3], embedding_ref),
        (hidden, embedding, hidden_ref, embedding_ref[:9]),
        (hidden, embedding, hidden_ref[:, :5], embedding_ref),
    ):
        with pytest.raises(AssertionError):
            form(*wrong)
