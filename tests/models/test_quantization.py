"""Weights in int8 and int4: bounded error, small, and the network still says nearly the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import quantization, transformer
from aco_jax.models.config import Architecture


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


@pytest.mark.parametrize("name", ["kernel", "embedding"])
def test_int4_is_the_float64_loop_over_groups(name):
    """Each group of 8 inputs of a channel in steps of a seventh of its largest entry; two entries a byte."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(24, 5)) * rng.lognormal(0, 2, size=(24, 1))
    matrix[8:16, 3] = 0
    leaf = jnp.asarray(matrix.T if name == "embedding" else matrix, jnp.float32)
    small = quantization.quantize({name: leaf}, bits=4, group=8)
    assert {part: leaf.size for part, leaf in small[name].items()} == {"int4": 60, "scale": 15}
    assert small[name]["int4"].dtype == jnp.uint8
    expected = np.zeros((24, 5))
    for channel in range(5):
        for start in range(0, 24, 8):
            group = np.float64(np.float32(matrix[start : start + 8, channel]))
            step = np.abs(group).max() / 7
            expected[start : start + 8, channel] = np.round(group / step) * step if step else 0
    found = quantization.dequantize(small)[name]
    np.testing.assert_allclose(found.T if name == "embedding" else found, expected, rtol=1e-5, atol=1e-7)


def test_a_hand_sized_int4_kernel():
    small = quantization.quantize({"kernel": jnp.array([[0.7, 1.4], [-0.1, 0.0], [0.3, -1.4], [-0.7, 0.2]])}, 4, 4)
    # Low halves are rows 0 and 1, high halves rows 2 and 3, each 8 more than its step.
    np.testing.assert_array_equal(small["kernel"]["int4"], [[15 + 16 * 11, 15 + 16 * 1], [7 + 16 * 1, 8 + 16 * 9]])
    np.testing.assert_allclose(small["kernel"]["scale"], [[0.1, 0.2]], rtol=1e-6)


def test_what_does_not_fall_into_groups_is_int8():
    tree = {
        "a": {"kernel": jnp.ones((33, 4))},
        "b": {"kernel": jnp.ones((2, 32, 4))},
        "c": {"kernel": jnp.ones((64, 4))},
    }
    small = quantization.quantize(tree, bits=4)
    assert [next(iter(small[name]["kernel"])) for name in "abc"] == ["int8", "int8", "int4"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), quantization.dequantize(small), tree)
    with pytest.raises(ValueError, match="bits 5, expected 8 or 4"):
        quantization.quantize(tree, bits=5)
    with pytest.raises(ValueError, match="group 2, expected an even number of at least 4"):
        quantization.quantize(tree, bits=4, group=2)


SMOLLM2 = transformer.Config(
    **{"vocab_size": 49152, "width": 576, "heads": 9, "encoder_layers": 0, "decoder_layers": 30, "mlp_width": 1536},
    **{"max_length": 2048, "copy": False, "pad": -1},
    architecture=Architecture("rotary", norm="scaled_rms", gated=True, kv_heads=3, source_match=False),
)
DEFAULT = transformer.Config(vocab_size=2048, encoder_layers=1, decoder_layers=1)


@pytest.mark.parametrize("config", [SMOLLM2, DEFAULT], ids=["SmolLM2-135M", "default"])
@pytest.mark.parametrize(("bits", "most"), [(8, 0.3), (4, 0.18)])
def test_bytes_of_the_quantised_matrices(config, bits, most):
    """Scales included, of the float32 bytes of the same matrices; shapes alone, no memory."""
    params = jax.eval_shape(lambda: transformer.init(jax.random.key(0), config))
    small = jax.eval_shape(lambda tree: quantization.quantize(tree, bits), params)
    pairs = jax.tree.map(lambda q, x: (q, x), small, params, is_leaf=quantization.is_quantized)
    chosen = [
        pair for pair in jax.tree.leaves(pairs, is_leaf=lambda x: isinstance(x, tuple)) if isinstance(pair[0], dict)
    ]
    large, little = (sum(quantization.bytes_of(pair[side]) for pair in chosen) for side in (1, 0))
    assert large > 0.9 * quantization.bytes_of(params)
    assert little <= most * large


def test_vectors_and_other_tables_are_kept():
    tree = {"norm": {"scale": jnp.ones(3)}, "position": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    found = quantization.quantize(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert quantization.dequantize(tree) == tree


@pytest.mark.parametrize(("bits", "share", "far"), [(8, 0.4, 0.05), (4, 0.3, 0.8)])
def test_a_quantised_network_is_smaller_and_says_nearly_the_same(bits, share, far):
    config = transformer.Config(vocab_size=64, width=32, heads=2, encoder_layers=1, mlp_width=64, max_length=8)
    params = transformer.init(jax.random.key(0), config)
    small = quantization.quantize(params, bits)
    assert quantization.bytes_of(small) < share * quantization.bytes_of(params)
    source, target = jnp.array([[5, 6, 7, 8]]), jnp.array([[6, 7, 2]])

    @jax.jit
    def log_prob(tree):
        return transformer.sequence_log_prob(quantization.dequantize(tree), config, source, target)[0]

    exact, near = log_prob(params), log_prob(small)
    np.testing.assert_allclose(near, exact, atol=far)
    assert np.abs(near - exact).max() > 0


def test_bytes_of_counts_each_type():
    assert quantization.bytes_of({"a": jnp.zeros(3, jnp.int8), "b": jnp.zeros(2, jnp.float32)}) == 11
