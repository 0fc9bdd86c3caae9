"""Weights in int8 and int4: bounded error, small, and the network still says nearly the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import generate, lora, quantization, transformer
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


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("bits", [8, 4])
def test_products_are_those_of_the_dequantised_matrices(rows, bits):
    rng = np.random.default_rng(rows)
    kernel, embedding = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((96, 20), (20, 96)))
    small = quantization.quantize({"kernel": kernel, "embedding": embedding}, bits)
    plain = quantization.dequantize(small)
    x = jnp.asarray(rng.normal(size=(rows, 1, 96)), jnp.float32)
    found = quantization.product(x, small["kernel"])
    np.testing.assert_allclose(found, np.float64(x) @ np.float64(plain["kernel"]), atol=1e-4)
    found = quantization.transposed_product(x[:, 0], small["embedding"])
    np.testing.assert_allclose(found, np.float64(x[:, 0]) @ np.float64(plain["embedding"]).T, atol=1e-4)
    tokens = jnp.array([[3, 19], [0, 3]])
    np.testing.assert_allclose(quantization.rows_of(small["embedding"], tokens), plain["embedding"][tokens], rtol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_network_runs_on_a_quantised_tree(bits, tied):
    """Reading a prompt, then one row at a time; adapters beside the kernels stay as they are."""
    form = Architecture(position="rotary", gated=True, bias="all", source_match=False, tied=tied)
    config = transformer.Config(40, 32, 4, 0, 2, 64, 16, copy=False, architecture=form)
    params = transformer.init(jax.random.key(0), config)
    small = quantization.quantize(params, bits)
    _, adapters = lora.share(jax.random.key(1), small_kernels(params), ["a"], 2)
    filled = jax.tree.map(lambda leaf: leaf + 0.1, adapters["a"])
    small, plain = (lora.attach(tree, filled) for tree in (small, quantization.dequantize(small)))
    given = {"bos": 1, "eos": 39, "length": 12, "key": jax.random.key(0), "temperature": 0.0}
    prefix = jnp.array([[5, 6, 7]])
    (found, said), (expected, other) = (
        generate.generate(tree, config, None, prefix=prefix, **given) for tree in (small, plain)
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(said, other, atol=1e-4)
    tokens = jnp.arange(1, 13).reshape(2, 6)
    log_probs = jax.jit(transformer.log_probs, static_argnames="config")
    np.testing.assert_allclose(log_probs(small, config, tokens), log_probs(plain, config, tokens), atol=1e-4)


def small_kernels(params):
    """What adapters are made for: the attention's kernels."""
    return {"decoder_0": {"own": params["decoder_0"]["own"]}}
