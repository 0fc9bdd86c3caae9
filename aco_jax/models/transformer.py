"""One network, many checkpoints: an encoder, a decoder with cross-attention, or both, with a copy head.

Pre-norm residual layers (Xiong et al. 2020, On Layer Normalization in the Transformer Architecture), RMSNorm
(Zhang & Sennrich 2019), squared-ReLU feed-forward (So et al. 2021, Primer), embeddings tied with the output.

The copy head is a pointer-generator (See et al. 2017, Get To The Point, eq. 8-9):
  p(w) = gate * p_vocab(w) + (1 - gate) * sum over source positions s with x_s = w of a_s.
Its pointer and the cross-attention see, as additive features, how a source token matches the decoder's input (see
`layers.view_of`): copying a run of rare tokens is then a matter of a few weights. It is the circuit that Olsson et
al. 2022 (In-context Learning and Induction Heads) found grown in trained models, given here from the start.

Published networks differ in what `config.Architecture` lists; `families` says which has what. Positions count from
the left and padding stands on the right, so padding never changes a value; `align_left` brings it there.
"""

from __future__ import annotations

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aco_jax.models import layers, positions
from aco_jax.models.config import PAD, Config
from aco_jax.models.layers import NEVER
from aco_jax.types import Params

Cache = dict[str, chex.ArrayTree]


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
) -> chex.Array:
    """Source tokens [B, S] -> memory [B, S, D]. A key turns dropout on; types [B, S] are 0 unless given."""
    return _apply(params, config, key, tokens, types, method="encode")


def decode(
    params: Params,
    config: Config,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
) -> chex.Array:
    """Causal hidden states [B, T, D] of inputs [B, T], attending to memory [B, S, D] of source [B, S]."""
    return _apply(params, config, key, inputs, memory, source, method="decode")


def log_probs(
    params: Params,
    config: Config,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
) -> chex.Array:
    """Normalised log-probabilities [B, T, V] of the token after each input, the copy mixture included."""
    hidden = decode(params, config, inputs, memory, source, key)
    return next_log_probs(params, config, hidden, inputs, memory, source)


def next_log_probs(
    params: Params,
    config: Config,
    hidden: chex.Array,
    inputs: chex.Array,
    memory: chex.Array | None = None,
    source: chex.Array | None = None,
) -> chex.Array:
    """`log_probs` of hidden states [B, T, D] that `decode` gave."""
    return _apply(params, config, None, hidden, inputs, memory, source, method="log_probs")


def sequence_log_prob(
    params: Params,
    config: Config,
    source: chex.Array | None,
    targets: chex.Array,
    allowed: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
    memory: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array]:
    """Log-probability of each target token given those before it and the source, without a scatter to V.

    Args:
      source: [B, S] tokens, or None for a decoder-only network.
      targets: [B, T] tokens, the end token included, 0 on the right.
      allowed: [B, T, V] bool (axes of size 1 broadcast), the tokens that decoding was held to; probabilities
        are then relative to them.
      memory: [B, S, D] of `encode`, where the source was read before.

    Returns:
      log_prob [B, T] in nats, 0 at padding, and mask [B, T] bool.
    """
    chex.assert_rank(targets, 2)
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    inputs, mask = shift(targets, config.bos), targets != config.pad
    if memory is None and source is not None:
        memory = encode(params, config, source, keys[0])
    hidden = decode(params, config, inputs, memory, source, keys[1])
    token = _apply(params, config, None, hidden, inputs, memory, source, targets, allowed, method="target_log_prob")
    return jnp.where(mask, token, 0.0), mask


def embed(params: Params, config: Config, tokens: chex.Array) -> chex.Array:
    """Tokens [B, T] -> unit vectors [B, D]: the masked mean of the last layer."""
    states = encode(params, config, tokens) if config.encoder_layers else decode(params, config, tokens)
    return pool(states, tokens, config.pad)


def pool(states: chex.Array, tokens: chex.Array, pad: int = PAD) -> chex.Array:
    """Hidden states [B, T, D] of tokens [B, T] -> unit vectors [B, D], their masked mean."""
    mask = (tokens != pad)[..., None]
    total = jnp.sum(jnp.where(mask, states, 0.0), axis=1)
    return total * jax.lax.rsqrt(jnp.sum(jnp.square(total), axis=-1, keepdims=True) + 1e-12)


def shift(targets: chex.Array, bos: int) -> chex.Array:
    """Decoder inputs of targets [B, T]: the begin token, then the targets without their last."""
    first = jnp.full_like(targets[:, :1], bos)
    return jnp.concatenate([first, targets[:, :-1]], axis=1)


def align_left(tokens: chex.Array, pad: int = PAD) -> chex.Array:
    """Tokens [B, T] with each row's padding moved to its right end, the rest in order."""
    return jnp.take_along_axis(tokens, jnp.argsort(tokens == pad, axis=1, stable=True), axis=1)


def start(params: Params, config: Config, source: chex.Array | None, rows: int, length: int) -> Cache:
    """An empty cache for decoding `length` tokens of `rows` rows, the source [B, S] read once."""
    memory = None if source is None else encode(params, config, source)
    return _apply(params, config, None, memory, source, rows, length, method="start")


def step(
    params: Params, config: Config, token: chex.Array, index: chex.Array, cache: Cache
) -> tuple[chex.Array, Cache]:
    """Log-probabilities [B, V] of the token after `token` [B], which stands at position `index` (scalar)."""
    return _apply(params, config, None, token, index, cache, method="step")


class Transformer(nn.Module):
    """The linen module under the functions above."""

    config: Config

    def setup(self) -> None:
        c, a = self.config, self.config.architecture
        table = {"absolute": (c.max_length, c.width), "relative": (a.buckets, c.heads)}.get(a.position)
        near = nn.initializers.constant(0.1 / math.sqrt(c.width))
        spread = nn.initializers.constant(1.0 / math.sqrt(c.width))
        self.embedding = self.param("embedding", spread, (c.vocab_size, c.width))
        if a.embedding_norm:
            self.embedding_norm = layers.norm(c)
        if c.encoder_layers:
            if a.token_types:
                self.type_embedding = self.param("type_embedding", spread, (a.token_types, c.width))
            if table:
                self.encoder_position = self.param("encoder_position", near, table)
            self.encoder = [layers.Layer(c, cross=False) for _ in range(c.encoder_layers)]
            if not a.post_norm:
                self.encoder_norm = layers.norm(c)
        if c.decoder_layers:
            if table:
                self.decoder_position = self.param("decoder_position", near, table)
            self.decoder = [layers.Layer(c, cross=c.encoder_layers > 0) for _ in range(c.decoder_layers)]
            if not a.post_norm:
                self.decoder_norm = layers.norm(c)
            if not a.tied:
                self.head = layers.dense(c.vocab_size)
        if c.copy and c.decoder_layers and c.encoder_layers:
            self.pointer = layers.Pointer(c)

    def __call__(self, source: chex.Array, inputs: chex.Array) -> chex.Array:
        """Touches every parameter once; `init` is its only caller."""
        memory = self.encode(source) if self.config.encoder_layers else None
        if not self.config.decoder_layers:
            return memory
        hidden = self.decode(inputs, memory, source if memory is not None else None)
        return self.log_probs(hidden, inputs, memory, source if memory is not None else None)

    def encode(self, tokens: chex.Array, types: chex.Array | None = None, train: bool = False) -> chex.Array:
        a, length = self.config.architecture, tokens.shape[1]
        x = self._read(tokens, self.encoder_position[:length] if a.position == "absolute" else None, types)
        bias = jnp.where(tokens != self.config.pad, 0.0, NEVER)[:, None, None]
        if a.position == "relative":
            bias = bias + self._relative(self.encoder_position, length, both_ways=True)
        turn = self._turn(jnp.arange(length)) if a.rotates else None
        for layer in self.encoder:
            x = layer(x, bias, train=train, turn=turn)
        return x if a.post_norm else self.encoder_norm(x)

    def decode(
        self, inputs: chex.Array, memory: chex.Array | None, source: chex.Array | None, train: bool = False
    ) -> chex.Array:
        a, length = self.config.architecture, inputs.shape[1]
        x = self._read(inputs, self.decoder_position[:length] if a.position == "absolute" else None)
        bias = jnp.where(jnp.tri(length, dtype=bool), 0.0, NEVER)[None, None]
        if a.position == "relative":
            bias = bias + self._relative(self.decoder_position, length, both_ways=False)
        turn = self._turn(jnp.arange(length)) if a.rotates else None
        view = None
        if memory is not None and source is not None:
            view = self._view(inputs, source)
        elif memory is not None:
            view = layers.View(jnp.ones((memory.shape[0], 1, memory.shape[1]), bool), None)
        for layer in self.decoder:
            cross = None if memory is None else layer.cross_keys(memory)
            x = layer(x, bias, cross, view, train=train, turn=turn)
        return x if a.post_norm else self.decoder_norm(x)

    def log_probs(
        self, hidden: chex.Array, inputs: chex.Array, memory: chex.Array | None, source: chex.Array | None
    ) -> chex.Array:
        logits = self._logits(hidden)
        if memory is None or source is None or not self.config.copy:
            return jax.nn.log_softmax(logits)
        return self._mix(logits, hidden, self.pointer.keys(memory), self._view(inputs, source), source)

    def target_log_prob(
        self,
        hidden: chex.Array,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        targets: chex.Array,
        allowed: chex.Array | None,
    ) -> chex.Array:
        logits = self._logits(hidden)
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
        held = jnp.zeros_like(chosen)
        if allowed is not None:
            held = jax.nn.logsumexp(jnp.where(allowed, logits, NEVER), axis=-1) - normaliser
        if memory is None or source is None or not self.config.copy:
            return chosen - held
        view = self._view(inputs, source)
        copies, gate = self.pointer(hidden, self.pointer.keys(memory), view)
        same = targets[:, :, None] == source[:, None, :]
        mixed = layers.mixture(jnp.exp(chosen), layers.gather(copies, same), gate)
        if allowed is None:
            return mixed
        rows = jnp.broadcast_to(allowed, (source.shape[0], *allowed.shape[1:]))
        at = jnp.broadcast_to(source[:, None], (source.shape[0], rows.shape[1], source.shape[1]))
        copyable = jnp.take_along_axis(rows, at, axis=-1)
        return mixed - layers.mixture(jnp.exp(held), layers.gather(copies, copyable), gate)

    def start(self, memory: chex.Array | None, source: chex.Array | None, rows: int, length: int) -> Cache:
        c = self.config
        empty = jnp.zeros((rows, length, c.kv_heads, c.head_width))
        cache: Cache = {"own": [(empty, empty) for _ in self.decoder]}
        if memory is not None and source is not None:
            cache |= {"cross": [layer.cross_keys(memory) for layer in self.decoder], "source": source}
            cache |= {"before": jnp.zeros((rows, 1), jnp.int32), "used": jnp.zeros(source.shape, bool)}
            if c.copy:
                cache["pointer"] = self.pointer.keys(memory)
        return cache

    def step(self, token: chex.Array, index: chex.Array, cache: Cache) -> tuple[chex.Array, Cache]:
        a, inputs, source = self.config.architecture, token[:, None], cache.get("source")
        keys = jnp.arange(cache["own"][0][0].shape[1])
        near = None
        if a.position == "absolute":
            near = jax.lax.dynamic_slice_in_dim(self.decoder_position, index, 1)
        x = self._read(inputs, near)
        bias = jnp.where(keys <= index, 0.0, NEVER)[None, None, None]
        if a.position == "relative":
            back = positions.buckets(-np.arange(len(keys)), a.buckets, a.reach, both_ways=False)
            bias = bias + self.decoder_position[jnp.asarray(back)[jnp.abs(index - keys)]].T[None, :, None]
        turn = self._turn(jnp.reshape(index, (1,))) if a.rotates else None
        view = None
        if source is not None:
            view = layers.view_of(inputs, source, cache["before"], cache["used"], self.config.pad)
            cache = cache | {"before": inputs, "used": cache["used"] | (inputs == source)}
        own = []
        for number, layer in enumerate(self.decoder):
            cross = None if source is None else cache["cross"][number]
            x, kept = layer.step(x, cache["own"][number], index, bias, cross, view, turn)
            own.append(kept)
        hidden, cache = x if a.post_norm else self.decoder_norm(x), cache | {"own": own}
        logits = self._logits(hidden)
        if view is not None and "pointer" in cache:
            return self._mix(logits, hidden, cache["pointer"], view, source)[:, 0], cache
        return jax.nn.log_softmax(logits)[:, 0], cache

    def _read(self, tokens: chex.Array, near: chex.Array | None, types: chex.Array | None = None) -> chex.Array:
        """Embeddings of tokens [B, T], with those of their positions [T, D] and types [B, T] where there are any."""
        a, x = self.config.architecture, self.embedding[tokens]
        if near is not None:
            if tokens.shape[1] > near.shape[0]:
                raise ValueError(f"{tokens.shape[1]} tokens, expected at most max_length {near.shape[0]}")
            x = x + near[None]
        if a.token_types:
            x = x + self.type_embedding[jnp.zeros_like(tokens) if types is None else types]
        if a.embedding_scale:
            x = x * math.sqrt(self.config.width)
        return self.embedding_norm(x) if a.embedding_norm else x

    def _relative(self, table: chex.Array, length: int, both_ways: bool) -> chex.Array:
        """Additive bias [1, H, T, T] of the distances among `length` positions."""
        a, places = self.config.architecture, np.arange(length)
        of = positions.buckets(places[None] - places[:, None], a.buckets, a.reach, both_ways)
        return table[of].transpose(2, 0, 1)[None]

    def _turn(self, places: chex.Array) -> positions.Rotation:
        return positions.rotation(places, self.config.head_width, self.config.architecture.rotary_base)

    def _view(self, inputs: chex.Array, source: chex.Array) -> layers.View:
        before = jnp.pad(inputs, ((0, 0), (1, 0)))[:, :-1]
        return layers.view_of(inputs, source, before, jnp.zeros(source.shape, bool), self.config.pad)

    def _logits(self, hidden: chex.Array) -> chex.Array:
        a, flat = self.config.architecture, hidden.reshape(-1, hidden.shape[-1])
        if a.logit_scale:
            flat = flat / math.sqrt(self.config.width)
        # One matrix product; a batched one is slower on a CPU.
        logits = flat @ self.embedding.T if a.tied else self.head(flat)
        return logits.reshape(*hidden.shape[:-1], -1)

    def _mix(
        self, logits: chex.Array, hidden: chex.Array, keys: chex.Array, view: layers.View, source: chex.Array
    ) -> chex.Array:
        copies, gate = self.pointer(hidden, keys, view)
        return layers.mixture(
            jax.nn.softmax(logits), layers.scatter(copies, source, self.config.vocab_size), gate[..., None]
        )


def _apply(params: Params, config: Config, key: chex.PRNGKey | None, *args: object, method: str) -> chex.Array:
    train = {"train": True} if key is not None and config.dropout else {}
    rngs = {} if key is None else {"dropout": key}
    return Transformer(config).apply({"params": params}, *args, **train, rngs=rngs, method=method)
