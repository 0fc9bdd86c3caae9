"""Weights in int8: bounded error, small, and the network still says nearly the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.models import quantization, transformer


def test_error_is_at_most_half_a_step_of_the_output_channel():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 3)) * [0.01, 1.0, 100.0]
    embedding = rng.normal(size=(4, 6)) * [[0.1], [1.0], [10.0], [0.0]]
    tree = {"a": {"kernel": jnp.asarray(kernel, jnp.float32)}, "embedding": jnp.asarray(embedding, jnp.float32)}
    back = quantization.dequantize(quantization.quantize(tree))
    half = np.abs(kernel).max(axis=0) / 127 / 2
    assert (np.abs(back["a"]["kernel"] - kernel) <= half * 1.001).all()
    half = np.abs(embedding).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(back["embedding"] - embedding) <= half * 1.001).all()
    np.testing.assert_array_equal(back["embedding"][3], 0)


def test_a_hand_sized_kernel():
    small = quantization.quantize({"kernel": jnp.array([[1.27, -2.54], [-0.5, 0.02]])})["kernel"]
    np.testing.assert_array_equal(small["int8"], [[127, -127], [-50, 1]])
    np.testing.assert_allclose(small["scale"], [[0.01, 0.02]], rtol=1e-6)


def test_vectors_and_other_tables_are_kept():
    tree = {"norm": {"scale": jnp.ones(3)}, "position": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    found = quantization.quantize(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert quantization.dequantize(tree) == tree


def test_a_network_in_int8_is_smaller_and_says_nearly_the_same():
    config = transformer.Config(vocab_size=64, width=32, heads=2, encoder_layers=1, mlp_width=64, max_length=8)
    params = transformer.init(jax.random.key(0), config)
    small = quantization.quantize(params)
    assert quantization.bytes_of(small) < 0.4 * quantization.bytes_of(params)
    source, target = jnp.array([[5, 6, 7, 8]]), jnp.array([[6, 7, 2]])

    @jax.jit
    def log_prob(tree):
        return transformer.sequence_log_prob(quantization.dequantize(tree), config, source, target)[0]

    exact, near = log_prob(params), log_prob(small)
    np.testing.assert_allclose(near, exact, atol=0.05)
    assert np.abs(near - exact).max() > 0


def test_bytes_of_counts_each_type():
    assert quantization.bytes_of({"a": jnp.zeros(3, jnp.int8), "b": jnp.zeros(2, jnp.float32)}) == 11
