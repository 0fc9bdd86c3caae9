"""One network, many checkpoints: an encoder, a decoder with cross-attention, or both, with a copy head.

Pre-norm residual layers (Xiong et al. 2020, On Layer Normalization in the Transformer Architecture), RMSNorm
(Zhang & Sennrich 2019), squared-ReLU feed-forward (So et al. 2021, Primer), embeddings tied with the output.

The copy head is a pointer-generator (See et al. 2017, Get To The Point, eq. 8-9):
  p(w) = gate * p_vocab(w) + (1 - gate) * sum over source positions s with x_s = w of a_s.
Both its pointer and the cross-attention see, as additive features, whether a source token equals the decoder's current
token, and whether the one before it does: copying a run of rare tokens is then a matter of a few weights
(the circuit that Olsson et al. 2022 found grown in trained models, given here from the start).

Where variants go: positions enter in `Transformer._read` alone, norms are made by `_norm` alone, and every attention
takes an additive bias `[B, H, T, S]`, so a relative-position bias is one more summand of it.
Positions are absolute from the left and padding (token 0) stands on the right, so padding never changes a value.
"""

from __future__ import annotations

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from aco_jax.types import Params

PAD = 0
NEVER = -1e9  # a logit that is never chosen, finite so that gradients stay finite

Cache = dict[str, chex.ArrayTree]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. `encoder_layers=0` is decoder-only, `decoder_layers=0` is an encoder."""

    vocab_size: int
    width: int = 96
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    mlp_width: int = 288
    max_length: int = 128  # tokens, of the longest source or target
    dropout: float = 0.0  # share of each residual branch's outputs
    copy: bool = True  # pointer head over the source
    gate: float = -1.0  # the gate's logit at the start; below 0 favours copying
    bos: int = 1  # token that begins every target

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if min(self.vocab_size, self.width, self.heads, self.mlp_width, self.max_length) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if self.encoder_layers + self.decoder_layers < 1:
            raise ValueError("a network needs at least one layer")


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Fresh parameters, a plain nested dict of float32."""
    tokens = jnp.ones((1, 2), jnp.int32)
    return Transformer(config).init(key, tokens, tokens)["params"]


def encode(params: Params, config: Config, tokens: chex.Array, key: chex.PRNGKey | None = None) -> chex.Array:
    """Source tokens [B, S] -> memory [B, S, D]. A key turns dropout on."""
    return _apply(params, config, key, tokens, method="encode")


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
    return _apply(params, config, None, hidden, inputs, memory, source, method="log_probs")


def sequence_log_prob(
    params: Params,
    config: Config,
    source: chex.Array | None,
    targets: chex.Array,
    allowed: chex.Array | None = None,
    key: chex.PRNGKey | None = None,
) -> tuple[chex.Array, chex.Array]:
    """Log-probability of each target token given those before it and the source, without a scatter to V.

    Args:
      source: [B, S] tokens, or None for a decoder-only network.
      targets: [B, T] tokens, the end token included, 0 on the right.
      allowed: [B, T, V] bool (axes of size 1 broadcast), the tokens that decoding was held to; probabilities are
        then relative to them.

    Returns:
      log_prob [B, T] in nats, 0 at padding, and mask [B, T] bool.
    """
    chex.assert_rank(targets, 2)
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    inputs, mask = shift(targets, config.bos), targets != PAD
    memory = None if source is None else encode(params, config, source, keys[0])
    hidden = decode(params, config, inputs, memory, source, keys[1])
    token = _apply(
        params, config, None, hidden, inputs, memory, source, targets, allowed, method="target_log_prob"
    )
    return jnp.where(mask, token, 0.0), mask


def embed(params: Params, config: Config, tokens: chex.Array) -> chex.Array:
    """Tokens [B, T] -> unit vectors [B, D]: the masked mean of the last layer."""
    states = encode(params, config, tokens) if config.encoder_layers else decode(params, config, tokens)
    mask = (tokens != PAD)[..., None]
    total = jnp.sum(jnp.where(mask, states, 0.0), axis=1)
    return total * jax.lax.rsqrt(jnp.sum(jnp.square(total), axis=-1, keepdims=True) + 1e-12)


def shift(targets: chex.Array, bos: int) -> chex.Array:
    """Decoder inputs of targets [B, T]: the begin token, then the targets without their last."""
    first = jnp.full_like(targets[:, :1], bos)
    return jnp.concatenate([first, targets[:, :-1]], axis=1)


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
        c = self.config
        positions = nn.initializers.normal(0.1 / math.sqrt(c.width))
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0 / math.sqrt(c.width)), (c.vocab_size, c.width)
        )
        if c.encoder_layers:
            self.encoder_position = self.param("encoder_position", positions, (c.max_length, c.width))
            self.encoder = [_Layer(c, cross=False) for _ in range(c.encoder_layers)]
            self.encoder_norm = _norm()
        if c.decoder_layers:
            self.decoder_position = self.param("decoder_position", positions, (c.max_length, c.width))
            self.decoder = [_Layer(c, cross=c.encoder_layers > 0) for _ in range(c.decoder_layers)]
            self.decoder_norm = _norm()
        if c.copy and c.decoder_layers and c.encoder_layers:
            self.pointer = _Pointer(c)

    def __call__(self, source: chex.Array, inputs: chex.Array) -> chex.Array:
        """Touches every parameter once; `init` is its only caller."""
        memory = self.encode(source) if self.config.encoder_layers else None
        if not self.config.decoder_layers:
            return memory
        hidden = self.decode(inputs, memory, source if memory is not None else None)
        return self.log_probs(hidden, inputs, memory, source if memory is not None else None)

    def encode(self, tokens: chex.Array, train: bool = False) -> chex.Array:
        x = self._read(tokens, self.encoder_position[: tokens.shape[1]])
        bias = _bias(tokens != PAD)
        for layer in self.encoder:
            x = layer(x, bias, train=train)
        return self.encoder_norm(x)

    def decode(
        self,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        train: bool = False,
    ) -> chex.Array:
        x = self._read(inputs, self.decoder_position[: inputs.shape[1]])
        causal = jnp.where(jnp.tri(inputs.shape[1], dtype=bool), 0.0, NEVER)[None, None]
        bias, match = _source_view(inputs, memory, source)
        for layer in self.decoder:
            cross = None if memory is None else layer.cross_keys(memory)
            x = layer(x, causal, cross, bias, match, train=train)
        return self.decoder_norm(x)

    def log_probs(
        self, hidden: chex.Array, inputs: chex.Array, memory: chex.Array | None, source: chex.Array | None
    ) -> chex.Array:
        vocab = jax.nn.log_softmax(self._logits(hidden))
        if memory is None or not self.config.copy:
            return vocab
        bias, match = _source_view(inputs, memory, source)
        return self._mix(vocab, *self.pointer(hidden, self.pointer.keys(memory), bias, match), source)

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
        held = None
        if allowed is not None:
            held = jax.nn.logsumexp(jnp.where(allowed, logits, NEVER), axis=-1) - normaliser
        if memory is None or not self.config.copy:
            return chosen if held is None else chosen - held
        bias, match = _source_view(inputs, memory, source)
        copies, gate = self.pointer(hidden, self.pointer.keys(memory), bias, match)
        mixed = _gated(chosen, copies, gate, targets[:, :, None] == source[:, None, :])
        if allowed is None or held is None:
            return mixed
        at = jnp.broadcast_to(source[:, None, :], copies.shape)
        full = jnp.broadcast_to(allowed, (*copies.shape[:2], allowed.shape[-1]))
        return mixed - _gated(held, copies, gate, jnp.take_along_axis(full, at, axis=-1))

    def start(self, memory: chex.Array | None, source: chex.Array | None, rows: int, length: int) -> Cache:
        c = self.config
        empty = jnp.zeros((rows, length, c.heads, c.width // c.heads))
        cache: Cache = {"own": [(empty, empty) for _ in self.decoder]}
        if memory is not None:
            cache |= {"cross": [layer.cross_keys(memory) for layer in self.decoder], "source": source}
        if memory is not None and c.copy:
            cache["pointer"] = self.pointer.keys(memory)
        return cache

    def step(self, token: chex.Array, index: chex.Array, cache: Cache) -> tuple[chex.Array, Cache]:
        inputs = token[:, None]
        x = self._read(inputs, jax.lax.dynamic_slice_in_dim(self.decoder_position, index, 1))
        past = jnp.where(jnp.arange(cache["own"][0][0].shape[1]) <= index, 0.0, NEVER)[None, None, None]
        source = cache.get("source")
        bias, match = _source_view(inputs, source, source)
        own = []
        for number, layer in enumerate(self.decoder):
            cross = None if source is None else cache["cross"][number]
            x, kept = layer.step(x, cache["own"][number], index, past, cross, bias, match)
            own.append(kept)
        hidden, cache = self.decoder_norm(x), cache | {"own": own}
        vocab = jax.nn.log_softmax(self._logits(hidden))
        if "pointer" in cache:
            vocab = self._mix(vocab, *self.pointer(hidden, cache["pointer"], bias, match), source)
        return vocab[:, 0], cache

    def _read(self, tokens: chex.Array, positions: chex.Array) -> chex.Array:
        return (self.embedding[tokens] + positions[None]) * math.sqrt(self.config.width)

    def _logits(self, hidden: chex.Array) -> chex.Array:
        flat = hidden.reshape(-1, hidden.shape[-1])  # one matrix product; a batched one is slower on a CPU
        return (flat @ self.embedding.T).reshape(*hidden.shape[:-1], -1)

    def _mix(self, vocab: chex.Array, copies: chex.Array, gate: chex.Array, source: chex.Array) -> chex.Array:
        # Measured on a CPU: adding whole columns by row is ten times faster than a product with one-hot rows.
        empty = jnp.zeros((self.config.vocab_size, copies.shape[1]))
        add = jax.vmap(lambda mass, ids: empty.at[ids].add(mass.T).T)
        copied = add(jnp.exp(copies), source)
        return jnp.logaddexp(
            jax.nn.log_sigmoid(gate)[..., None] + vocab,
            jax.nn.log_sigmoid(-gate)[..., None] + jnp.log(jnp.maximum(copied, 1e-30)),
        )


class _Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward: each added to its input."""

    config: Config
    cross: bool

    def setup(self) -> None:
        self.own_norm, self.own = _norm(), _Attention(self.config)
        if self.cross:
            self.cross_norm, self.memory = _norm(), _Attention(self.config)
            self.match = self.param("match", _match_init, (2, self.config.heads))
        self.mlp_norm, self.mlp = _norm(), _Mlp(self.config)
        self.drop = nn.Dropout(self.config.dropout)

    def __call__(
        self,
        x: chex.Array,
        own_bias: chex.Array,
        cross: tuple[chex.Array, chex.Array] | None = None,
        cross_bias: chex.Array | None = None,
        match: chex.Array | None = None,
        train: bool = False,
    ) -> chex.Array:
        normed = self.own_norm(x)
        x = x + self.drop(self.own(normed, *self.own.keys(normed), own_bias), deterministic=not train)
        return self._rest(x, cross, cross_bias, match, train)

    def step(
        self,
        x: chex.Array,
        kept: tuple[chex.Array, chex.Array],
        index: chex.Array,
        own_bias: chex.Array,
        cross: tuple[chex.Array, chex.Array] | None,
        cross_bias: chex.Array | None,
        match: chex.Array | None,
    ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        normed = self.own_norm(x)
        k, v = (
            jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1)
            for old, new in zip(kept, self.own.keys(normed), strict=True)
        )
        x = x + self.own(normed, k, v, own_bias)
        return self._rest(x, cross, cross_bias, match, False), (k, v)

    def cross_keys(self, memory: chex.Array) -> tuple[chex.Array, chex.Array]:
        return self.memory.keys(memory)

    def _rest(
        self,
        x: chex.Array,
        cross: tuple[chex.Array, chex.Array] | None,
        cross_bias: chex.Array | None,
        match: chex.Array | None,
        train: bool,
    ) -> chex.Array:
        if cross is not None:
            bias = cross_bias
            if match is not None:
                bias = bias + _weigh(match, self.match[:, None, :, None, None])
            x = x + self.drop(self.memory(self.cross_norm(x), *cross, bias), deterministic=not train)
        return x + self.drop(self.mlp(self.mlp_norm(x)), deterministic=not train)


class _Attention(nn.Module):
    """Multi-head attention whose keys and values are made apart, so that they can be kept."""

    config: Config

    def setup(self) -> None:
        self.query, self.key, self.value, self.out = (_dense(self.config.width) for _ in range(4))

    def keys(self, x: chex.Array) -> tuple[chex.Array, chex.Array]:
        return self._split(self.key(x)), self._split(self.value(x))

    def __call__(self, x: chex.Array, k: chex.Array, v: chex.Array, bias: chex.Array) -> chex.Array:
        q = self._split(self.query(x)) / math.sqrt(self.config.width // self.config.heads)
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) + bias, axis=-1)
        return self.out(jnp.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape))

    def _split(self, x: chex.Array) -> chex.Array:
        return x.reshape(*x.shape[:-1], self.config.heads, -1)


class _Mlp(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        wide = _dense(self.config.mlp_width, name="up")(x)
        return _dense(self.config.width, name="down")(jnp.square(jax.nn.relu(wide)))


class _Pointer(nn.Module):
    """Where in the source the next token stands, and whether it is copied at all."""

    config: Config

    def setup(self) -> None:
        self.query, self.key = _dense(self.config.width), _dense(self.config.width)
        self.follow = nn.Dense(2, kernel_init=nn.initializers.zeros, bias_init=_follow_init)
        self.gate = nn.Dense(
            1, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(self.config.gate)
        )

    def keys(self, memory: chex.Array) -> chex.Array:
        return self.key(memory)

    def __call__(
        self, hidden: chex.Array, keys: chex.Array, bias: chex.Array, match: chex.Array | None
    ) -> tuple[chex.Array, chex.Array]:
        """-> log-probabilities over the source [B, T, S], and the gate's logit [B, T]."""
        scores = jnp.einsum("btd,bsd->bts", self.query(hidden), keys) / math.sqrt(self.config.width)
        if match is not None:
            scores = (
                scores + _weigh(match, jnp.moveaxis(self.follow(hidden), -1, 0)[:, :, None, :, None])[:, 0]
            )
        valid = bias[:, 0] == 0.0
        empty = jnp.logical_not(jnp.any(valid, axis=-1))
        gate = jnp.where(empty, -NEVER, self.gate(hidden)[..., 0])
        return jax.nn.log_softmax(scores + bias[:, 0], axis=-1), gate


def _gated(chosen: chex.Array, copies: chex.Array, gate: chex.Array, at: chex.Array) -> chex.Array:
    copied = jax.nn.logsumexp(jnp.where(at, copies, NEVER), axis=-1)
    return jnp.logaddexp(jax.nn.log_sigmoid(gate) + chosen, jax.nn.log_sigmoid(-gate) + copied)


def _source_view(
    inputs: chex.Array, memory: chex.Array | None, source: chex.Array | None
) -> tuple[chex.Array | None, chex.Array | None]:
    """-> bias [B, 1, 1, S] over the memory and match [2, B, 1, T, S]: this input precedes, or is, the source token."""
    if memory is None:
        return None, None
    if source is None:
        return jnp.zeros((memory.shape[0], 1, 1, memory.shape[1])), None
    both = jnp.stack([jnp.pad(source[:, :-1], ((0, 0), (1, 0))), source])
    return _bias(source != PAD), inputs[None, :, None, :, None] == both[:, :, None, None, :]


def _weigh(match: chex.Array, weights: chex.Array) -> chex.Array:
    """Match [2, B, 1, T, S] and weights [2, B or 1, H or 1, T or 1, 1] -> bias [B, H or 1, T, S]."""
    return jnp.where(match[0], weights[0], 0.0) + jnp.where(match[1], weights[1], 0.0)


def _bias(mask: chex.Array) -> chex.Array:
    return jnp.where(mask, 0.0, NEVER)[:, None, None, :]


def _norm() -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=1e-6)


def _dense(features: int, name: str | None = None) -> nn.Dense:
    return nn.Dense(features, use_bias=False, name=name)


def _match_init(key: chex.PRNGKey, shape: tuple[int, int]) -> chex.Array:
    """Even heads look at what followed the current token, odd heads at the token itself."""
    del key
    even = jnp.arange(shape[1]) % 2 == 0
    return 2.0 * jnp.stack([even, ~even]).astype(jnp.float32)


def _follow_init(key: chex.PRNGKey, shape: tuple[int], dtype: chex.ArrayDType = jnp.float32) -> chex.Array:
    del key, shape
    return jnp.array([3.0, 0.0], dtype)


def _apply(
    params: Params, config: Config, key: chex.PRNGKey | None, *args: object, method: str
) -> chex.Array:
    train = {"train": True} if key is not None and config.dropout else {}
    rngs = {"dropout": key} if train else {}
    return Transformer(config).apply({"params": params}, *args, **train, rngs=rngs, method=method)
