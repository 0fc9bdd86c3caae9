"""Low-rank adapters: fresh ones change nothing, merged equals apart, only they get a gradient."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import generate, lora, quantization, transformer
from aco_jax.models.config import Architecture

CONFIG = transformer.Config(vocab_size=24, width=16, heads=2, encoder_layers=1, mlp_width=32, max_length=8)
SOURCE, TARGET = jnp.array([[5, 6, 7]]), jnp.array([[6, 7, 2]])


init = jax.jit(transformer.init, static_argnums=1)
fresh = jax.jit(lora.fresh, static_argnums=(1, 2))
write = jax.jit(generate.generate, static_argnames=("config", "bos", "eos", "length"))


@pytest.fixture(scope="module")
def params():
    return init(jax.random.key(0), CONFIG)


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


FORMS = {
    "own": CONFIG,
    "llama": dataclasses.replace(
        CONFIG,
        encoder_layers=0,
        copy=False,
        architecture=Architecture("rotary", gated=True, kv_heads=1, tied=False, source_match=False),
    ),
}
AGENTS = ("base", "rewriter", "ranker", "reward", "critic", "actor")


@pytest.mark.parametrize("name", FORMS)
def test_attached_equals_merged_in_value_and_gradient(name):
    """Of every kernel that the network has, its output matrix too; and decoding with a cache."""
    config = FORMS[name]
    trunk = init(jax.random.key(0), config)
    adapters = filled(lora.init(jax.random.key(1), trunk, rank=2))
    source = SOURCE if config.encoder_layers else None

    def said(join, adapters):
        return transformer.sequence_log_prob(join(trunk, adapters, 0.5), config, source, TARGET)[0].sum()

    learned = jax.jit(jax.value_and_grad(said, argnums=1), static_argnums=0)
    (one, slope), (other, expected) = (learned(join, adapters) for join in (lora.attach, lora.merge))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert abs(one - learned(lora.merge, jax.tree.map(jnp.zeros_like, adapters))[0]) > 1e-3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), slope, expected)
    given = {"bos": 1, "eos": 2, "length": 6, "key": jax.random.key(2), "temperature": 0.0, "prefix": SOURCE[:, :1]}
    written = [write(join(trunk, adapters, 0.5), config, source, **given) for join in (lora.attach, lora.merge)]
    np.testing.assert_array_equal(written[0][0], written[1][0])
    np.testing.assert_allclose(written[0][1], written[1][1], atol=1e-4)


def test_the_trunk_gets_no_gradient_and_is_not_copied(params):
    adapters = filled(lora.init(jax.random.key(1), params, rank=1))
    slope = jax.jit(jax.grad(lambda tree: log_prob(lora.attach(tree, adapters)).sum()))(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope))
    again = jax.tree.leaves(lora.attach(params, {}))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)]
    assert [leaf.unsafe_buffer_pointer() for leaf in again] == pointers


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_stand_beside_a_quantised_trunk(params, bits):
    adapters = filled(lora.init(jax.random.key(1), params, rank=2))
    small = quantization.quantize(params, bits, group=8)
    found = log_prob(quantization.dequantize(lora.attach(small, adapters)))
    np.testing.assert_allclose(found, log_prob(lora.merge(quantization.dequantize(small), adapters)), atol=1e-4)


def test_six_agents_share_one_trunk_in_a_quarter_of_six_copies():
    """At the shapes of SmolLM2-135M, every kernel adapted at rank 16; shapes alone, no memory."""
    config = transformer.Config(
        **{"vocab_size": 49152, "width": 576, "heads": 9, "encoder_layers": 0, "decoder_layers": 30},
        **{"mlp_width": 1536, "max_length": 2048, "copy": False, "pad": -1},
        architecture=Architecture("rotary", norm="scaled_rms", gated=True, kv_heads=3, source_match=False),
    )

    def held():
        trunk = transformer.init(jax.random.key(0), config)
        return lora.share(jax.random.key(1), trunk, AGENTS, rank=16)

    trunk, adapters = jax.eval_shape(held)
    assert set(adapters) == set(AGENTS)
    assert 134e6 < sum(leaf.size for leaf in jax.tree.leaves(trunk)) < 136e6
    one, more = quantization.bytes_of(trunk), quantization.bytes_of(adapters)
    assert len(jax.tree.leaves(adapters["base"])) == 2 * 7 * 30
    assert one + more <= 6 * one / 4
    attached = jax.eval_shape(lora.attach, trunk, adapters["actor"])
    said = jax.eval_shape(lambda p: transformer.log_probs(p, config, jnp.ones((1, 4), jnp.int32)), attached)
    assert said.shape == (1, 4, 49152)


def test_agents_of_one_trunk_differ_once_they_have_learned(params):
    trunk, adapters = lora.share(jax.random.key(3), params, AGENTS, rank=2)
    assert trunk is params
    first, second = (adapters[name]["decoder_0"]["own"]["query"]["low_in"] for name in ("base", "actor"))
    assert (first != second).any()
    values = [log_prob(lora.attach(trunk, filled(adapters[name]))) for name in ("base", "actor")]
    assert (values[0] != values[1]).any()


def test_folded_is_merged_and_a_plain_tree(params):
    adapters = filled(lora.init(jax.random.key(1), params, 2, lambda path: path.startswith("decoder")))
    found = lora.folded(lora.attach(params, adapters))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    expected = lora.merge(params, adapters)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert not np.allclose(found["decoder_0"]["own"]["query"]["kernel"], params["decoder_0"]["own"]["query"]["kernel"])


def test_adapters_of_a_form_are_those_of_its_parameters(params):
    ours, theirs = fresh(jax.random.key(3), CONFIG, 2), lora.init(jax.random.key(3), params, 2)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
    whole = fresh(jax.random.key(3), CONFIG, 0)
    jax.tree.map(np.testing.assert_array_equal, whole, init(jax.random.key(3), CONFIG))
    spread = np.concatenate(
        [x.ravel() * np.sqrt(x.shape[0]) for x in map(np.asarray, jax.tree.leaves(ours)) if x.any()]
    )
    assert abs(spread.std() - 1) < 0.1
