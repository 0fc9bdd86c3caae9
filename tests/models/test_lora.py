"""Low-rank adapters: fresh ones change nothing, merged equals apart, only they get a gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import lora, transformer

CONFIG = transformer.Config(vocab_size=24, width=16, heads=2, encoder_layers=1, mlp_width=32, max_length=8)
SOURCE, TARGET = jnp.array([[5, 6, 7]]), jnp.array([[6, 7, 2]])


@pytest.fixture(scope="module")
def params():
    return transformer.init(jax.random.key(0), CONFIG)


@jax.jit
def log_prob(params):
    return transformer.sequence_log_prob(params, CONFIG, SOURCE, TARGET)[0]


def filled(adapters):
    return jax.tree.map(lambda x: x + 0.1, adapters)


def test_fresh_adapters_change_nothing(params):
    adapters = lora.init(jax.random.key(1), params, rank=2)
    np.testing.assert_array_equal(log_prob(lora.merge(params, adapters)), log_prob(params))


def test_merged_equals_apart():
    rng = np.random.default_rng(0)
    x, kernel, down, up = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 4), (4, 3), (4, 2), (2, 3))
    )
    adapter = {"low_in": down, "low_out": up}
    merged = lora.merge({"layer": {"kernel": kernel}}, {"layer": adapter}, scale=0.5)["layer"]["kernel"]
    expected = np.float64(x) @ (np.float64(kernel) + 0.5 * np.float64(down) @ np.float64(up))
    np.testing.assert_allclose(lora.apply(x, kernel, adapter, 0.5), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x @ merged, expected, rtol=1e-4, atol=1e-5)


def test_only_chosen_kernels_change(params):
    adapters = filled(lora.init(jax.random.key(1), params, 2, lambda path: path.endswith("own/query")))
    assert set(adapters) == {"encoder_0", "decoder_0", "decoder_1"}
    merged = lora.merge(params, adapters)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, merged)
    assert changed["encoder_0"]["own"]["query"]["kernel"]
    assert sum(jax.tree.leaves(changed)) == 3
    assert jax.tree.structure(merged) == jax.tree.structure(params)


def test_a_kernel_of_three_axes():
    params = {"conv": {"kernel": jnp.zeros((2, 3, 5)), "bias": jnp.zeros(5)}}
    adapters = lora.init(jax.random.key(0), params, rank=4)
    assert adapters["conv"]["low_in"].shape == (6, 4)
    merged = lora.merge(params, filled(adapters))
    assert merged["conv"]["kernel"].shape == (2, 3, 5)
    np.testing.assert_array_equal(merged["conv"]["bias"], 0)


def test_every_adapter_gets_a_gradient(params):
    adapters = filled(lora.init(jax.random.key(1), params, rank=1))
    grads = jax.jit(jax.grad(lambda a: jnp.sum(log_prob(lora.merge(params, a)))))(adapters)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_rank_must_be_positive(params):
    with pytest.raises(ValueError, match="rank 0"):
        lora.init(jax.random.key(0), params, rank=0)
