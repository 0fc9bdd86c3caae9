"""Counts against a Python loop, each kernel against the reference."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from aco_jax.kernels import transition_counts as kernel

PLATFORMS = ("tpu", "cuda")
FORMS: dict[str, Callable[..., jax.Array]] = {
    "reference": kernel.reference,
    "chosen": kernel.add,
    **{name: functools.partial(kernel.pallas, platform=name, interpret=True) for name in PLATFORMS},
}
CARD = functools.partial(kernel.pallas, platform="cuda")  # compiled, on an NVIDIA card
SIZES = [(1, 1, 4), (3, 2, 1), (7, 3, 40), (20, 9, 33)]  # states, actions, triples
Triples = tuple[np.ndarray, ...]


def example(states: int, actions: int, triples: int) -> tuple[jax.Array, Triples]:
    """Counts that are not zero, and triples of which many repeat."""
    rng = np.random.default_rng(states + triples)
    counts = rng.integers(0, 5, (states, actions, states))
    few = min(states, 3)
    columns = rng.integers(0, few, triples), rng.integers(0, actions, triples), rng.integers(0, few, triples)
    return jnp.asarray(counts, jnp.int32), (*columns, rng.random(triples) < 0.7)


def counted(counts: jax.Array, s_tm1: np.ndarray, a_tm1: np.ndarray, s_t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.array(counts)
    for i in np.flatnonzero(mask):
        out[s_tm1[i], a_tm1[i], s_t[i]] += 1
    return out


@pytest.fixture(params=[*FORMS, pytest.param("card", marks=pytest.mark.gpu)])
def form(request: pytest.FixtureRequest) -> Callable[..., jax.Array]:
    return jax.jit({**FORMS, "card": CARD}[request.param])


@pytest.mark.parametrize("size", SIZES)
def test_counts_are_those_of_a_loop(form: Callable[..., jax.Array], size: tuple[int, int, int]) -> None:
    counts, triples = example(*size)
    found = form(counts, *triples)
    np.testing.assert_array_equal(found, counted(counts, *triples))
    assert found.dtype == jnp.int32


def test_a_triple_given_often_counts_as_often_wherever_it_stands(form: Callable[..., jax.Array]) -> None:
    s_tm1, a_tm1, s_t = np.array([5, 0, 5, 17, 5]), np.array([1, 0, 1, 1, 1]), np.array([2, 0, 2, 2, 2])
    found = np.asarray(form(jnp.zeros((20, 2, 20), jnp.int32), s_tm1, a_tm1, s_t, np.arange(5) != 4))
    assert (found[5, 1, 2], found[0, 0, 0], found[17, 1, 2], found.sum()) == (2, 1, 1, 4)


@pytest.mark.parametrize("most", [kernel.MOST_TRIPLES, 20])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_mapped_kernels_agree_with_the_mapped_reference(
    platform: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all replicas' triples together are too many for the kernel, and where the mask is shared."""
    monkeypatch.setattr(kernel, "MOST_TRIPLES", most)
    counts, (s_tm1, a_tm1, s_t, mask) = example(9, 2, 13)
    batch = jnp.stack([counts, counts + 1]), *(np.stack([x, x[::-1]]) for x in (s_tm1, a_tm1, s_t)), mask
    axes = (0, 0, 0, 0, None)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(FORMS[platform], axes))(*batch), jax.vmap(kernel.reference, axes)(*batch)
    )


def test_a_piece_is_fetched_before_anything_is_added_to_it() -> None:
    """As Pallas simulates a TPU's memory; plain interpretation finds the piece there already."""
    counts, triples = example(8, 3, 40)
    found = kernel.pallas(counts, *triples, platform="tpu", interpret=pltpu.InterpretParams())
    np.testing.assert_array_equal(found, counted(counts, *triples))


def test_impossible_shapes_and_types_are_refused(form: Callable[..., jax.Array]) -> None:
    counts, triples = example(3, 2, 5)
    with pytest.raises(AssertionError):
        form(counts[:2], *triples)
    with pytest.raises(AssertionError):
        form(counts.astype(jnp.float32), *triples)
    with pytest.raises(AssertionError):
        form(counts, triples[0][:3], *triples[1:])
