"""The rewriter: a small language model, distilled from the base, that splits a query into subqueries.

It reads <rewrite> <level m> record <sep> query and writes <level m> words <eos> for subquery m, each self-contained:
names, codes and numbers, the other attributes. (A network so small needs the number on both sides to heed it.) At
inference its weights are int8 or int4.

Sources: Ma et al. 2023, Query Rewriting for Retrieval-Augmented LLMs; Hinton et al. 2015 (distillation);
Williams 1992, REINFORCE.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax.data.tokens import Special
from aco_jax.models import distillation, generate, lora, quantization, transformer
from aco_jax.ops import policy_gradient, rowwise, sequences
from aco_jax.types import Metrics, Params


@dataclass(frozen=True)
class Config:
    """The language model and the form of what it writes."""

    model: transformer.Config
    special: Special
    source_length: int = 64  # S, tokens of <rewrite> <level m> record <sep> query
    length: int = 28  # T, tokens of a subquery, its number and end included
    kl_weight: float = 0.5  # of the KL to the base beside the cross-entropy
    temperature: float = 1.0  # of that KL
    reverse: bool = False  # that KL the other way round
    bits: int = 8  # of the weights at inference, 8 or 4
    rank: int = 0  # of the adapters of a trunk that others share; 0: the network is its own


@struct.dataclass
class SftBatch:
    """Examples of data.tasks.rewrite."""

    source: chex.Array  # [B, S] int32
    target: chex.Array  # [B, T] int32, number and end included


@struct.dataclass
class Rewrites:
    """The subqueries of each request."""

    tokens: chex.Array  # [B, M, T] int32, number and end included
    log_prob: chex.Array  # [B, M] nats, of the tokens after the number


def smaller(model: transformer.Config) -> transformer.Config:
    """A network of at most half the parameters, over the same tokens: half as wide."""
    width = max(model.width // 2 // model.heads, 1) * model.heads
    return dataclasses.replace(
        model, width=width, mlp_width=2 * width, decoder_layers=max(model.decoder_layers // 2, 1)
    )


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Fresh parameters of the language model, or adapters."""
    return lora.fresh(key, config.model, config.rank)


@functools.partial(jax.jit, static_argnames=("config",))
def rewrite(
    params: Params,
    config: Config,
    source: chex.Array,
    key: chex.PRNGKey,
    temperature: float | chex.Array = 1.0,
) -> Rewrites:
    """Splits each query.

    Args:
      params: float32, or as `quantization.quantize` returns them.
      source: [B, M, S] of `data.tasks.rewrite_sources`.
      key: [], or [B], one of each request.
      temperature: 0 takes the likeliest token.
    """
    chex.assert_rank(source, 3)
    rows = source.reshape(-1, source.shape[2])
    keys = rowwise.split(rowwise.keys(key, source.shape[0]), source.shape[1])
    written, log_prob = generate.generate(
        quantization.dequantize(params),
        config.model,
        rows,
        bos=config.special.bos,
        eos=config.special.eos,
        length=config.length,
        key=keys.reshape(-1),
        temperature=temperature,
        allowed=_text(config)[None],
        prefix=rows[:, 1:2],
    )
    return Rewrites(written.reshape(*source.shape[:2], config.length), log_prob.reshape(source.shape[:2]))


def loss(
    params: Params, config: Config, batch: SftBatch, teacher: Params, teacher_model: transformer.Config
) -> tuple[chex.Array, Metrics]:
    """Token cross-entropy over valid tokens, mixed with the KL of the base's distribution to the rewriter's.

    The teacher, a base of configuration `teacher_model` over the same tokens, gets no gradient.
    """

    return distillation.sequence_loss(
        params,
        config.model,
        teacher,
        teacher_model,
        batch.source,
        batch.target,
        config.kl_weight,
        config.temperature,
        config.reverse,
    )


def policy_loss(
    params: Params,
    config: Config,
    source: chex.Array,
    written: chex.Array,
    advantage: chex.Array,
    temperature: float = 1.0,
) -> chex.Array:
    """The share of the shared reward: -stop_gradient(R - penalty - baseline) x log p(own subqueries), the mean.

    Args:
      source: [B, M, S], what each subquery was written from.
      written: [B, M, T] of `rewrite`.
      advantage: [B].
      temperature: as given to `rewrite`.
    """
    chex.assert_rank([source, written, advantage], [3, 3, 1])
    if written.shape[1] == 0:  # nothing is rewritten
        return jnp.zeros(())
    log_prob = subquery_log_prob(params, config, source, written, temperature)
    return jnp.mean(jax.vmap(jax.vmap(policy_gradient.reinforce_loss, (0, None)))(log_prob, advantage))


def subquery_log_prob(
    params: Params, config: Config, source: chex.Array, written: chex.Array, temperature: float = 1.0
) -> chex.Array:
    """Log-probability [B, M] (nats) of subqueries [B, M, T] given their numbers; at 1 as `rewrite` reports it."""
    flat_source, flat = (x.reshape(-1, x.shape[-1]) for x in (source, written))
    allowed = _text(config)[None, None]
    given = (flat_source, flat, allowed)
    log_prob, _ = transformer.sequence_log_prob(params, config.model, *given, temperature=temperature)
    return jnp.sum(log_prob[:, 1:], axis=-1).reshape(written.shape[:2])


def penalty(written: chex.Array, records: chex.Array, facts: chex.Array) -> chex.Array:
    """How far subqueries invent or lose facts of the anchor, [B, M] in [0, 1].

    Half the share of a subquery's fact tokens that its record lacks, plus half the share of the record's
    different fact tokens that no subquery of the request holds.

    Args:
      written: [B, M, T] subqueries.
      records: [B, S] row tokens of the anchors.
      facts: [V] bool, the tokens that state facts (`data.tasks.fact_tokens`).
    """
    chex.assert_rank([written, records, facts], [3, 2, 1])
    return jax.vmap(_penalty, in_axes=(0, 0, None))(written, records, facts)


def _penalty(written: chex.Array, record: chex.Array, facts: chex.Array) -> chex.Array:
    stated = facts[written] & (written > 0)
    said = jax.vmap(sequences.contained, (0, None))(written, record)
    invented = jnp.sum(stated & ~said, axis=-1) / jnp.maximum(jnp.sum(stated, axis=-1), 1)
    nothing = jnp.zeros(facts.shape[0], bool)
    known, kept = nothing.at[record].set(True) & facts, nothing.at[written].set(True)
    lost = jnp.sum(known & ~kept) / jnp.maximum(jnp.sum(known), 1)
    return 0.5 * (invented + lost)


def _text(config: Config) -> chex.Array:
    """The tokens a subquery may hold, [V] bool: text and the end."""
    text = ~config.special.contains(np.arange(config.model.vocab_size))
    text[config.special.eos] = True
    return jnp.asarray(text)
