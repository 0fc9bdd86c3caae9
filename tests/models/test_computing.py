"""How a network is computed changes no value beyond rounding: layers in one loop, computed again, in bfloat16."""

from __future__ import annotations

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import generate, lora, quantization, transformer
from aco_jax.models.config import Architecture

ROTARY = Architecture(position="rotary", norm="scaled_rms", activation="silu", gated=True, kv_heads=2)
RELATIVE = Architecture(position="relative", norm="scaled_rms", bias="all")
NETWORKS = {
    "both sides": transformer.Config(50, 16, 4, 3, 3, 32, 24),
    "relative": transformer.Config(50, 16, 4, 3, 2, 32, 24, copy=False, architecture=RELATIVE),
    "decoder": transformer.Config(50, 16, 4, 0, 4, 32, 24, copy=False, architecture=ROTARY),
}
WAYS = {"scan": {"scan": True}, "remat": {"remat": True}, "both": {"scan": True, "remat": True}}


def texts(rows: int = 3) -> tuple[chex.Array, chex.Array]:
    drawn = jax.random.randint(jax.random.key(1), (2, rows, 9), 3, 50)
    ends = jnp.asarray([9, 5, 7])[:rows, None]
    source, targets = jnp.where(jnp.arange(9)[None] < ends, drawn, 0)
    return source, targets


def loss(params: transformer.Params, config: transformer.Config, key: chex.PRNGKey | None = None) -> chex.Array:
    source, targets = texts()
    return -jnp.sum(transformer.sequence_log_prob(params, config, source, targets, key=key)[0])


init = jax.jit(transformer.init, static_argnums=1)
loss_of, slope_of = (jax.jit(f, static_argnums=1) for f in (loss, jax.value_and_grad(loss)))
sequence_log_prob = jax.jit(transformer.sequence_log_prob, static_argnums=1)
write = jax.jit(generate.generate, static_argnames=("config", "bos", "eos", "length"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_are_those_of_one_layer_after_another(name: str, way: str) -> None:
    config = NETWORKS[name]
    other = dataclasses.replace(config, **WAYS[way])
    params = init(jax.random.key(0), config)
    chex.assert_trees_all_equal(params, init(jax.random.key(0), other))
    expected, gradient = slope_of(params, config)
    found, same = slope_of(params, other)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    chex.assert_trees_all_close(same, gradient, rtol=1e-3, atol=1e-5)


ALONE = {
    "absolute": transformer.Config(50, 16, 4, 0, 1, 32, 24, copy=False),
    "relative": transformer.Config(50, 16, 4, 0, 2, 32, 24, copy=False, architecture=RELATIVE),
    "rotary": NETWORKS["decoder"],
    "norms after": transformer.Config(50, 16, 4, 0, 2, 32, 24, copy=False, architecture=Architecture(post_norm=True)),
}


@pytest.mark.parametrize("way", ["plain", "both"])
@pytest.mark.parametrize("name", ALONE)
def test_one_position_alone_has_the_state_and_the_gradient_it_has_among_all(name: str, way: str) -> None:
    config = dataclasses.replace(ALONE[name], **WAYS.get(way, {}))
    params = init(jax.random.key(0), config)
    tokens, place = texts()[1], jnp.asarray([8, 0, 6])
    weight = jax.random.normal(jax.random.key(2), (3, 16))

    def among_all(params: transformer.Params) -> tuple[chex.Array, chex.Array]:
        state = transformer.decode(params, config, tokens)[jnp.arange(3), place]
        return jnp.sum(weight * state), state

    def alone(params: transformer.Params) -> tuple[chex.Array, chex.Array]:
        state = transformer.decode_at(params, config, tokens, place)
        return jnp.sum(weight * state), state

    (gradient, expected), (same, found) = (jax.jit(jax.grad(f, has_aux=True))(params) for f in (among_all, alone))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(same, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_decodes_the_same_tokens(name: str) -> None:
    config, source = NETWORKS[name], texts()[0]
    params = init(jax.random.key(0), config)
    given = {"bos": 1, "eos": 2, "length": 6, "key": jax.random.key(2), "temperature": 0.0}
    expected, found = (
        write(params, form, source, **given) for form in (config, dataclasses.replace(config, scan=True))
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)


def test_adapters_beside_a_quantised_trunk_are_learned_within_a_loop() -> None:
    config = NETWORKS["decoder"]
    trunk = quantization.quantize(init(jax.random.key(0), config))
    drawn = lora.fresh(jax.random.key(3), config, 2)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, drawn)

    def of(adapters: transformer.Params, config: transformer.Config) -> chex.Array:
        return loss(lora.attach(trunk, adapters), config)

    slope = jax.jit(jax.grad(of), static_argnums=1)
    expected, found = (slope(adapters, form) for form in (config, dataclasses.replace(config, scan=True, remat=True)))
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_loop_drops_out_elsewhere_in_every_layer() -> None:
    config = dataclasses.replace(NETWORKS["decoder"], dropout=0.5, scan=True, remat=True)
    params = init(jax.random.key(0), config)
    with_one, again, with_other = (loss_of(params, config, jax.random.key(seed)) for seed in (0, 0, 1))
    assert with_one == again != with_other
    # Layers of equal weights, which would be silent alike if they had the same noise.
    alike = params | {f"decoder_{number}": params["decoder_0"] for number in range(4)}
    decode = jax.jit(lambda key: transformer.decode(alike, config, texts()[0], key=key))
    assert not np.allclose(*(decode(jax.random.key(seed)) for seed in (0, 5)))


def test_remat_keeps_less() -> None:
    config = dataclasses.replace(NETWORKS["decoder"], decoder_layers=12, scan=True, mlp_width=256)

    def kept(config: transformer.Config) -> int:
        params = jax.eval_shape(lambda: transformer.init(jax.random.key(0), config))
        program = jax.jit(lambda p: jax.grad(loss)(p, config)).lower(params).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert kept(dataclasses.replace(config, remat=True)) < 0.7 * kept(config)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_multiplies_in_it_and_learns_in_float32(name: str) -> None:
    config = dataclasses.replace(NETWORKS[name], compute="bfloat16")
    params = init(jax.random.key(0), config)
    (expected, whole), (value, gradient) = (slope_of(params, form) for form in (NETWORKS[name], config))
    assert value.dtype == jnp.float32
    assert value != expected
    np.testing.assert_allclose(value, expected, rtol=0.01)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert cosine_of(gradient, whole) > 0.99
    program = jax.jit(lambda p: transformer.decode(p, config, *inputs(p, config))).lower(params).as_text()
    types = re.findall(r"dot_general .*: \(tensor<[\dx]*x(\w+)>", program)
    features = config.decoder_layers if config.encoder_layers else 0  # how source tokens match, beside the scores
    assert types.count("f32") == features
    assert types.count("bf16") == len(types) - features > 10


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_decoding_says_what_teacher_forcing_says(name: str) -> None:
    config, source = dataclasses.replace(NETWORKS[name], compute="bfloat16"), texts()[0]
    params = init(jax.random.key(0), config)
    given = {"bos": 1, "eos": 2, "length": 6, "key": jax.random.key(2), "temperature": 1.0}
    tokens, log_prob = write(params, config, source, **given)
    again = sequence_log_prob(params, config, source, tokens)[0].sum(axis=1)
    np.testing.assert_allclose(log_prob, again, atol=0.15)


def inputs(params: transformer.Params, config: transformer.Config) -> tuple[chex.Array, ...]:
    source, targets = texts()
    if not config.encoder_layers:
        return (targets,)
    return targets, transformer.encode(params, config, source), source


def cosine_of(one: transformer.Params, other: transformer.Params) -> float:
    first, second = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (one, other))
    return float(first @ second / jnp.linalg.norm(first) / jnp.linalg.norm(second))
