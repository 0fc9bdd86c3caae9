"""One network, many checkpoints: an encoder, a decoder with cross-attention, or both, with a copy head.

Pre-norm residual layers (Xiong et al. 2020, On Layer Normalization in the Transformer Architecture), RMSNorm
(Zhang & Sennrich 2019), squared-ReLU feed-forward (So et al. 2021, Primer), embeddings tied with the output.

The copy head is a pointer-generator (See et al. 2017, Get To The Point, eq. 8-9):
  p(w) = gate * p_vocab(w) + (1 - gate) * sum over source positions s with x_s = w of a_s.
Its pointer and the cross-attention see, as additive features, how a source token matches the decoder's input (see
`layers.view_of`): copying a run of rare tokens is then a matter of a few weights. It is the circuit that Olsson et
al. 2022 (In-context Learning and Induction Heads) found grown in trained models, given here from the start.

Published networks differ in what `config.Architecture` lists; `families` says which has what. Positions count from
the left and padding stands on the right, so padding never changes a value; `align_left` brings it there. Padding on any
side, and several sequences in a row, need no moving where their segments are given (see `packing`).
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.models import layers, packing
from aco_jax.models.config import PAD, Config
from aco_jax.models.network import Cache, Transformer
from aco_jax.models.packing import Segments
from aco_jax.types import Params


@functools.partial(jax.jit, static_argnames="config")
def init(key: chex.PRNGKey, config: Config) -> Params:
    """Fresh parameters, a plain nested dict of float32.

    The module gives the standard deviation of each random entry; one draw serves them all, which compiles ten times
    faster than a draw for each.
    """
    tokens = jnp.ones((1, 2), jnp.int32)
    spread = Transformer(config).init(key, tokens, tokens)["params"]
    found, tree = jax.tree_util.tree_flatten_with_path(spread)
    stops = np.cumsum([leaf.size for _, leaf in found])
    parts = jnp.split(jax.random.normal(key, (stops[-1],)), stops[:-1])
    drawn = [
        leaf * part.reshape(leaf.shape) if layers.is_random(path[-1].key) else leaf
        for part, (path, leaf) in zip(parts, found, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


def encode(
    params: Params,
    config: Config,
    tokens: chex.Array,
    key: chex.PRNGKey | None = None,
    types: chex.Array | None = None,
    segments: chex.Array | None = None,
) -> chex.Array:
    """Source tokens [B, S] -> memory [B, S, D]. A key turns dropout on; types [B, S] are 0 unless given."""
    return _apply(params, config, key, tokens, types, segments, method="encode")


def decode(
    params: Params,
    config: Config,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
    segments: Segments | None = None,
) -> chex.Array:
    """Causal hidden states [B, T, D] of inputs [B, T], attending to memory [B, S, D] of source [B, S]."""
    return _apply(params, config, key, inputs, memory, source, segments, method="decode")


def decode_at(params: Params, config: Config, inputs: chex.Array, place: chex.Array) -> chex.Array:
    """Of `decode` the state of one position `place` [B] of each row of inputs [B, T], [B, D], and no other.

    Of the last layer all positions are keys and values, one alone is the query and goes through the feed-forward part.
    For a decoder without a memory.
    """
    return _apply(params, config, None, inputs, place, method="decode_at")


def log_probs(
    params: Params,
    config: Config,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
    segments: Segments | None = None,
) -> chex.Array:
    """Normalised log-probabilities [B, T, V] of the token after each input, the copy mixture included."""
    hidden = decode(params, config, inputs, memory, source, key, segments)
    return next_log_probs(params, config, hidden, inputs, memory, source, segments)


def next_log_probs(
    params: Params,
    config: Config,
    hidden: chex.Array,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
    segments: Segments | None = None,
) -> chex.Array:
    """`log_probs` of hidden states [B, T, D] that `decode` gave."""
    return _apply(params, config, None, hidden, inputs, memory, source, segments, method="log_probs")


def sequence_log_prob(
    params: Params,
    config: Config,
    source: chex.Array | None,
    targets: chex.Array,
    allowed: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
    memory: chex.Array | None = None,
    segments: Segments | None = None,
    temperature: float = 1.0,
) -> tuple[chex.Array, chex.Array]:
    """Log-probability of each target token given those before it and the source, without a scatter to V.

    Args:
      source: [B, S] tokens, or None. A decoder alone reads them before the targets, as one row (`prompted`).
      targets: [B, T] tokens, the end token included, 0 on the right.
      allowed: [B, T, V] bool (axes of size 1 broadcast), the tokens that decoding was held to; probabilities
        are then relative to them.
      memory: [B, S, D] of `encode`, where the source was read before.
      segments: of targets and source, where padding stands elsewhere or rows hold several sequences; not of a
        decoder alone with a source.
      temperature: that the targets were decoded at; other than 1 it takes all of [B, T, V].

    Returns:
      log_prob [B, T] in nats, 0 at padding, and mask [B, T] bool.
    """
    chex.assert_rank(targets, 2)
    if source is not None and not config.encoder_layers:
        if segments is not None:
            raise ValueError("segments, expected none for a decoder alone that reads a source")
        row, parts = prompted(config, source, targets)
        return continued_log_prob(params, config, row, targets, parts, allowed, key, temperature)
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    inputs, mask = shift(targets, config.bos, segments), targets != config.pad
    if memory is None and source is not None:
        memory = encode(params, config, source, keys[0], segments=None if segments is None else segments.source)
    hidden = decode(params, config, inputs, memory, source, keys[1], segments)
    given = (hidden, inputs, memory, source, targets, allowed, segments, temperature)
    token = _apply(params, config, None, *given, method="target_log_prob")
    return jnp.where(mask, token, 0.0), mask


def sequence_entropy(
    params: Params,
    config: Config,
    source: chex.Array | None,
    targets: chex.Array,
    segments: Segments | None = None,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """`sequence_log_prob`, and the entropy of the distribution that each target token was one of.

    Returns:
      log_prob and entropy [B, T] in nats, 0 at padding, and mask [B, T] bool. Of many logits a chunk at a time, where
      the network has no copy head.
    """
    chex.assert_rank(targets, 2)
    inputs, mask = shift(targets, config.bos, segments), targets != config.pad
    memory = None
    if source is not None:
        memory = encode(params, config, source, segments=None if segments is None else segments.source)
    hidden = decode(params, config, inputs, memory, source, segments=segments)
    if source is None or not config.copy:
        token, entropy = _apply(params, config, None, hidden, targets, method="plain_log_prob")
    else:
        log_p = next_log_probs(params, config, hidden, inputs, memory, source, segments)
        token = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return jnp.where(mask, token, 0.0), jnp.where(mask, entropy, 0.0), mask


def continued_log_prob(
    params: Params,
    config: Config,
    inputs: chex.Array,
    targets: chex.Array,
    segments: Segments | None = None,
    allowed: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
    temperature: float = 1.0,
) -> tuple[chex.Array, chex.Array]:
    """Log-probability (nats) and mask [B, T] of targets [B, T], each after one of the last T of inputs [B, L].

    Of a decoder alone, which read what stands before them, as a prompt, in the same row; among the tokens `allowed`
    [B, T, V] where these are given, at a temperature.
    """
    hidden, mask = decode(params, config, inputs, key=key, segments=segments), targets != config.pad
    first = inputs.shape[1] - targets.shape[1]
    own, none = (hidden[:, first:], inputs[:, first:]), (None, None)
    token = _apply(params, config, None, *own, *none, targets, allowed, None, temperature, method="target_log_prob")
    return jnp.where(mask, token, 0.0), mask


def prompted(config: Config, source: chex.Array, targets: chex.Array) -> tuple[chex.Array, Segments]:
    """What a decoder alone reads to write targets [B, T] after source [B, S]: [B, S + T], and its segments.

    Padding, begin token, source and the targets without their last token.
    """
    read = ending_together(source, config.pad, config.bos)
    row = jnp.concatenate([read, targets[:, :-1]], axis=1)
    return row, Segments(packing.segments_of(row, config.pad))


def embed(params: Params, config: Config, tokens: chex.Array) -> chex.Array:
    """Tokens [B, T] -> unit vectors [B, D]: the masked mean of the last layer."""
    states = encode(params, config, tokens) if config.encoder_layers else decode(params, config, tokens)
    return pool(states, tokens, config.pad)


def pool(states: chex.Array, tokens: chex.Array, pad: int = PAD) -> chex.Array:
    """Hidden states [B, T, D] of tokens [B, T] -> unit vectors [B, D], their masked mean."""
    mask = (tokens != pad)[..., None]
    total = jnp.sum(jnp.where(mask, states, 0.0), axis=1)
    return total * jax.lax.rsqrt(jnp.sum(jnp.square(total), axis=-1, keepdims=True) + 1e-12)


def shift(targets: chex.Array, bos: int, segments: Segments | None = None) -> chex.Array:
    """Decoder inputs of targets [B, T]: the begin token, then the targets without their last; so in each segment."""
    first = jnp.full_like(targets[:, :1], bos)
    inputs = jnp.concatenate([first, targets[:, :-1]], axis=1)
    return inputs if segments is None else jnp.where(packing.begins(segments.own), bos, inputs)


def align_left(tokens: chex.Array, pad: int = PAD) -> chex.Array:
    """Tokens [.., T] with each row's padding moved to its right end, the rest in order."""
    return jnp.take_along_axis(tokens, jnp.argsort(tokens == pad, axis=-1, stable=True), axis=-1)


def ending_together(tokens: chex.Array, pad: int = PAD, bos: int | chex.Array | None = None) -> chex.Array:
    """Tokens [B, T] with each row's padding moved to its left end, and the begin token, if any, before them."""
    tokens = tokens.astype(jnp.int32)
    if bos is not None:
        tokens = jnp.concatenate([jnp.full_like(tokens[:, :1], bos), tokens], axis=1)
    return align_left(tokens[:, ::-1], pad)[:, ::-1]


def cast(params: Params, config: Config) -> Params:
    """The parameters in the type that the network computes in; what is learned stays float32 (Micikevicius 2018)."""
    if config.compute == "float32":
        return params
    return jax.tree.map(lambda leaf: leaf.astype(config.compute) if leaf.dtype == jnp.float32 else leaf, params)


def start(params: Params, config: Config, source: chex.Array | None, rows: int, length: int) -> Cache:
    """An empty cache for decoding `length` tokens of `rows` rows, the source [B, S] read once."""
    memory = None if source is None else encode(params, config, source)
    return _apply(params, config, None, memory, source, rows, length, method="start")


def read(params: Params, config: Config, inputs: chex.Array, cache: Cache) -> Cache:
    """The empty cache of a decoder alone after inputs [B, T] at its first positions, read at once.

    Padding stands on the right, or on the left, as many tokens as the cache's `padding` [B] says.
    """
    return _apply(params, config, None, inputs, cache, method="read")


def step(
    params: Params, config: Config, token: chex.Array, index: chex.Array, cache: Cache
) -> tuple[chex.Array, Cache]:
    """Log-probabilities [B, V] of the token after `token` [B], which is at `index` (scalar) of the cache."""
    return _apply(params, config, None, token, index, cache, method="step")


def _apply(params: Params, config: Config, key: chex.PRNGKey | None, *args: object, method: str) -> chex.Array:
    train = {"train": True} if key is not None and config.dropout else {}
    rngs = {} if key is None else {"dropout": key}
    return Transformer(config).apply({"params": cast(params, config)}, *args, **train, rngs=rngs, method=method)
