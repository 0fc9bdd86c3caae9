"""The parts of the transformer: residual layers, attention with kept keys, feed-forward, and the pointer."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

PAD = 0
MATCHES = 4  # ways in which a source token matches an input, see `view_of`
LEAST = 1e-30  # probability of a token that cannot be
NEVER = -1e9  # a logit that is never chosen, finite so that gradients stay finite

Kept = tuple[chex.Array, chex.Array]  # keys and values, [B, S, H, D / H] each


class Sizes(Protocol):
    """What the parts need to know of a transformer's config."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def gate(self) -> float: ...


class View(NamedTuple):
    """What decoder positions see of the source beside its memory."""

    valid: chex.Array  # [B, 1, S] bool
    match: chex.Array | None  # [MATCHES, B, T, S] float32, 1 where it matches

    @property
    def bias(self) -> chex.Array:
        """Additive bias [B, 1, 1, S]."""
        return jnp.where(self.valid, 0.0, NEVER)[:, None]


def view_of(inputs: chex.Array, source: chex.Array, before: chex.Array, used: chex.Array) -> View:
    """The view that inputs [B, T] have of source [B, S].

    A source token matches an input that stands before it in the source; that is it; that stands before it and after
    the input `before` [B, T]; that has come by then (`used` [B, S] had come earlier).
    """
    past = [jnp.pad(source, ((0, 0), (n, 0)))[:, None, : source.shape[1]] for n in range(3)]
    now, follows = inputs[:, :, None] == past[0], inputs[:, :, None] == past[1]
    runs = follows & (before[:, :, None] == past[2])
    come = used[:, None] | (jax.lax.cummax(now.astype(jnp.int8), axis=1) > 0)
    return View((source != PAD)[:, None], jnp.stack([follows, now, runs, come]).astype(jnp.float32))


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward: each added to its input."""

    config: Sizes
    cross: bool

    def setup(self) -> None:
        self.own_norm, self.own = norm(), Attention(self.config)
        if self.cross:
            self.cross_norm, self.memory = norm(), Attention(self.config)
            self.match = self.param("match", _match_init, (MATCHES, self.config.heads))
        self.mlp_norm, self.mlp = norm(), Mlp(self.config)
        self.drop = nn.Dropout(self.config.dropout)

    def __call__(
        self,
        x: chex.Array,
        own_bias: chex.Array,
        cross: Kept | None = None,
        view: View | None = None,
        train: bool = False,
    ) -> chex.Array:
        normed = self.own_norm(x)
        x = x + self.drop(self.own(normed, *self.own.keys(normed), own_bias), deterministic=not train)
        return self._rest(x, cross, view, train)

    def step(
        self,
        x: chex.Array,
        kept: Kept,
        index: chex.Array,
        own_bias: chex.Array,
        cross: Kept | None,
        view: View | None,
    ) -> tuple[chex.Array, Kept]:
        """One position: x [B, 1, D] written at `index` of the kept keys and values."""
        normed = self.own_norm(x)
        k, v = (
            jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1)
            for old, new in zip(kept, self.own.keys(normed), strict=True)
        )
        x = x + self.own(normed, k, v, own_bias)
        return self._rest(x, cross, view, False), (k, v)

    def cross_keys(self, memory: chex.Array) -> Kept:
        return self.memory.keys(memory)

    def _rest(self, x: chex.Array, cross: Kept | None, view: View | None, train: bool) -> chex.Array:
        if cross is not None and view is not None:
            bias = view.bias
            if view.match is not None:
                bias = bias + jnp.einsum("fbts,fh->bhts", view.match, self.match)
            x = x + self.drop(self.memory(self.cross_norm(x), *cross, bias), deterministic=not train)
        return x + self.drop(self.mlp(self.mlp_norm(x)), deterministic=not train)


class Attention(nn.Module):
    """Multi-head attention whose keys and values are made apart, so that they can be kept."""

    config: Sizes

    def setup(self) -> None:
        self.query, self.key, self.value, self.out = (dense(self.config.width) for _ in range(4))

    def keys(self, x: chex.Array) -> Kept:
        return self._split(self.key(x)), self._split(self.value(x))

    def __call__(self, x: chex.Array, k: chex.Array, v: chex.Array, bias: chex.Array) -> chex.Array:
        q = self._split(self.query(x)) / math.sqrt(self.config.width // self.config.heads)
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) + bias, axis=-1)
        return self.out(jnp.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape))

    def _split(self, x: chex.Array) -> chex.Array:
        return x.reshape(*x.shape[:-1], self.config.heads, -1)


class Mlp(nn.Module):
    config: Sizes

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        wide = dense(self.config.mlp_width, name="up")(x)
        return dense(self.config.width, name="down")(jnp.square(jax.nn.relu(wide)))


class RmsNorm(nn.Module):
    """x / rms(x) over the last axis. It has no scale of its own: whatever reads it is a matrix, and has one.

    A sixth of a training step went into the gradients of scales.
    """

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class Pointer(nn.Module):
    """Where in the source the next token stands, and whether it is copied at all."""

    config: Sizes

    def setup(self) -> None:
        self.query, self.key = dense(self.config.width), dense(self.config.width)
        self.follow = nn.Dense(MATCHES, kernel_init=nn.initializers.zeros, bias_init=_follow_init)
        self.gate = nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(self.config.gate))

    def keys(self, memory: chex.Array) -> chex.Array:
        return self.key(memory)

    def __call__(self, hidden: chex.Array, keys: chex.Array, view: View) -> tuple[chex.Array, chex.Array]:
        """-> probabilities over the source [B, T, S], and the probability [B, T] of not copying."""
        scores = jnp.einsum("btd,bsd->bts", self.query(hidden), keys) / math.sqrt(self.config.width)
        if view.match is not None:
            scores = scores + jnp.einsum("fbts,btf->bts", view.match, self.follow(hidden))
        gate = jnp.where(jnp.any(view.valid, axis=-1), jax.nn.sigmoid(self.gate(hidden)[..., 0]), 1.0)
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


def norm() -> nn.Module:
    """The one place where the network's norms are made."""
    return RmsNorm()


def dense(features: int, name: str | None = None) -> nn.Dense:
    """A matrix whose entries start with variance 1 / inputs (LeCun et al. 1998, Efficient BackProp)."""
    return nn.Dense(features, use_bias=False, name=name, kernel_init=_spread)


def is_random(name: str) -> bool:
    """Whether a parameter of this name starts as noise, its initialiser giving the standard deviation."""
    return name in ("kernel", "embedding") or name.endswith("position")


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
