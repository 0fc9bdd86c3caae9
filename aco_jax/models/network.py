"""The linen module under `transformer`: what the layers are joined to."""

from __future__ import annotations

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aco_jax.kernels import tiles, token_log_prob
from aco_jax.models import layers, packing, positions, quantization
from aco_jax.models.config import Config
from aco_jax.models.layers import NEVER
from aco_jax.models.packing import Segments
from aco_jax.types import Params

Cache = dict[str, chex.ArrayTree]

FEW = 64  # hidden states; as many the output matrix reads on a CPU in two thirds of the time that they read it


class Transformer(nn.Module):
    """An encoder, a decoder, or both, with their heads; each method is a function of `transformer`."""

    config: Config

    def setup(self) -> None:
        c, a = self.config, self.config.architecture
        table = {"absolute": (c.max_length, c.width), "relative": (a.buckets, c.heads)}.get(a.position)
        near = nn.initializers.constant(0.1 / math.sqrt(c.width))
        spread = nn.initializers.constant(1.0 / math.sqrt(c.width))
        self.embedding: Any = self.get_variable("params", "embedding")
        if not quantization.is_quantized(self.embedding):
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

    def encode(
        self,
        tokens: chex.Array,
        types: chex.Array | None = None,
        segments: chex.Array | None = None,
        train: bool = False,
    ) -> chex.Array:
        a, length = self.config.architecture, tokens.shape[1]
        places = None if segments is None else packing.places(segments)
        x = self._read(tokens, self._near("encoder", length, places), types)
        if segments is None:
            bias = jnp.where(tokens != self.config.pad, 0.0, NEVER)[:, None, None]
        else:
            bias = jnp.where(packing.together(segments, segments), 0.0, NEVER)[:, None]
        if a.position == "relative":
            bias = bias + self._relative(self.encoder_position, length, both_ways=True)
        turn = self._turn(jnp.arange(length) if places is None else places) if a.rotates else None
        x, _ = self._through("encoder", x, bias, turn=turn, train=train)
        return (x if a.post_norm else self.encoder_norm(x)).astype(jnp.float32)

    def decode(
        self,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        segments: Segments | None = None,
        train: bool = False,
    ) -> chex.Array:
        return self._decode(inputs, memory, source, segments, train)[0]

    def decode_at(self, inputs: chex.Array, place: chex.Array) -> chex.Array:
        x, bias, turn = self._enter(inputs, None)
        x, _ = self._through("decoder", x, bias, turn=turn, count=len(self.decoder) - 1)
        x = self.decoder[-1].at(x, place, bias, turn)
        return (x if self.config.architecture.post_norm else self.decoder_norm(x)).astype(jnp.float32)[:, 0]

    def log_probs(
        self,
        hidden: chex.Array,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        segments: Segments | None = None,
    ) -> chex.Array:
        logits = self._logits(hidden)
        if memory is None or source is None or not self.config.copy:
            return jax.nn.log_softmax(logits)
        return self._mix(logits, hidden, self._pointer_keys(memory), self._view(inputs, source, segments), source)

    def target_log_prob(
        self,
        hidden: chex.Array,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        targets: chex.Array,
        allowed: chex.Array | None,
        segments: Segments | None = None,
        temperature: float = 1.0,
    ) -> chex.Array:
        if temperature != 1:
            heated = self.log_probs(hidden, inputs, memory, source, segments) / temperature
            held = heated if allowed is None else jnp.where(allowed, heated, NEVER)
            return jnp.take_along_axis(jax.nn.log_softmax(held), targets[..., None], axis=-1)[..., 0]
        plain = memory is None or source is None or not self.config.copy
        if plain and allowed is None and math.prod(targets.shape) * self.config.vocab_size > tiles.FEW_LOGITS:
            return self.plain_log_prob(hidden, targets)[0]
        logits = self._logits(hidden)
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
        held = jnp.zeros_like(chosen)
        if allowed is not None:
            held = jax.nn.logsumexp(jnp.where(allowed, logits, NEVER), axis=-1) - normaliser
        if plain or memory is None or source is None:
            return chosen - held
        view = self._view(inputs, source, segments)
        copies, gate = self.pointer(hidden, self._pointer_keys(memory), view)
        same = targets[:, :, None] == source[:, None, :]
        mixed = layers.mixture(jnp.exp(chosen), layers.gather(copies, same), gate)
        if allowed is None:
            return mixed
        rows = jnp.broadcast_to(allowed, (source.shape[0], *allowed.shape[1:]))
        at = jnp.broadcast_to(source[:, None], (source.shape[0], rows.shape[1], source.shape[1]))
        copyable = jnp.take_along_axis(rows, at, axis=-1)
        return mixed - layers.mixture(jnp.exp(held), layers.gather(copies, copyable), gate)

    def plain_log_prob(self, hidden: chex.Array, targets: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Log-probability of each target and entropy [B, T], without the copy head; many logits are never all there."""
        tied = self.config.architecture.tied
        table = quantization.dequantize(self.embedding) if tied else self.head.matrix().T
        tokens = jnp.maximum(targets, 0).reshape(-1)  # padding may be -1
        found = token_log_prob.token_log_prob(self._scaled(hidden), table, tokens)
        log_prob, entropy = (x.reshape(targets.shape) for x in found)
        return log_prob, entropy

    def start(self, memory: chex.Array | None, source: chex.Array | None, rows: int, length: int) -> Cache:
        c = self.config
        empty = jnp.zeros((rows, length, c.kv_heads, c.head_width), c.compute)
        cache: Cache = {"own": [(empty, empty) for _ in self.decoder]}
        if memory is not None and source is not None:
            read = memory.astype(c.compute)
            cache |= {"cross": [layer.cross_keys(read) for layer in self.decoder], "source": source}
            cache |= {"before": jnp.zeros((rows, 1), jnp.int32), "used": jnp.zeros(source.shape, bool)}
            if c.copy:
                cache["pointer"] = self._pointer_keys(memory)
        return cache

    def read(self, inputs: chex.Array, cache: Cache) -> Cache:
        segments = Segments(packing.segments_of(inputs, self.config.pad)) if "padding" in cache else None
        _, own = self._decode(inputs, None, None, segments, train=False)
        filled = jax.tree.map(lambda old, new: old.at[:, : new.shape[1]].set(new), cache["own"], own)
        return cache | {"own": filled}

    def step(self, token: chex.Array, index: chex.Array, cache: Cache) -> tuple[chex.Array, Cache]:
        a, inputs, source = self.config.architecture, token[:, None], cache.get("source")
        keys, padding = jnp.arange(cache["own"][0][0].shape[1]), cache.get("padding")
        place, known = jnp.reshape(index, (1, 1)), (keys <= index)[None]  # by row where rows begin at different places
        if padding is not None:
            place, known = place - padding[:, None], known & (keys[None] >= padding[:, None])
        x = self._read(inputs, self.decoder_position[place] if a.position == "absolute" else None)
        bias = jnp.where(known, 0.0, NEVER)[:, None, None]
        if a.position == "relative":
            back = positions.buckets(-np.arange(len(keys)), a.buckets, a.reach, both_ways=False)
            bias = bias + self.decoder_position[jnp.asarray(back)[jnp.abs(index - keys)]].T[None, :, None]
        turn = self._turn(place) if a.rotates else None
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

    def _decode(
        self,
        inputs: chex.Array,
        memory: chex.Array | None,
        source: chex.Array | None,
        segments: Segments | None,
        train: bool,
    ) -> tuple[chex.Array, list[layers.Kept]]:
        """Hidden states [B, T, D], and each layer's keys and values."""
        a = self.config.architecture
        x, bias, turn = self._enter(inputs, segments)
        view = None
        if memory is not None and source is not None:
            view = self._view(inputs, source, segments)
        elif memory is not None:
            view = layers.View(jnp.ones((memory.shape[0], 1, memory.shape[1]), bool), None)
        memory = None if memory is None else memory.astype(self.config.compute)
        x, own = self._through("decoder", x, bias, memory, view, turn, train)
        return (x if a.post_norm else self.decoder_norm(x)).astype(jnp.float32), own

    def _enter(
        self, inputs: chex.Array, segments: Segments | None
    ) -> tuple[chex.Array, chex.Array, positions.Rotation | None]:
        """What the decoder's first layer reads: embeddings [B, T, D], bias [1 or B, 1 or H, T, T], rotation."""
        a, length = self.config.architecture, inputs.shape[1]
        places = None if segments is None else packing.places(segments.own)
        x = self._read(inputs, self._near("decoder", length, places))
        if segments is None:
            bias = jnp.where(jnp.tri(length, dtype=bool), 0.0, NEVER)[None, None]
        else:
            same = packing.together(segments.own, segments.own)
            bias = jnp.where(jnp.tri(length, dtype=bool)[None] & same, 0.0, NEVER)[:, None]
        if a.position == "relative":
            bias = bias + self._relative(self.decoder_position, length, both_ways=False)
        return x, bias, self._turn(jnp.arange(length) if places is None else places) if a.rotates else None

    def _through(
        self,
        side: str,
        x: chex.Array,
        bias: chex.Array,
        memory: chex.Array | None = None,
        view: layers.View | None = None,
        turn: positions.Rotation | None = None,
        train: bool = False,
        count: int | None = None,
    ) -> tuple[chex.Array, list[layers.Kept]]:
        """x [B, T, D] through all layers of a side or its first `count`, and each layer's keys and values."""
        c, stack = self.config, getattr(self, side)[:count]
        if not stack:
            return x, []

        def through(params: Params, key: chex.PRNGKey | None, x: chex.Array) -> tuple[chex.Array, layers.Kept]:
            layer = layers.Layer(c, cross=stack[0].cross, parent=None)
            rngs = {} if key is None else {"dropout": key}
            found: Any = layer.apply({"params": params}, x, bias, memory, view, train, turn, rngs=rngs)
            return found

        if self.is_initializing() or not (c.scan or c.remat):
            own = []
            for layer in stack:
                x, kept = layer(x, bias, memory, view, train, turn)
                own.append(kept)
            return x, own
        if c.remat:
            through = jax.checkpoint(through)
        each = [self.variables["params"][f"{side}_{number}"] for number in range(len(stack))]
        keys = jax.random.split(self.make_rng("dropout"), len(stack)) if train and c.dropout else None
        if not c.scan:
            own = []
            for number, params in enumerate(each):
                x, kept = through(params, None if keys is None else keys[number], x)
                own.append(kept)
            return x, own
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        x, kept = jax.lax.scan(lambda x, part: through(*part, x), x, (together, keys))
        return x, [jax.tree.map(lambda leaf, n=number: leaf[n], kept) for number in range(len(stack))]

    def _read(self, tokens: chex.Array, near: chex.Array | None, types: chex.Array | None = None) -> chex.Array:
        """Embeddings of tokens [B, T], with those of their positions [1 or B, T, D] and types [B, T]."""
        a, table = self.config.architecture, self.embedding
        x = quantization.rows_of(table, tokens) if quantization.is_quantized(table) else table[tokens]
        if near is not None:
            x = x + near
        if a.token_types:
            x = x + self.type_embedding[jnp.zeros_like(tokens) if types is None else types]
        if a.embedding_scale:
            x = x * math.sqrt(self.config.width)
        return self.embedding_norm(x) if a.embedding_norm else x

    def _near(self, side: str, length: int, places: chex.Array | None) -> chex.Array | None:
        """Embeddings of positions [1 or B, T, D] where the network has them."""
        if self.config.architecture.position != "absolute":
            return None
        table: chex.Array = getattr(self, f"{side}_position")
        if length > table.shape[0]:
            raise ValueError(f"{length} tokens, expected at most max_length {table.shape[0]}")
        return table[:length][None] if places is None else table[places]

    def _relative(self, table: chex.Array, length: int, both_ways: bool) -> chex.Array:
        """Additive bias [1, H, T, T] of the distances among `length` positions."""
        a, places = self.config.architecture, np.arange(length)
        of = positions.buckets(places[None] - places[:, None], a.buckets, a.reach, both_ways)
        return table[of].transpose(2, 0, 1)[None]

    def _turn(self, places: chex.Array) -> positions.Rotation:
        return positions.rotation(places, self.config.head_width, self.config.architecture.rotary_base)

    def _view(self, inputs: chex.Array, source: chex.Array, segments: Segments | None = None) -> layers.View:
        before = packing.before(inputs, 1, None if segments is None else segments.own)
        return layers.view_of(inputs, source, before, jnp.zeros(source.shape, bool), self.config.pad, segments)

    def _pointer_keys(self, memory: chex.Array) -> chex.Array:
        return self.pointer.keys(memory.astype(self.config.compute))

    def _logits(self, hidden: chex.Array) -> chex.Array:
        # One matrix product; a batched one is slower on a CPU.
        flat, table = self._scaled(hidden), self.embedding
        if not self.config.architecture.tied:
            logits = self.head(flat)
        elif quantization.is_quantized(table):
            logits = quantization.transposed_product(flat, table)
        else:
            few = 1 < flat.shape[0] <= FEW
            product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
            logits = jax.lax.optimization_barrier(product(table, flat.T)).T if few else product(flat, table.T)
        return logits.astype(jnp.float32).reshape(*hidden.shape[:-1], -1)

    def _scaled(self, hidden: chex.Array) -> chex.Array:
        """Hidden states [.., D] -> [n, D], what the output matrix is multiplied with."""
        flat = hidden.reshape(-1, hidden.shape[-1]).astype(self.config.compute)
        return flat / math.sqrt(self.config.width) if self.config.architecture.logit_scale else flat

    def _mix(
        self, logits: chex.Array, hidden: chex.Array, keys: chex.Array, view: layers.View, source: chex.Array
    ) -> chex.Array:
        copies, gate = self.pointer(hidden, keys, view)
        return layers.mixture(
            jax.nn.softmax(logits), layers.scatter(copies, source, self.config.vocab_size), gate[..., None]
        )
