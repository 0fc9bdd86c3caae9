"""The parts of the transformer: residual layers, attention with kept keys, feed-forward, norms, and the pointer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from aco_jax.models import packing, positions, quantization
from aco_jax.models.config import PAD, Architecture, Config

MATCHES = 4  # ways in which a source token matches an input, see `view_of`
LEAST = 1e-30  # probability of a token that cannot be
NEVER = -1e9  # a logit that is never chosen, finite so that gradients stay finite

Kept = tuple[chex.Array, chex.Array]  # keys and values, [B, S, H, D / H] each; fewer heads where they are shared


class View(NamedTuple):
    """What decoder positions see of the source beside its memory."""

    valid: chex.Array  # [B, 1, S] bool; [B, T, S] where rows hold several segments
    match: chex.Array | None  # [MATCHES, B, T, S] float32, 1 where it matches

    @property
    def bias(self) -> chex.Array:
        """Additive bias [B, 1, 1 or T, S]."""
        return jnp.where(self.valid, 0.0, NEVER)[:, None]


def view_of(
    inputs: chex.Array,
    source: chex.Array,
    before: chex.Array,
    used: chex.Array,
    pad: int = PAD,
    segments: packing.Segments | None = None,
) -> View:
    """The view that inputs [B, T] have of source [B, S], of the same segment where there are several.

    A source token matches an input that stands before it in the source; that is it; that stands before it and after
    the input `before` [B, T]; that has come by then (`used` [B, S] had come earlier).
    """
    numbers = None if segments is None else segments.source
    past = [packing.before(source, n, numbers)[:, None] for n in range(3)]
    now, follows = inputs[:, :, None] == past[0], inputs[:, :, None] == past[1]
    valid = (source != pad)[:, None]
    if segments is not None and numbers is not None:
        same = packing.together(segments.own, numbers)
        now, follows, valid = now & same, follows & same, valid & same
    runs = follows & (before[:, :, None] == past[2])
    come = used[:, None] | (jax.lax.cummax(now.astype(jnp.int8), axis=1) > 0)
    return View(valid, jnp.stack([follows, now, runs, come]).astype(jnp.float32))


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward: each added to its input.

    `turn` is the rotation of x's positions, where positions are rotations.
    """

    config: Config
    cross: bool

    def setup(self) -> None:
        self.own_norm, self.own = norm(self.config), Attention(self.config)
        if self.cross:
            self.cross_norm, self.memory = norm(self.config), Attention(self.config)
            if self.config.architecture.source_match:
                self.match = self.param("match", _match_init, (MATCHES, self.config.heads))
        self.mlp_norm, self.mlp = norm(self.config), Mlp(self.config)
        self.drop = nn.Dropout(self.config.dropout)

    def __call__(
        self,
        x: chex.Array,
        own_bias: chex.Array,
        memory: chex.Array | None = None,
        view: View | None = None,
        train: bool = False,
        turn: positions.Rotation | None = None,
    ) -> tuple[chex.Array, Kept]:
        """All positions: x [B, T, D] that reads memory [B, S, D], and its keys and values."""
        heard = self._enter(self.own_norm, x)
        kept = self.own.keys(heard, turn)
        change = self.own(heard, *kept, own_bias, turn)
        x = self._leave(self.own_norm, x + self.drop(change, deterministic=not train))
        return self._rest(x, None if memory is None else self.cross_keys(memory), view, train), kept

    def step(
        self,
        x: chex.Array,
        kept: Kept,
        index: chex.Array,
        own_bias: chex.Array,
        cross: Kept | None,
        view: View | None,
        turn: positions.Rotation | None = None,
    ) -> tuple[chex.Array, Kept]:
        """One position: x [B, 1, D] written at `index` of the kept keys and values."""
        heard = self._enter(self.own_norm, x)
        k, v = (
            jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1)
            for old, new in zip(kept, self.own.keys(heard, turn), strict=True)
        )
        x = self._leave(self.own_norm, x + self.own(heard, k, v, own_bias, turn))
        return self._rest(x, cross, view, False), (k, v)

    def at(
        self, x: chex.Array, place: chex.Array, own_bias: chex.Array, turn: positions.Rotation | None = None
    ) -> chex.Array:
        """One position `place` [B] of each row: x [B, T, D], read whole, -> [B, 1, D]; without a memory."""
        heard = self._enter(self.own_norm, x)
        kept = self.own.keys(heard, turn)
        x, heard = (jnp.take_along_axis(each, place[:, None, None], axis=1) for each in (x, heard))
        own_bias = own_bias[0, :, place][:, :, None]  # [1, 1 or H, T, T] -> [B, 1 or H, 1, T]
        if turn is not None:
            turn = turn[0][place][:, None], turn[1][place][:, None]
        x = self._leave(self.own_norm, x + self.own(heard, *kept, own_bias, turn))
        return self._rest(x, None, None, False)

    def cross_keys(self, memory: chex.Array) -> Kept:
        return self.memory.keys(memory)

    def _rest(self, x: chex.Array, cross: Kept | None, view: View | None, train: bool) -> chex.Array:
        if cross is not None and view is not None:
            bias = view.bias
            if view.match is not None and self.config.architecture.source_match:
                bias = bias + jnp.einsum("fbts,fh->bhts", view.match, self.match)
            change = self.memory(self._enter(self.cross_norm, x), *cross, bias)
            x = self._leave(self.cross_norm, x + self.drop(change, deterministic=not train))
        change = self.mlp(self._enter(self.mlp_norm, x))
        return self._leave(self.mlp_norm, x + self.drop(change, deterministic=not train))

    def _enter(self, norm: nn.Module, x: chex.Array) -> chex.Array:
        return x if self.config.architecture.post_norm else norm(x)

    def _leave(self, norm: nn.Module, x: chex.Array) -> chex.Array:
        return norm(x) if self.config.architecture.post_norm else x


class Attention(nn.Module):
    """Multi-head attention whose keys and values are made apart, so that they can be kept."""

    config: Config

    def setup(self) -> None:
        a, wide = self.config.architecture, self.config.head_width
        self.query = dense(self.config.heads * wide, bias=a.bias != "none")
        self.key, self.value = (dense(self.config.kv_heads * wide, bias=a.bias != "none") for _ in range(2))
        self.out = dense(self.config.width, bias=a.bias == "all")
        if a.query_key_norm:
            self.query_norm, self.key_norm = norm(self.config), norm(self.config)

    def keys(self, x: chex.Array, turn: positions.Rotation | None = None) -> Kept:
        k, v = (self._split(part(x), self.config.kv_heads) for part in (self.key, self.value))
        if self.config.architecture.query_key_norm:
            k = self.key_norm(k)
        return self._turned(k, turn), v

    def __call__(
        self, x: chex.Array, k: chex.Array, v: chex.Array, bias: chex.Array, turn: positions.Rotation | None = None
    ) -> chex.Array:
        a, q = self.config.architecture, self._split(self.query(x), self.config.heads)
        if a.query_key_norm:
            q = self.query_norm(q)
        q = self._turned(q, turn)
        if a.attention_scale:
            q = q / math.sqrt(self.config.head_width)
        if k.shape[2] == q.shape[2]:
            weights = _shares(jnp.einsum("bthd,bshd->bhts", q, k), bias)
            mixed = jnp.einsum("bhts,bshd->bthd", weights, v)
        else:
            # Grouped queries (Ainslie et al. 2023, GQA): the kept keys are read once for a group, never repeated.
            grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[-1])
            scores = jnp.einsum("btgrd,bsgd->bgrts", grouped, k)
            weights = _shares(scores.reshape(q.shape[0], q.shape[2], *scores.shape[3:]), bias)
            mixed = jnp.einsum("bgrts,bsgd->btgrd", weights.reshape(scores.shape), v)
        return self.out(mixed.reshape(*x.shape[:-1], -1))

    def _split(self, x: chex.Array, heads: int) -> chex.Array:
        return x.reshape(*x.shape[:-1], heads, -1)

    def _turned(self, x: chex.Array, turn: positions.Rotation | None) -> chex.Array:
        if turn is None:
            return x
        return positions.rotate(x, turn, self.config.architecture.position == "interleaved").astype(x.dtype)


class Mlp(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        c, a = self.config, self.config.architecture
        wide = dense(c.mlp_width, name="up", bias=a.bias == "all")(x)
        if a.gated:
            wide = _activate(dense(c.mlp_width, name="gate", bias=a.bias == "all")(x), a) * wide
        else:
            wide = _activate(wide, a)
        return dense(c.width, name="down", bias=a.bias == "all")(wide)


class RmsNorm(nn.Module):
    """x / rms(x) over the last axis. It has no scale of its own: whatever reads it is a matrix, and has one.

    A sixth of a training step went into the gradients of scales. Checkpoints that have a scale keep it.
    """

    epsilon: float
    scaled: bool

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        exact = x.astype(jnp.float32)
        normed = exact * jax.lax.rsqrt(jnp.mean(jnp.square(exact), axis=-1, keepdims=True) + self.epsilon)
        normed = normed.astype(x.dtype)
        if not self.scaled:
            return normed
        return normed * _over(self.param("scale", nn.initializers.ones, (x.shape[-1],)), x)


class LayerNorm(nn.Module):
    """(x - mean) / standard deviation over the last axis, scaled and moved (Ba et al. 2016, eq. 4)."""

    epsilon: float

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        exact = x.astype(jnp.float32)
        centred = exact - jnp.mean(exact, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        return normed.astype(x.dtype) * _over(scale, x) + _over(bias, x)


class Pointer(nn.Module):
    """Where in the source the next token stands, and whether it is copied at all."""

    config: Config

    def setup(self) -> None:
        self.query, self.key = dense(self.config.width), dense(self.config.width)
        self.follow = Dense(MATCHES, kernel_init=nn.initializers.zeros, bias_init=_follow_init)
        self.gate = Dense(1, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(self.config.gate))

    def keys(self, memory: chex.Array) -> chex.Array:
        return self.key(memory)

    def __call__(self, hidden: chex.Array, keys: chex.Array, view: View) -> tuple[chex.Array, chex.Array]:
        """-> probabilities over the source [B, T, S], and the probability [B, T] of not copying."""
        hidden = hidden.astype(keys.dtype)
        scores = jnp.einsum("btd,bsd->bts", self.query(hidden), keys).astype(jnp.float32) / math.sqrt(self.config.width)
        if view.match is not None:
            scores = scores + jnp.einsum("fbts,btf->bts", view.match, self.follow(hidden))
        gate = jax.nn.sigmoid(self.gate(hidden)[..., 0].astype(jnp.float32))
        gate = jnp.where(jnp.any(view.valid, axis=-1), gate, 1.0)
        return jax.nn.softmax(jnp.where(view.valid, scores, NEVER), axis=-1), gate


def mixture(vocab: chex.Array, copies: chex.Array, gate: chex.Array) -> chex.Array:
    """log(gate * vocab + (1 - gate) * copies), probabilities of one shape; never below log(LEAST)."""
    # In logarithms throughout it is exact further down, and takes half of a network's compilation.
    return jnp.log(jnp.maximum(gate * vocab + (1 - gate) * copies, LEAST))


def scatter(copies: chex.Array, source: chex.Array, vocab_size: int) -> chex.Array:
    """Probabilities over the source [B, T, S] -> over the vocabulary [B, T, V]."""
    # Measured on a CPU: adding whole columns by row is ten times faster than a product with one-hot rows.
    empty = jnp.zeros((vocab_size, copies.shape[1]))
    return jax.vmap(lambda p, ids: empty.at[ids].add(p.T).T)(copies, source)


def gather(copies: chex.Array, at: chex.Array) -> chex.Array:
    """The mass that probabilities over the source have where `at` holds, [B, T, S] each -> [B, T]."""
    return jnp.sum(jnp.where(at, copies, 0.0), axis=-1)


def norm(config: Config) -> nn.Module:
    """The one place where the network's norms are made."""
    a = config.architecture
    return LayerNorm(a.norm_epsilon) if a.norm == "layer" else RmsNorm(a.norm_epsilon, a.norm == "scaled_rms")


class Dense(nn.Dense):
    """A matrix, quantised or not, and the adapter that `lora.attach` may have put there: x W + (x low_in) low_out."""

    def __call__(self, inputs: chex.Array) -> chex.Array:
        kernel: Any = self.get_variable("params", "kernel")
        if quantization.is_quantized(kernel):
            out = quantization.product(inputs, kernel)
            if self.use_bias:
                out = out + _over(self.get_variable("params", "bias"), out)
        else:
            # One product of two axes: the kernel's gradient takes half as long again where it sums over more.
            flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
            out = flat.reshape(*inputs.shape[:-1], -1)
        if not self.has_variable("params", "low_in"):
            return out
        return out + (inputs @ self.get_variable("params", "low_in")) @ self.get_variable("params", "low_out")

    def matrix(self) -> chex.Array:
        """[inputs, outputs], the adapter added in."""
        kernel: chex.Array = quantization.dequantize(self.get_variable("params", "kernel"))
        if not self.has_variable("params", "low_in"):
            return kernel
        return kernel + self.get_variable("params", "low_in") @ self.get_variable("params", "low_out")


def dense(features: int, name: str | None = None, bias: bool = False) -> Dense:
    """A matrix whose entries start with variance 1 / inputs (LeCun et al. 1998, Efficient BackProp)."""
    return Dense(features, use_bias=bias, name=name, kernel_init=_spread)


def is_random(name: str) -> bool:
    """Whether a parameter of this name starts as noise, its initialiser giving the standard deviation."""
    return name == "kernel" or name.endswith(("embedding", "position"))


def _activate(x: chex.Array, a: Architecture) -> chex.Array:
    match a.activation:
        case "squared_relu":
            return jnp.square(jax.nn.relu(x))
        case "relu":
            return jax.nn.relu(x)
        case "silu":
            return jax.nn.silu(x)
        case _:
            return jax.nn.gelu(x, approximate=a.activation == "gelu_tanh")


def _shares(scores: chex.Array, bias: chex.Array) -> chex.Array:
    """What scores [B, H, T, S] and a bias give each key, of the scores' type; summed up in float32."""
    return jax.nn.softmax(scores.astype(jnp.float32) + bias, axis=-1).astype(scores.dtype)


def _over(vector: chex.Array, x: chex.Array) -> chex.Array:
    """A vector [D] with the axes of x [.., D]."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def _spread(key: chex.PRNGKey, shape: tuple[int, int], dtype: chex.ArrayDType = jnp.float32) -> chex.Array:
    del key
    return jnp.full(shape, 1.0 / math.sqrt(shape[0]), dtype)


def _match_init(key: chex.PRNGKey, shape: tuple[int, int]) -> chex.Array:
    """Even heads look at what followed the current token, odd heads at the token itself."""
    del key
    even = jnp.arange(shape[1]) % 2 == 0
    none = jnp.zeros_like(even)
    return 2.0 * jnp.stack([even, ~even, even, none]).astype(jnp.float32)


def _follow_init(key: chex.PRNGKey, shape: tuple[int], dtype: chex.ArrayDType = jnp.float32) -> chex.Array:
    del key, shape
    return jnp.array([3.0, 0.0, 2.0, -1.0], dtype)
