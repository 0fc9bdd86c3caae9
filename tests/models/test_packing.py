"""Padding on either side, packed rows and batches: every sequence has the values that it has alone."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import packing, pretrained, transformer
from aco_jax.models.config import Architecture
from aco_jax.models.packing import Segments

GOLDEN = Path(__file__).parent / "golden"
RNG = np.random.default_rng(0)
ROWS = [RNG.integers(3, 20, size=n).tolist() for n in (7, 2, 7, 1, 2)]
SOURCES = [RNG.integers(3, 20, size=n).tolist() for n in (2, 6, 2, 5, 6)]
ROWS[2][3:5] = SOURCES[2]  # something to copy
LENGTH = 12
TOLERANCE = 2e-5
encode = jax.jit(transformer.encode, static_argnames="config")
log_probs = jax.jit(transformer.log_probs, static_argnames="config")
sequence_log_prob = jax.jit(transformer.sequence_log_prob, static_argnames="config")

ROTARY = {"position": "rotary", "norm": "scaled_rms", "activation": "silu", "gated": True, "source_match": False}
FORMS = {
    "own": {},
    "relative": {"position": "relative", "buckets": 4, "reach": 6, "attention_scale": False, "source_match": False},
    "rotary": ROTARY | {"kv_heads": 2, "query_key_norm": True},
    "interleaved": ROTARY | {"position": "interleaved"},
    "post_norm": {"norm": "layer", "post_norm": True, "bias": "all", "embedding_norm": True, "source_match": False},
}


def network(name, layers):
    form = Architecture(**FORMS[name])
    config = transformer.Config(
        *(20, 16, 4, layers, 2, 32, LENGTH), copy=name == "own", pad=0 if layers else -1, architecture=form
    )
    fresh = transformer.init(jax.random.key(0), config)
    waved = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape), fresh)
    return waved, config


def padded(rows, pad, left):
    full = [[pad] * (LENGTH - len(row)) for row in rows]
    return jnp.array([more + row if left else row + more for row, more in zip(rows, full, strict=True)], jnp.int32)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_decoder_says_what_it_says_of_each_alone(name, side):
    params, config = network(name, layers=0)
    tokens = padded(ROWS, config.pad, side == "left")
    found = log_probs(params, config, tokens, segments=Segments(packing.segments_of(tokens, config.pad)))
    valid = np.asarray(tokens) != config.pad
    for row, said, at in zip(ROWS, found, valid, strict=True):
        np.testing.assert_allclose(said[at], log_probs(params, config, jnp.array([row]))[0], atol=TOLERANCE)


@pytest.mark.parametrize("name", FORMS)
def test_a_packed_decoder_says_what_it_says_of_each_alone(name):
    params, config = network(name, layers=0)
    tokens, segments, where = packing.pack(ROWS, LENGTH, config.pad)
    assert len(tokens) == 2
    found = log_probs(params, config, jnp.asarray(tokens), segments=Segments(jnp.asarray(segments)))
    each, mask = sequence_log_prob(params, config, None, jnp.asarray(tokens), segments=Segments(jnp.asarray(segments)))
    for row, (at, first) in zip(ROWS, where, strict=True):
        here = slice(first, first + len(row))
        alone = log_probs(params, config, jnp.array([row]))[0]
        np.testing.assert_allclose(found[at, here], alone, atol=TOLERANCE)
        expected, _ = sequence_log_prob(params, config, None, jnp.array([row]))
        np.testing.assert_allclose(each[at, here], expected[0], atol=TOLERANCE)
        assert mask[at, here].all()
    assert mask.sum() == sum(map(len, ROWS))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("side", ["left", "right", "packed"])
def test_an_encoder_and_its_decoder_too(name, side):
    """Packed: sources and targets each in one row, a target's number that of its source."""
    params, config = network(name, layers=1)
    if side == "packed":
        order = np.arange(2)
        source, target = (jnp.array([[*rows[0], *rows[1], *[0] * 3]]) for rows in (SOURCES, ROWS))
        numbers = [np.repeat([1, 2, 0], [len(rows[0]), len(rows[1]), 3])[None] for rows in (SOURCES, ROWS)]
        segments = Segments(jnp.asarray(numbers[1]), jnp.asarray(numbers[0]))
        where = [(0, numbers[1][0] == 1), (0, numbers[1][0] == 2)]
        read = [(0, numbers[0][0] == 1), (0, numbers[0][0] == 2)]
    else:
        order = np.arange(len(ROWS))
        source, target = (padded(rows, 0, side == "left") for rows in (SOURCES, ROWS))
        segments = Segments(packing.segments_of(target), packing.segments_of(source))
        where, read = ([(i, np.asarray(x)[i] != 0) for i in order] for x in (target, source))
    memory = encode(params, config, source, segments=segments.source)
    inputs = transformer.shift(target, config.bos, segments)
    every = log_probs(params, config, inputs, memory, source, segments=segments)
    found, _ = sequence_log_prob(params, config, source, target, segments=segments)
    for i in order:
        one, row = jnp.array([SOURCES[i]]), jnp.array([ROWS[i]])
        alone = encode(params, config, one)
        np.testing.assert_allclose(memory[read[i][0]][read[i][1]], alone[0], atol=TOLERANCE)
        expected, _ = sequence_log_prob(params, config, one, row)
        np.testing.assert_allclose(found[where[i][0]][where[i][1]], expected[0], atol=TOLERANCE)
        expected = log_probs(params, config, transformer.shift(row, config.bos), alone, one)
        np.testing.assert_allclose(every[where[i][0]][where[i][1]], expected[0], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["t5", "flan_t5", "bert", "llama", "smollm2", "qwen2", "qwen3"])
def test_what_torch_said_of_each_alone_is_said_of_them_padded_on_the_left(name):
    """Golden files, see make_golden.py; qwen and llama have a word for token 0."""
    params, config = pretrained.from_hugging_face(GOLDEN / name)
    expected = np.load(GOLDEN / name / "expected.npz")
    tokens, lengths = expected["tokens"], expected["lengths"]
    each = zip(tokens, lengths, strict=True)
    left = jnp.asarray(np.stack([np.pad(row[:n], (8 - n, 0), constant_values=config.pad) for row, n in each]))
    own = packing.segments_of(left, config.pad)
    if not config.decoder_layers:
        types = np.stack([np.pad(row[:n], (8 - n, 0)) for row, n in zip(expected["types"], lengths, strict=True)])
        found, said = encode(params, config, left, None, types, own), expected["values"]
    elif config.encoder_layers:
        inputs = jnp.asarray(expected["inputs"])
        found, said = (
            log_probs(
                *(params, config, inputs, encode(params, config, left, segments=own), left),
                segments=Segments(jnp.ones_like(inputs), own),
            ),
            jax.nn.log_softmax(expected["values"]),
        )
        lengths = [inputs.shape[1]] * 3
    else:
        found, said = log_probs(params, config, left, segments=Segments(own)), jax.nn.log_softmax(expected["values"])
    for mine, theirs, length in zip(found, said, lengths, strict=True):
        np.testing.assert_allclose(mine[-length:], theirs[:length], atol=1e-4)


def test_nothing_leaks_between_segments():
    """Other words in the other segments leave the values as they are, to the bit."""
    params, config = network("rotary", layers=0)
    tokens, segments, where = packing.pack(ROWS, LENGTH, config.pad)
    row, first = where[1]
    here, own = slice(first, first + len(ROWS[1])), Segments(jnp.asarray(segments))
    others = (segments != segments[row, first]) & (segments > 0)
    assert others[row].any()
    found, again = (
        log_probs(params, config, jnp.asarray(x), segments=own)[row, here]
        for x in (tokens, np.where(others, 19, tokens))
    )
    np.testing.assert_array_equal(again, found)


def test_pack_keeps_every_sequence_once_and_in_as_few_rows():
    tokens, segments, where = packing.pack([[5] * 4, [6] * 6, [7] * 2, [8] * 6], 10)
    assert tokens.shape == (2, 10)
    for (row, first), n, word in zip(where, (4, 6, 2, 6), (5, 6, 7, 8), strict=True):
        here = slice(first, first + n)
        np.testing.assert_array_equal(tokens[row, here], word)
        assert len(set(segments[row, here].tolist())) == 1
    assert (tokens > 0).sum() == (segments > 0).sum() == 18
    np.testing.assert_array_equal(segments == 0, tokens == 0)
    with pytest.raises(ValueError, match="a sequence of 4 tokens, expected at most 3"):
        packing.pack([[5] * 4], 3)


def test_places_by_hand():
    segments = jnp.array([[0, 0, 1, 1, 1, 2], [3, 1, 1, 2, 2, 0]])
    np.testing.assert_array_equal(packing.places(segments), [[0, 1, 0, 1, 2, 0], [0, 0, 1, 0, 1, 0]])
    tokens = jnp.array([[0, 0, 5, 6, 7, 8], [5, 6, 7, 8, 9, 0]])
    np.testing.assert_array_equal(packing.before(tokens, 1, segments), [[0, 0, 0, 5, 6, 0], [0, 0, 6, 0, 8, 0]])
    np.testing.assert_array_equal(packing.before(tokens, 2), [[0, 0, 0, 0, 5, 6], [0, 0, 5, 6, 7, 8]])
