"""The network: causality, padding, the copy mixture, and that it learns to copy in few steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.kernels import tiles
from aco_jax.models import layers, transformer
from aco_jax.models.config import Architecture
from aco_jax.ops import likelihood

CONFIG = transformer.Config(vocab_size=24, width=16, heads=2, mlp_width=32, max_length=12)
SOURCE = jnp.array([[5, 6, 7, 8, 0, 0], [9, 5, 9, 10, 11, 12]])
TARGET = jnp.array([[6, 7, 2, 0], [9, 10, 11, 2]])
encode = jax.jit(transformer.encode, static_argnames="config")
decode = jax.jit(transformer.decode, static_argnames="config")
embed = jax.jit(transformer.embed, static_argnames="config")
log_probs = jax.jit(transformer.log_probs, static_argnames="config")
sequence_log_prob = jax.jit(transformer.sequence_log_prob, static_argnames="config")


@pytest.fixture(scope="module")
def params():
    """Parameters in general position: no zero kernel hides a path."""
    fresh = transformer.init(jax.random.key(0), CONFIG)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


def full(params, config=CONFIG, source=SOURCE, target=TARGET):
    inputs = transformer.shift(target, config.bos)
    return log_probs(params, config, inputs, encode(params, config, source), source)


def test_a_token_hears_nothing_from_later_inputs(params):
    memory = encode(params, CONFIG, SOURCE)
    embedding = params["embedding"]

    def hidden(offsets):  # the network's input is moved through the position table, one position at a time
        moved = params | {"decoder_position": params["decoder_position"].at[:4].add(offsets)}
        return decode(moved, CONFIG, TARGET, memory, SOURCE)

    heard = jax.jit(jax.jacobian(lambda x: hidden(x).sum(axis=(0, 2))))(jnp.zeros((4, embedding.shape[1])))
    reached = np.abs(heard).sum(axis=-1)
    np.testing.assert_array_equal(np.triu(reached, 1), 0)
    assert np.all(np.diag(reached) > 0)
    assert np.all(reached[3] > 0)


def test_later_targets_do_not_change_earlier_log_probs(params):
    other = TARGET.at[:, 2:].set(7)
    a, _ = sequence_log_prob(params, CONFIG, SOURCE, TARGET)
    b, _ = sequence_log_prob(params, CONFIG, SOURCE, other)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])


def test_padding_never_changes_a_value(params):
    longer = jnp.pad(SOURCE, ((0, 0), (0, 5))), jnp.pad(TARGET, ((0, 0), (0, 3)))
    short, _ = sequence_log_prob(params, CONFIG, SOURCE, TARGET)
    long, mask = sequence_log_prob(params, CONFIG, *longer)
    np.testing.assert_allclose(long[:, :4], short, atol=1e-5)
    np.testing.assert_array_equal(long[:, 4:], 0)
    np.testing.assert_array_equal(mask[:, 4:], False)
    np.testing.assert_allclose(embed(params, CONFIG, longer[0]), embed(params, CONFIG, SOURCE), atol=1e-6)


def test_log_probs_are_normalised_also_without_a_source(params):
    np.testing.assert_allclose(jax.nn.logsumexp(full(params), axis=-1), 0, atol=1e-5)
    empty = full(params, source=jnp.zeros_like(SOURCE))
    np.testing.assert_allclose(jax.nn.logsumexp(empty, axis=-1), 0, atol=1e-5)


@pytest.mark.parametrize("copy", [True, False])
def test_gathered_log_prob_equals_the_full_distribution(params, copy):
    config = transformer.Config(**{**vars(CONFIG), "copy": copy})
    chosen = jnp.take_along_axis(full(params, config), TARGET[..., None], axis=-1)[..., 0]
    found, mask = sequence_log_prob(params, config, SOURCE, TARGET)
    np.testing.assert_allclose(found, jnp.where(mask, chosen, 0), atol=1e-5)


@pytest.mark.parametrize("shape", ["rows", "positions", "both"])
def test_log_prob_relative_to_the_allowed_tokens(params, shape):
    draw = np.random.default_rng(0).random((2, 4, 24)) < 0.5
    allowed = {"rows": draw[:, :1], "positions": draw[:1], "both": draw}[shape]
    log_p = full(params)
    held = jax.nn.logsumexp(jnp.where(allowed, log_p, -jnp.inf), axis=-1)
    expected = jnp.take_along_axis(log_p, TARGET[..., None], axis=-1)[..., 0] - held
    found, mask = sequence_log_prob(params, CONFIG, SOURCE, TARGET, jnp.asarray(allowed))
    np.testing.assert_allclose(found, jnp.where(mask, expected, 0), atol=1e-5)


def test_log_prob_at_the_temperature_of_decoding(params):
    """Each probability to the power of 1 / temperature, among the allowed tokens, in float64."""
    rng, heat = np.random.default_rng(0), 0.5
    allowed = rng.random((*TARGET.shape, CONFIG.vocab_size)) < 0.5
    np.put_along_axis(allowed, np.asarray(TARGET)[..., None], True, axis=-1)
    given = (params, CONFIG, SOURCE, TARGET, jnp.asarray(allowed))
    found, mask = transformer.sequence_log_prob(*given, temperature=heat)
    power = np.where(allowed, np.exp(np.float64(full(params))) ** (1 / heat), 0.0)
    p = np.take_along_axis(power / power.sum(axis=-1, keepdims=True), np.asarray(TARGET)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, np.where(mask, np.log(p), 0.0), rtol=1e-4, atol=1e-5)


def test_mixture_is_the_pointer_generator_of_ops():
    rng = np.random.default_rng(1)
    vocab = jax.nn.softmax(jnp.asarray(rng.normal(size=(1, 3, 9)), jnp.float32))
    copies = jax.nn.softmax(jnp.asarray(rng.normal(size=(1, 3, 4)), jnp.float32))
    source, gate = jnp.array([[3, 5, 3, 8]]), jnp.array([[0.3, -2.0, 1.0]])
    found = layers.mixture(vocab, layers.scatter(copies, source, 9), jax.nn.sigmoid(gate)[..., None])
    expected = jax.vmap(likelihood.copy_mixture, (0, 0, None, 0))(jnp.log(vocab[0]), copies[0], source[0], gate[0])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_view_names_the_four_matches():
    view = transformer.Transformer(CONFIG)._view(jnp.array([[5, 6, 9]]), jnp.array([[5, 6, 7, 6, 0]]))
    follows, now, runs, come = np.asarray(view.match[:, 0]).astype(int)
    np.testing.assert_array_equal(follows, [[0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(now, [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(runs, [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(come, [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(view.valid[0, 0], [1, 1, 1, 1, 0])


def test_decoder_only_and_encoder_only():
    decoder = transformer.Config(vocab_size=24, width=16, heads=2, encoder_layers=0, mlp_width=32)
    tree = transformer.init(jax.random.key(0), decoder)
    assert not any(name.startswith("encoder") or name == "pointer" for name in tree)
    log_p = log_probs(tree, decoder, TARGET)
    np.testing.assert_allclose(jax.nn.logsumexp(log_p, axis=-1), 0, atol=1e-5)
    found, _ = sequence_log_prob(tree, decoder, None, TARGET)
    assert found.shape == TARGET.shape
    encoder = transformer.Config(vocab_size=24, width=16, heads=2, decoder_layers=0, mlp_width=32)
    tree = transformer.init(jax.random.key(0), encoder)
    norms = jnp.linalg.norm(embed(tree, encoder, SOURCE), axis=-1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_dropout_only_with_a_key():
    config = transformer.Config(**{**vars(CONFIG), "dropout": 0.5})
    tree = transformer.init(jax.random.key(0), config)
    plain = encode(tree, config, SOURCE)
    np.testing.assert_array_equal(plain, encode(tree, config, SOURCE))
    a, b = (encode(tree, config, SOURCE, jax.random.key(k)) for k in (1, 2))
    assert np.abs(a - b).max() > 0.1
    assert np.abs(a - plain).max() > 0.1


def test_vmap_over_replicas_equals_each_alone(params):
    other = jax.tree.map(lambda x: x * 1.1, params)
    both = jax.tree.map(lambda *x: jnp.stack(x), params, other)
    found = jax.jit(jax.vmap(lambda p: sequence_log_prob(p, CONFIG, SOURCE, TARGET)[0]))(both)
    for row, tree in zip(found, (params, other), strict=True):
        alone, _ = sequence_log_prob(tree, CONFIG, SOURCE, TARGET)
        np.testing.assert_allclose(row, alone, atol=1e-5)


def test_padding_on_the_left_is_moved_to_the_right():
    tokens = jnp.array([[0, 0, 5, 0, 6], [7, 8, 9, 10, 11]])
    np.testing.assert_array_equal(transformer.align_left(tokens), [[5, 6, 0, 0, 0], [7, 8, 9, 10, 11]])
    np.testing.assert_array_equal(transformer.align_left(jnp.array([[-1, 0, 5]]), pad=-1), [[0, 5, -1]])


def test_a_sequence_that_is_too_long_is_refused(params):
    with pytest.raises(ValueError, match="13 tokens, expected at most max_length 12"):
        encode(params, CONFIG, jnp.ones((1, 13), jnp.int32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heads", 3),
        ("width", 0),
        ("vocab_size", 0),
        ("pad", 3),
        ("architecture", Architecture(kv_heads=3)),
        ("architecture", Architecture(position="rotary", head_width=7)),
    ],
)
def test_impossible_sizes_are_refused(field, value):
    with pytest.raises(ValueError, match=r"width|sizes|kv_heads|pad"):
        transformer.Config(**{**vars(CONFIG), field: value})


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="position is 'learned', expected one of absolute, relative, rotary"):
        Architecture(**{"position": "learned"})


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="at least one layer"):
        transformer.Config(vocab_size=8, encoder_layers=0, decoder_layers=0)


def test_learns_to_copy_the_part_after_a_mark_in_few_steps():
    """Words never seen in training are copied, so it is not learned by heart."""
    config = transformer.Config(
        vocab_size=64, width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32, max_length=12
    )
    params = transformer.init(jax.random.key(0), config)
    optimiser = optax.adam(1e-2)

    def batch(key, low, high):
        source = jax.random.randint(key, (32, 10), low, high).at[:, 4].set(3)
        target = jnp.concatenate([source[:, 5:8], jnp.full((32, 1), 2)], axis=1)
        return source, target

    def loss(params, source, target):
        return -jnp.mean(sequence_log_prob(params, config, source, target)[0])

    @jax.jit
    def train(carry, key):
        params, moments = carry
        value, grads = jax.value_and_grad(loss)(params, *batch(key, 4, 34))
        updates, moments = optimiser.update(grads, moments)
        return (optax.apply_updates(params, updates), moments), value

    keys = jax.random.split(jax.random.key(1), 120)
    (trained, _), values = jax.lax.scan(train, (params, optimiser.init(params)), keys)
    assert values[-10:].mean() < 0.25 < values[0]
    assert jax.jit(loss)(trained, *batch(jax.random.key(2), 34, 64)) < 1.0


def plain_network(tied=True, scaled=False, vocab_size=24):
    form = Architecture("rotary", norm="scaled_rms", source_match=False, tied=tied, logit_scale=scaled)
    config = dataclasses.replace(CONFIG, encoder_layers=0, copy=False, vocab_size=vocab_size, architecture=form)
    return transformer.init(jax.random.key(2), config), config


@pytest.fixture
def few(monkeypatch):
    """Every number of logits is many."""
    monkeypatch.setattr(tiles, "FEW_LOGITS", 0)


@pytest.mark.parametrize(("tied", "scaled"), [(True, False), (False, True)])
def test_many_logits_are_never_all_there_and_say_the_same(few, tied, scaled):
    """Value and gradient; padding may be -1."""
    params, config = plain_network(tied, scaled)
    targets = jnp.array([[6, 7, 2, -1], [9, 10, 11, 2]])
    config = dataclasses.replace(config, pad=-1)

    def by_hand(params):
        log_p = transformer.log_probs(params, config, transformer.shift(targets, config.bos))
        chosen = jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        return jnp.where(targets < 0, 0.0, chosen)

    def chunked(params):
        return transformer.sequence_log_prob(params, config, None, targets)[0]

    np.testing.assert_allclose(chunked(params), by_hand(params), atol=1e-5)
    one, other = (jax.grad(lambda p, f=f: f(p).sum())(params) for f in (chunked, by_hand))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), one, other)


def test_the_copy_head_and_allowed_tokens_keep_their_way(few, params):
    """What the default network computes does not depend on how many logits are many."""
    for allowed in (None, jnp.ones((1, 1, 24), bool)):
        found, _ = transformer.sequence_log_prob(params, CONFIG, SOURCE, TARGET, allowed)
        log_p = full(params)
        expected = jnp.where(TARGET > 0, jnp.take_along_axis(log_p, TARGET[..., None], axis=-1)[..., 0], 0.0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_large_vocabulary_takes_the_memory_of_a_chunk():
    """Compiled, not run: 512 tokens over 49,152 entries are 100 MB of logits, twice that with the gradient."""
    params, config = plain_network(vocab_size=49_152)
    targets = jax.ShapeDtypeStruct((64, 8), jnp.int32)

    def loss(params, targets):
        return -transformer.sequence_log_prob(params, config, None, targets)[0].mean()

    logits = 64 * 8 * 49_152 * 4
    for function in (loss, jax.grad(loss)):
        memory = jax.jit(function).lower(params, targets).compile().memory_analysis()
        assert memory.temp_size_in_bytes < logits / 5


@pytest.mark.parametrize("copy", [True, False])
def test_entropy_is_the_sum_over_the_vocabulary(params, copy):
    config = dataclasses.replace(CONFIG, copy=copy)
    token, entropy, mask = transformer.sequence_entropy(params, config, SOURCE, TARGET)
    p = np.exp(np.float64(full(params, config)))
    np.testing.assert_allclose(entropy, np.where(TARGET > 0, -(p * np.log(p)).sum(axis=-1), 0), atol=1e-5)
    expected, same = sequence_log_prob(params, config, SOURCE, TARGET)
    np.testing.assert_allclose(token, expected, atol=1e-5)
    np.testing.assert_array_equal(mask, same)
