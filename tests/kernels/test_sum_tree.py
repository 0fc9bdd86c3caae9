"""The sum tree against a Python loop, each kernel against the reference, and what must never happen to a sum tree."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.kernels import sum_tree as kernel

PLATFORMS = ("tpu", "cuda")
UPDATES: dict[str, Callable[..., jax.Array]] = {
    "reference": kernel.reference_update,
    "chosen": kernel.update,
    **{name: functools.partial(kernel.pallas_update, platform=name, interpret=True) for name in PLATFORMS},
}
DESCENTS: dict[str, Callable[..., jax.Array]] = {
    "reference": kernel.reference_descend,
    "chosen": kernel.descend,
    **{name: functools.partial(kernel.pallas_descend, platform=name, interpret=True) for name in PLATFORMS},
}
ON_CARD = pytest.param("card", marks=pytest.mark.gpu)  # compiled, on an NVIDIA card
SIZES = [(2, 1), (8, 5), (32, 37)]  # leaves, entries; 37 entries fill no block

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def grown(leaves: np.ndarray) -> jax.Array:
    """The tree of these leaves, in float32 sums."""
    tree = np.zeros(2 * len(leaves), np.float32)
    tree[len(leaves) :] = leaves
    for node in range(len(leaves) - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
    return jnp.asarray(tree)


def example(leaves: int, entries: int) -> tuple[jax.Array, Entries]:
    """A tree with empty leaves, and entries with repeated slots, nothing at some."""
    rng = np.random.default_rng(leaves + entries)
    tree = grown(rng.lognormal(0, 3, leaves) * (rng.random(leaves) < 0.7))
    value = rng.lognormal(0, 3, entries) * (rng.random(entries) < 0.8)
    return tree, (rng.integers(0, leaves, entries), value.astype(np.float32), rng.random(entries) < 0.7)


def updated(tree: jax.Array, slot: np.ndarray, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One slot after the other; the sums are float32, as the tree's own."""
    out = np.array(tree)
    for j in set(slot[mask]):
        node = len(out) // 2 + j
        out[node] = value[mask & (slot == j)].max()
        while node > 1:
            node //= 2
            out[node] = out[2 * node] + out[2 * node + 1]
    return out


@pytest.fixture(params=[*UPDATES, ON_CARD])
def update(request: pytest.FixtureRequest) -> Callable[..., jax.Array]:
    card = functools.partial(kernel.pallas_update, platform="cuda")
    return jax.jit({**UPDATES, "card": card}[request.param])


@pytest.fixture(params=[*DESCENTS, ON_CARD])
def descend(request: pytest.FixtureRequest) -> Callable[..., jax.Array]:
    card = functools.partial(kernel.pallas_descend, platform="cuda")
    return jax.jit({**DESCENTS, "card": card}[request.param])


@pytest.mark.parametrize("size", SIZES)
def test_update_is_that_of_a_loop(update: Callable[..., jax.Array], size: tuple[int, int]) -> None:
    tree, entries = example(*size)
    np.testing.assert_array_equal(update(tree, *entries), updated(tree, *entries))


@pytest.mark.parametrize("size", SIZES)
def test_descent_finds_the_slot_of_the_cumulated_mass(descend: Callable[..., jax.Array], size: tuple[int, int]) -> None:
    """Whole numbers, whose float32 sums are exact."""
    leaves, draws = size
    rng = np.random.default_rng(leaves)
    value = rng.integers(0, 4, leaves)
    value[-1] = 1
    mass = rng.integers(0, value.sum(), draws) + 0.5
    expected = np.searchsorted(np.cumsum(value), mass, side="right")
    found = descend(grown(value), jnp.asarray(mass, jnp.float32), jnp.zeros(draws))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32


def test_below_twelve_levels_the_second_draw_decides(descend: Callable[..., jax.Array]) -> None:
    """Slots of priorities 1, 0, 2, 1 below each of 4096 nodes: the mass finds the node, the draw the slot."""
    tree = grown(np.tile([1.0, 0.0, 2.0, 1.0], 4096))
    node = np.array([0, 7, 2048, 4095, 4095])
    fine = jnp.array([0.2, 0.3, 0.74, 0.76, 0.0])
    mass = jnp.asarray(4 * node + 3.5, jnp.float32)  # by itself the last slot of each node
    np.testing.assert_array_equal(descend(tree, mass, fine), 4 * node + np.array([0, 2, 2, 3, 0]))


def test_an_empty_child_is_never_entered(descend: Callable[..., jax.Array]) -> None:
    """Not even where rounding leaves more mass than the subtree has, or the mass is the whole tree's."""
    for seed in range(3):
        tree, _ = example(32, seed)
        mass = np.concatenate([np.linspace(0, 1, 37), np.array([1 - 1e-7, 1 + 1e-6, 2.0])]) * float(tree[1])
        slots = np.asarray(descend(tree, jnp.asarray(mass, jnp.float32), jnp.zeros(len(mass))))
        assert (np.asarray(tree)[32 + slots] > 0).all()


def test_after_the_priorities_have_shrunk_every_slot_is_reachable(
    update: Callable[..., jax.Array], descend: Callable[..., jax.Array]
) -> None:
    """From lognormal(0, 3) to 0.001: a tree that adds differences keeps the rounding of the large sums for ever."""
    rng = np.random.default_rng(0)
    tree, leaves = grown(rng.lognormal(0, 3, 32)), np.arange(32)
    for start in range(0, 32, 8):
        tree = update(tree, leaves[start : start + 8], np.full(8, 1e-3, np.float32), np.ones(8, bool))
    np.testing.assert_array_equal(tree, grown(np.full(32, 1e-3, np.float32)))
    strata = (np.arange(64) + 0.5) / 64
    slots = descend(tree, jnp.asarray(strata, jnp.float32) * tree[1], jnp.zeros(64))
    assert set(np.asarray(slots).tolist()) == set(range(32))


def test_a_masked_entry_changes_nothing(update: Callable[..., jax.Array]) -> None:
    tree, (slot, value, _) = example(8, 5)
    beyond = np.where(np.arange(5) % 2 == 0, 8, slot)  # as a ring names the slot of what it does not store
    np.testing.assert_array_equal(update(tree, beyond, value, np.zeros(5, bool)), tree)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mapped_kernels_agree_with_the_mapped_reference(platform: str) -> None:
    trees, entries = zip(*(example(16, n) for n in (11, 11)), strict=True)
    entries = [np.stack([x, y[::-1]]) for x, y in zip(*entries, strict=True)]
    forest = jnp.stack([trees[0], trees[1] * 2])
    interpreted = jax.jit(jax.vmap(UPDATES[platform]))(forest, *entries)
    np.testing.assert_array_equal(interpreted, jax.vmap(kernel.reference_update)(forest, *entries))
    mass = jnp.linspace(0, 0.99, 14).reshape(2, 7) * forest[:, 1:2]
    draws = forest, mass, jnp.zeros(mass.shape)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(DESCENTS[platform]))(*draws), jax.vmap(kernel.reference_descend)(*draws)
    )


def test_the_choice_follows_the_sizes() -> None:
    def kernels(numbers: int, entries: int) -> list[int]:
        shapes = [jax.ShapeDtypeStruct((entries,), dtype) for dtype in (jnp.int32, jnp.float32, jnp.bool_)]
        tree = jax.ShapeDtypeStruct((numbers,), jnp.float32)
        programs = jax.make_jaxpr(kernel.update)(tree, *shapes), jax.make_jaxpr(kernel.descend)(tree, *[shapes[1]] * 2)
        return [str(program).count("pallas_call[") for program in programs]

    assert kernels(kernel.LARGEST_TREE, kernel.MOST_SLOTS) == [2, 2]
    assert kernels(2 * kernel.LARGEST_TREE, kernel.MOST_SLOTS) == [1, 1]
    assert kernels(kernel.LARGEST_TREE, kernel.MOST_SLOTS + 1) == [0, 0]


def test_impossible_shapes_are_refused(update: Callable[..., jax.Array]) -> None:
    tree, entries = example(8, 5)
    with pytest.raises(ValueError, match="a tree of 12 numbers"):
        update(tree[:12], *entries)
    with pytest.raises(AssertionError):
        update(tree, entries[0][:3], *entries[1:])
