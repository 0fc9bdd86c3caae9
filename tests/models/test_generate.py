"""Decoding with a cache says what the network without a cache says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import generate, transformer
from aco_jax.models.config import Architecture

CONFIG = transformer.Config(vocab_size=20, width=16, heads=2, encoder_layers=1, mlp_width=32, max_length=10)
SOURCE = jnp.array([[5, 6, 7, 8, 0, 0], [9, 5, 9, 10, 11, 12], [13, 0, 0, 0, 0, 0]])
EOS, LENGTH = 2, 7
encode = jax.jit(transformer.encode, static_argnames="config")
log_probs = jax.jit(transformer.log_probs, static_argnames="config")
sequence_log_prob = jax.jit(transformer.sequence_log_prob, static_argnames="config")


@pytest.fixture(scope="module")
def params():
    fresh = transformer.init(jax.random.key(0), CONFIG)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


def run(params, config=CONFIG, source=SOURCE, **given):
    """One signature, so one compilation, for nearly all tests: everything is allowed, and no prefix is given."""
    settings = {
        "bos": 1,
        "eos": EOS,
        "length": LENGTH,
        "key": jax.random.key(5),
        "temperature": 1.0,
        "allowed": jnp.ones((3, LENGTH, 20), bool),
        "prefix": jnp.zeros((3, 3), jnp.int32),
    }
    return generate.generate(params, config, source, **(settings | given))


def test_greedy_is_the_teacher_forced_argmax_step_by_step(params):
    tokens, _ = run(params, temperature=0.0)
    memory = encode(params, CONFIG, SOURCE)
    expected = np.zeros((3, LENGTH), np.int32)
    for t in range(LENGTH):
        inputs = transformer.shift(jnp.asarray(expected), CONFIG.bos)
        log_p = np.asarray(log_probs(params, CONFIG, inputs, memory, SOURCE))[:, t]
        ended = (expected[:, :t] == EOS).any(axis=1)
        expected[:, t] = np.where(ended, 0, log_p[:, 1:].argmax(axis=1) + 1)
    np.testing.assert_array_equal(tokens, expected)


def test_a_row_draws_by_its_own_key_whatever_stands_beside_it(params):
    keys = jax.random.split(jax.random.key(5), len(SOURCE))
    tokens, _ = run(params, key=keys, temperature=2.0)
    turned, _ = run(params, source=SOURCE[::-1], key=keys[::-1], temperature=2.0)
    np.testing.assert_array_equal(turned[::-1], tokens)
    np.testing.assert_array_equal(run(params, temperature=2.0)[0], tokens)
    assert (run(params, key=keys[::-1], temperature=2.0)[0] != tokens).any()


@pytest.mark.parametrize(("copy", "temperature"), [(True, 0.0), (True, 0.7), (True, 1.0), (False, 1.0)])
def test_log_prob_is_that_of_the_sampled_tokens(params, copy, temperature):
    config = transformer.Config(**{**vars(CONFIG), "copy": copy})
    tokens, log_prob = run(params, config, temperature=temperature)
    expected, _ = sequence_log_prob(params, config, SOURCE, tokens)
    np.testing.assert_allclose(log_prob, expected.sum(axis=1), atol=1e-4)


def test_only_allowed_tokens_and_their_relative_log_prob(params):
    allowed = np.random.default_rng(0).random((3, LENGTH, 20)) < 0.3
    allowed[..., 15] = True
    tokens, log_prob = run(params, allowed=jnp.asarray(allowed))
    tokens = np.asarray(tokens)
    assert np.take_along_axis(allowed, tokens[..., None], axis=-1)[..., 0][tokens > 0].all()
    expected, _ = sequence_log_prob(params, CONFIG, SOURCE, tokens, jnp.asarray(allowed))
    np.testing.assert_allclose(log_prob, expected.sum(axis=1), atol=1e-4)


def test_prefixes_of_different_lengths_are_kept_and_not_counted(params):
    prefix = jnp.array([[7, 8, 9], [4, 0, 0], [0, 0, 0]])
    tokens, log_prob = run(params, prefix=prefix)
    np.testing.assert_array_equal(tokens[0, :3], [7, 8, 9])
    assert tokens[1, 0] == 4
    each, _ = sequence_log_prob(params, CONFIG, SOURCE, tokens)
    own = jnp.where(jnp.pad(prefix, ((0, 0), (0, LENGTH - 3))) > 0, 0.0, each)
    np.testing.assert_allclose(log_prob, own.sum(axis=1), atol=1e-4)
    plain, _ = run(params)
    np.testing.assert_array_equal(tokens[2], plain[2])


def test_nothing_follows_the_end(params):
    allowed = jnp.zeros((3, LENGTH, 20), bool).at[:, :, jnp.array([EOS, 7])].set(True)
    tokens = np.asarray(run(params, allowed=allowed)[0])
    ended = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) > 0
    np.testing.assert_array_equal(tokens[ended], 0)
    assert ended.any()


def test_padding_of_the_source_and_allowing_everything_change_nothing(params):
    tokens, log_prob = run(params)
    again, log_prob_again = run(
        params, source=jnp.pad(SOURCE, ((0, 0), (0, 3))), allowed=jnp.ones((1, 20), bool), prefix=None
    )
    np.testing.assert_array_equal(tokens, again)
    np.testing.assert_allclose(log_prob, log_prob_again, atol=1e-5)


def test_samples_follow_the_distribution(params):
    source = jnp.repeat(SOURCE[:1], 4000, axis=0)
    tokens, _ = run(params, source=source, length=1, allowed=None, prefix=None)
    memory = encode(params, CONFIG, SOURCE[:1])
    log_p = log_probs(params, CONFIG, jnp.ones((1, 1), jnp.int32), memory, SOURCE[:1])[0, 0]
    p = np.exp(log_p)
    p[0] = 0
    found = np.bincount(np.asarray(tokens)[:, 0], minlength=20) / 4000
    np.testing.assert_allclose(found, p / p.sum(), atol=0.03)


def kept_by_hand(log_p, top_k, top_p, temperature):
    """One row at a time: the k likeliest, then the fewest of those that hold the share."""
    order = np.argsort(-log_p, kind="stable")[: top_k or len(log_p)]
    weight = np.exp(np.asarray(log_p[order], np.float64) / temperature)
    held, kept = 0.0, []
    for place, token in enumerate(order):
        if top_p is not None and place and held >= top_p:
            break
        kept.append(token)
        held += weight[place] / weight.sum()
    return np.isin(np.arange(len(log_p)), kept)


@pytest.mark.parametrize("top_k", [None, 1, 5, 50])
@pytest.mark.parametrize("top_p", [None, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_what_top_k_and_top_p_keep(top_k, top_p, temperature):
    log_p = jax.nn.log_softmax(2 * jax.random.normal(jax.random.key(1), (6, 20)))
    found = generate.likeliest(log_p, top_k, top_p, temperature)
    expected = [kept_by_hand(np.asarray(row), top_k, top_p, temperature) for row in log_p]
    np.testing.assert_array_equal(found, expected)


def test_equal_tokens_are_kept_together_and_cold_is_greedy():
    log_p = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]]))
    np.testing.assert_array_equal(generate.likeliest(log_p, top_k=2), [[True, True, True, True]])
    np.testing.assert_array_equal(generate.likeliest(log_p, top_p=0.9, temperature=0.0), [[True, False, False, False]])


def test_samples_within_limits_follow_the_renormalised_distribution(params):
    """Several samples of two sources, the fewest of the five likeliest that hold 0.8, at temperature 1.5."""
    allowed = jnp.ones((1, 20), bool).at[:, 7].set(False)
    tokens, log_prob = run(
        *(params, CONFIG, SOURCE[:2]),
        length=1,
        allowed=allowed,
        prefix=None,
        samples=4000,
        top_k=5,
        top_p=0.8,
        temperature=1.5,
    )
    assert tokens.shape == (8000, 1)
    memory = encode(params, CONFIG, SOURCE[:2])
    log_p = np.array(log_probs(params, CONFIG, jnp.ones((2, 1), jnp.int32), memory, SOURCE[:2])[:, 0])
    log_p[:, 7] = -1e9
    np.testing.assert_allclose(
        log_prob.reshape(2, -1),
        np.take_along_axis(log_p - np.log(np.exp(log_p).sum(1, keepdims=True)), np.asarray(tokens).reshape(2, -1), 1),
        atol=1e-4,
    )
    log_p[:, 0] = -1e9  # padding is never sampled
    for row, drawn in zip(log_p, np.asarray(tokens).reshape(2, -1), strict=True):
        p = np.where(kept_by_hand(row, 5, 0.8, 1.5), np.exp(row / 1.5), 0)
        np.testing.assert_allclose(np.bincount(drawn, minlength=20) / 4000, p / p.sum(), atol=0.03)


def test_several_samples_of_one_source(params):
    tokens, log_prob = run(params, CONFIG, SOURCE[:1], allowed=None, prefix=None, samples=5)
    assert tokens.shape == (5, LENGTH)
    assert len(np.unique(tokens, axis=0)) > 1
    expected, _ = sequence_log_prob(params, CONFIG, jnp.repeat(SOURCE[:1], 5, axis=0), tokens)
    np.testing.assert_allclose(log_prob, expected.sum(axis=1), atol=1e-4)


def test_top_k_of_one_is_greedy_and_less_is_an_error(params):
    greedy, _ = run(params, temperature=0.0)
    np.testing.assert_array_equal(run(params, top_k=1)[0], greedy)
    with pytest.raises(ValueError, match="top_k 0, expected at least 1"):
        run(params, top_k=0)


def test_other_prompts_heats_nuclei_and_choices_trace_nothing_anew(params, monkeypatch):
    traced, sample = [], generate.sample

    def counted(*given, **named):
        traced.append(given)
        return sample(*given, **named)

    monkeypatch.setattr(generate, "sample", counted)
    settings = {"length": LENGTH - 1, "allowed": jnp.ones((3, LENGTH - 1, 20), bool)}
    others = [
        {"temperature": 0.0, "top_p": 1.0},
        {"temperature": 0.7, "top_p": 0.5, "key": jax.random.key(6)},
        {"source": SOURCE[::-1], "prefix": jnp.array([[5, 0, 0], [6, 7, 8], [0, 0, 0]]), "top_p": 0.9},
        {"allowed": settings["allowed"].at[:, 1:, 7].set(False), "top_p": 0.9},
    ]
    for other in others:
        run(params, **(settings | other))
    assert len(traced) == 1


ROTARY = {"position": "rotary", "norm": "scaled_rms", "activation": "silu", "gated": True, "embedding_scale": False}
ARCHITECTURES = {
    "relative": {"position": "relative", "buckets": 4, "reach": 6, "attention_scale": False, "source_match": False},
    "rotary": ROTARY | {"kv_heads": 2, "head_width": 6, "tied": False, "bias": "qkv", "query_key_norm": True},
    "interleaved": ROTARY | {"position": "interleaved", "kv_heads": 1, "activation": "gelu_tanh", "logit_scale": True},
    "post_norm": {"norm": "layer", "post_norm": True, "bias": "all", "activation": "gelu", "embedding_norm": True},
}


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_cached_exactly(name, layers):
    """Sampled with a cache, re-read without one; with a source and without, and with words instead of padding."""
    config = transformer.Config(
        **{
            **vars(CONFIG),
            **{"heads": 4, "encoder_layers": layers, "copy": False, "pad": layers - 1},
            "architecture": Architecture(**ARCHITECTURES[name]),
        }
    )
    fresh = transformer.init(jax.random.key(0), config)
    params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape), fresh)
    prefix = jnp.full((3, 3), config.pad).at[0].set(jnp.array([7, 8, 9])).at[1:, 0].set(4)
    given = {"source": SOURCE if layers else None, "prefix": prefix, "allowed": None}
    tokens, log_prob = run(params, config, **given)
    each, mask = sequence_log_prob(params, config, given["source"], tokens)
    own = jnp.where(jnp.pad(prefix, ((0, 0), (0, LENGTH - 3)), constant_values=config.pad) == config.pad, each, 0.0)
    np.testing.assert_allclose(log_prob, jnp.where(mask, own, 0.0).sum(axis=1), atol=1e-4)


def test_an_end_within_a_prompt_ends_nothing():
    config = transformer.Config(**{**vars(CONFIG), "encoder_layers": 0, "pad": -1})
    params = transformer.init(jax.random.key(0), config)
    prefix = jnp.array([[8, EOS, 9]])
    tokens, log_prob = run(params, config, source=None, prefix=prefix, allowed=None)
    np.testing.assert_array_equal(tokens[:, :3], prefix)
    assert tokens[0, 3] >= 0
    assert log_prob[0] < 0


def test_a_prefix_may_begin_the_rows():
    config = transformer.Config(**{**vars(CONFIG), "encoder_layers": 0, "pad": -1})
    params = transformer.init(jax.random.key(0), config)
    rest = jnp.array([[8, 9], [4, -1], [-1, -1]])
    given = {"temperature": 0.0, "source": None}
    expected, log_prob = run(params, config, bos=7, prefix=rest, allowed=None, length=LENGTH - 1, **given)
    begun = jnp.concatenate([jnp.full((3, 1), 7), rest], axis=1)
    found, again = run(params, config, bos=None, prefix=begun, allowed=None, **given)
    np.testing.assert_array_equal(found[:, 1:], expected)
    np.testing.assert_allclose(again, log_prob, atol=1e-5)
    with pytest.raises(ValueError, match="a prefix has to begin the rows"):
        run(params, config, bos=None, prefix=None, **given)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "absolute"])
def test_a_decoder_alone_goes_on_from_ragged_prompts_as_from_each_alone(name):
    form = Architecture(**ARCHITECTURES.get(name, {"source_match": False}))
    sizes = {"heads": 4, "encoder_layers": 0, "copy": False, "max_length": 24, "architecture": form}
    config = transformer.Config(**{**vars(CONFIG), **sizes})
    fresh = transformer.init(jax.random.key(0), config)
    params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape), fresh)
    source = jnp.array([[8, 9, 4, 7], [4, 0, 0, 0], [5, 0, 9, 0]])
    prefix = jnp.array([[6, 5], [6, 0], [7, 0]])
    allowed = jnp.ones((1, config.vocab_size), bool).at[0, 9].set(False)
    given = {"eos": EOS, "length": LENGTH, "key": jax.random.key(0), "temperature": 0.0, "allowed": allowed}
    tokens, log_prob = generate.generate(params, config, source, bos=config.bos, prefix=prefix, **given)
    np.testing.assert_array_equal(jnp.where(prefix > 0, tokens[:, :2], 0), prefix)
    for i, row in enumerate(np.asarray(source)):
        alone = jnp.asarray([[config.bos, *row[row > 0]]])
        begun = {"bos": None, "prefix": prefix[i : i + 1]}
        (expected,), (own,) = generate.generate(params, config, alone, **begun, **given)
        np.testing.assert_array_equal(tokens[i], expected)
        np.testing.assert_allclose(log_prob[i], own, atol=1e-4)
    each, mask = transformer.sequence_log_prob(params, config, source, tokens, allowed[None])
    forced = jnp.pad(prefix, ((0, 0), (0, LENGTH - 2))) > 0
    np.testing.assert_allclose(log_prob, jnp.where(mask & ~forced, each, 0.0).sum(axis=1), atol=1e-4)
