"""The base: a language model that restores records, asks for related ones, and says how well records go together.

It is trained on what `data.tasks` writes (denoising, asking, rewriting as the rewriter's teacher), then by the
advantage of the decisions that its queries led to. A query begins with its guardrails, and decoding obeys them:
  <table> <level> <column>.. <sep> words <eos>, the words never from an attribute that the guardrails leave out.

Its encoder is the one of dense retrieval, taught by contrast on the same examples.

Sources: Lewis et al. 2020, BART (denoising); Sutskever et al. 2014, eq. 1 (chain rule); Williams 1992, REINFORCE;
van den Oord et al. 2018, eq. 4 (InfoNCE).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax.data.tokens import Special
from aco_jax.models import generate, layers, transformer
from aco_jax.ops import likelihood as chain
from aco_jax.ops import masking, policy_gradient, sequences
from aco_jax.types import UNRELATED, Metrics, Params, Query

KINDS = ("denoise", "ask", "rewrite")  # numbered as in data.tasks
LEVELS = 8  # steps of the least relevance


@dataclass(frozen=True)
class Config:
    """The language model and the form of what it writes."""

    model: transformer.Config
    special: Special
    tables: int
    columns: int  # C
    query_length: int = 28  # T, tokens written: guardrails, words and end
    guard_columns: int = 3  # most columns in a guardrail
    kind_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the three cross-entropies
    contrast_weight: float = 0.3
    contrast_temperature: float = 0.1

    @property
    def guard_length(self) -> int:
        """Tokens of the longest guardrail, <sep> included."""
        return self.guard_columns + 3


@struct.dataclass
class SftBatch:
    """Examples of data.tasks."""

    source: chex.Array  # [B, S] int32
    target: chex.Array  # [B, T] int32, end token included
    kind: chex.Array  # [B] int32 in [0, 3)


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Fresh parameters of the language model."""
    return transformer.init(key, config.model)


@functools.partial(jax.jit, static_argnames=("config",))
def generate_queries(
    params: Params,
    config: Config,
    sources: chex.Array,
    key: chex.PRNGKey,
    temperature: float | chex.Array = 1.0,
    tables: chex.Array | None = None,
) -> tuple[Query, chex.Array]:
    """Asks: guardrails first, then words within them.

    Args:
      sources: [B, S], <ask> <relation> and the anchor's tokens.
      key: [], or [B], one of each request.
      temperature: 0 takes the likeliest token.
      tables: [B] int32, the table each query must search; None lets the model choose one that is not the anchor's.

    Returns:
      The queries, guardrails decoded into their fields, and all tokens written, [B, T].
    """
    chex.assert_rank(sources, 2)
    special, forms = config.special, _forms(config, sources, tables)

    def within(tokens: chex.Array, index: chex.Array) -> chex.Array:
        form = jax.lax.dynamic_index_in_dim(forms, _form_at(config, index), axis=1, keepdims=False)
        closed = jnp.any(tokens == special.sep, axis=1, keepdims=True)
        return jnp.where(closed, _words(config, sources, tokens), form)

    written, log_prob = generate.sample(
        params, config.model, sources, special.bos, special.eos, config.query_length, key, temperature, within
    )
    return _decode(config, sources, written, log_prob), written


def embed(params: Params, config: Config, rows: chex.Array) -> chex.Array:
    """Record or query tokens [B, S] -> unit vectors [B, D] for dense retrieval."""
    return transformer.embed(params, config.model, rows)


def loss(
    params: Params, config: Config, batch: SftBatch, key: chex.PRNGKey | None = None
) -> tuple[chex.Array, Metrics]:
    """What the base is taught, in nats: three token cross-entropies and a contrast, weighted.

    Each cross-entropy is the mean over the valid tokens of its kind. The contrast tells each source's own target from
    those of the other sources by their embeddings, which dense retrieval goes by.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    memory = transformer.encode(params, config.model, batch.source, keys[0])
    log_prob, mask = transformer.sequence_log_prob(
        params, config.model, batch.source, batch.target, key=keys[1], memory=memory
    )
    of_kind = (batch.kind[None] == jnp.arange(len(KINDS))[:, None])[..., None] & mask[None]
    totals = jnp.sum(jnp.where(of_kind, -log_prob[None], 0.0), axis=(1, 2))
    means = totals / jnp.maximum(jnp.sum(of_kind, axis=(1, 2)), 1)
    contrast = _contrast(config, batch, transformer.pool(memory, batch.source), embed(params, config, batch.target))
    metrics = dict(zip(KINDS, means, strict=True)) | {"contrast": contrast}
    return jnp.dot(jnp.asarray(config.kind_weights), means) + config.contrast_weight * contrast, metrics


def policy_loss(
    params: Params,
    config: Config,
    sources: chex.Array,
    written: chex.Array,
    advantage: chex.Array,
    tables: chex.Array | None = None,
    temperature: float = 1.0,
) -> tuple[chex.Array, Metrics]:
    """REINFORCE: descending it ascends E[log pi(query given records) x advantage].

    Args:
      sources: [B, S].
      written: [B, T] tokens of `generate_queries`.
      advantage: [B], a constant for the gradient.
      tables, temperature: as given to `generate_queries`; of another temperature's samples E[grad log pi] is not 0.
    """
    chex.assert_rank([sources, written, advantage], [2, 2, 1])
    log_prob = query_log_prob(params, config, sources, written, tables, temperature)
    value = jnp.mean(jax.vmap(policy_gradient.reinforce_loss)(log_prob, advantage))
    return value, {"query_log_prob": jnp.mean(log_prob)}


def query_log_prob(
    params: Params,
    config: Config,
    sources: chex.Array,
    written: chex.Array,
    tables: chex.Array | None = None,
    temperature: float = 1.0,
) -> chex.Array:
    """Log-probability [B] (nats) of the tokens written, under the model held to the guardrails, at a temperature."""
    words = _words(config, sources, written)
    forms = jnp.concatenate([_forms(config, sources, tables), words[:, None]], axis=1)
    closed = jnp.cumsum(written == config.special.sep, axis=1) - (written == config.special.sep) > 0
    form = jnp.where(closed, 5, _form_at(config, jnp.arange(written.shape[1]))[None])
    allowed = jnp.take_along_axis(forms, form[..., None], axis=1)
    given = (sources, written, allowed)
    log_prob, _ = transformer.sequence_log_prob(params, config.model, *given, temperature=temperature)
    return jnp.sum(log_prob, axis=1)


@functools.partial(jax.jit, static_argnames=("config",))
def likelihood(params: Params, config: Config, records: Sequence[chex.Array]) -> chex.Array:
    """Evidence that m >= 2 records belong together, [B] nats a token, the mean over the m rotations of their order.

    In one order: sum over k > 1 of log p(d_k given d_<k) - log p(d_k), divided by the tokens of those d_k. For two
    records that is log p(d_2 given d_1) - log p(d_2), both ways.

    Args:
      records: m arrays [B, T_k] of row tokens.
    """
    count, rows = len(records), records[0].shape[0]
    if count < 2:
        raise ValueError(f"{count} record, expected at least two")
    begin = jnp.full((rows, 1), config.special.denoise, jnp.int32)
    ended = [_ended(config, record) for record in records]
    orders = [[(first + step) % count for step in range(count)] for first in range(count)]

    def told(place: int) -> tuple[chex.Array, chex.Array]:
        """log p and tokens, [orders, rows], of each order's record at `place` given those before it."""
        sources = [sequences.join([begin, *(records[i] for i in order[:place])]) for order in orders]
        targets = _stacked([ended[order[place]] for order in orders])
        cut = _stacked(sources)[:, : config.model.max_length]
        log_p, mask = transformer.sequence_log_prob(params, config.model, cut, targets)
        total, length = (jnp.sum(x, axis=1).reshape(count, rows) for x in (log_p, mask))
        return total, length

    # Place by place, for sources of few records are short.
    places = range(1, count)
    alone, (total, length) = told(0)[0], jax.tree.map(lambda *x: jnp.stack(x), *map(told, places))
    marginal = jnp.stack([alone[jnp.array([order[place] for order in orders])] for place in places])
    return jax.vmap(chain.conditional_gain)(*(jnp.sum(x, axis=0).T for x in (total, marginal, length)))


def _contrast(config: Config, batch: SftBatch, sources: chex.Array, targets: chex.Array) -> chex.Array:
    """InfoNCE (van den Oord et al. 2018) both ways; sources that ask for what is unrelated are left out."""
    related = batch.source[:, 1] != config.special.relation(UNRELATED)
    scores = sources @ targets.T / config.contrast_temperature

    def lost(scores: chex.Array) -> chex.Array:
        held = jnp.where(related[None], scores, layers.NEVER)
        return masking.masked_mean(jax.nn.logsumexp(held, axis=1) - jnp.diagonal(scores), related)

    return (lost(scores) + lost(scores.T)) / 2


def _forms(config: Config, sources: chex.Array, tables: chex.Array | None) -> chex.Array:
    """Allowed tokens [B, 5, V] at: the table, the level, the first column, a further column or <sep>, <sep>."""
    special, ids = config.special, jnp.arange(config.model.vocab_size)
    number = ids[None] - special.first_table
    is_table = (number >= 0) & (number < config.tables)
    if tables is None:
        own = jnp.any(sources[:, :, None] == ids[None, None], axis=1)
        table = is_table & ~own
    else:
        table = is_table & (number == tables[:, None])
    level = (ids >= special.first_level) & (ids < special.first_level + LEVELS)
    column = (ids >= special.first_column) & (ids < special.first_column + min(config.columns, 24))
    sep = ids == special.sep
    fixed = jnp.stack([level, column, column | sep, sep])
    fixed = jnp.broadcast_to(fixed[None], (sources.shape[0], *fixed.shape))
    return jnp.concatenate([table[:, None], fixed], axis=1)


def _form_at(config: Config, position: chex.Array) -> chex.Array:
    """Which of `_forms` holds at a position of the guardrails."""
    return jnp.where(position == config.guard_length - 1, 4, jnp.minimum(position, 3))


def _words(config: Config, sources: chex.Array, written: chex.Array) -> chex.Array:
    """Tokens [B, V] that a query may hold: text that stands in no attribute but those the guardrails leave out."""
    special, size = config.special, config.model.vocab_size
    text = ~special.contains(np.arange(size))
    text[special.eos] = True
    opened = _columns(config, written)
    number = sources - special.first_column
    heads = (number >= 0) & (number < 24)
    last = jax.lax.cummax(jnp.where(heads, jnp.arange(sources.shape[1])[None], -1), axis=1)
    column = jnp.take_along_axis(number, jnp.maximum(last, 0), axis=1) % config.columns
    is_open = (last < 0) | jnp.take_along_axis(opened, column, axis=1)

    def held(ids: chex.Array, at: chex.Array) -> chex.Array:
        return jnp.zeros(size, bool).at[ids].max(at)

    shut, free = jax.vmap(held)(sources, ~is_open), jax.vmap(held)(sources, is_open)
    return jnp.asarray(text)[None] & (free | ~shut)


def _columns(config: Config, written: chex.Array) -> chex.Array:
    """The columns named in guardrails [B, T] -> [B, C] bool."""
    number = written - config.special.first_column
    return jnp.any(number[:, :, None] == jnp.arange(config.columns)[None, None] % 24, axis=1)


def _decode(config: Config, sources: chex.Array, written: chex.Array, log_prob: chex.Array) -> Query:
    special, room = config.special, config.query_length - 4
    end = jnp.argmax(written == special.sep, axis=1)
    at = end[:, None] + 1 + jnp.arange(room)[None]
    words = jnp.take_along_axis(written, jnp.minimum(at, config.query_length - 1), axis=1)
    return Query(
        tokens=jnp.where((at < config.query_length) & (words != special.eos), words, 0),
        log_prob=log_prob,
        relation=sources[:, 1] - special.first_relation,
        table=written[:, 0] - special.first_table,
        columns=_columns(config, written),
        least_relevance=(written[:, 1] - special.first_level) / LEVELS,
    )


def _ended(config: Config, record: chex.Array) -> chex.Array:
    """A record's tokens, cut so that it and its end fit what is written."""
    eos = jnp.full((record.shape[0], 1), config.special.eos, jnp.int32)
    return sequences.join([record[:, : config.query_length - 1], eos])


def _stacked(parts: Sequence[chex.Array]) -> chex.Array:
    """Tokens [B, T_i] below one another, [sum B, max T_i]."""
    longest = max(part.shape[1] for part in parts)
    return jnp.concatenate([jnp.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts])
