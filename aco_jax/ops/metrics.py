"""Precision, recall and their relatives, 0 wherever they are undefined."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import masked_mean


def precision_recall_f1(tp: chex.Array, fp: chex.Array, fn: chex.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """tp / (tp + fp), tp / (tp + fn) and their harmonic mean. van Rijsbergen 1979, chapter 7.

    Args:
      tp: counts, any shape.
      fp: the same shape.
      fn: the same shape.
    """
    chex.assert_equal_shape([jnp.asarray(count) for count in (tp, fp, fn)])
    return _ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn)


def confusion(truth: chex.Array, predicted: chex.Array, mask: chex.Array, relations: int) -> jax.Array:
    """Counts by true (row) and predicted (column) relation.

    Args:
      truth: [N] int in [0, relations].
      predicted: [N] int in [0, relations].
      mask: [N] bool.
      relations: Y, without "unrelated".

    Returns:
      [Y + 1, Y + 1] float32.
    """
    chex.assert_rank([truth, predicted, mask], 1)
    table = jnp.zeros((relations + 1, relations + 1), jnp.float32)
    return table.at[truth, predicted].add(jnp.where(mask, 1.0, 0.0))


def weighted_f1(table: chex.Array) -> jax.Array:
    """Mean F1 of relations 1..Y, weighted by how often each is true: "unrelated" has no weight.

    Args:
      table: [Y + 1, Y + 1] confusion, rows true, columns predicted.
    """
    support = jnp.sum(table, axis=1)[1:]
    return _ratio(jnp.sum(_f1_of_relations(table) * support), jnp.sum(support))


def macro_f1(table: chex.Array) -> jax.Array:
    """Mean F1 of those relations 1..Y that are true or predicted at least once.

    Args:
      table: [Y + 1, Y + 1] confusion, rows true, columns predicted.
    """
    occurs = (jnp.sum(table, axis=1) + jnp.sum(table, axis=0))[1:] > 0
    return masked_mean(_f1_of_relations(table), occurs)


def soft_f1(p: chex.Array, decision: chex.Array | None = None, mask: chex.Array | None = None) -> jax.Array:
    """2 sum(p y) / (sum p + sum y): the F1 of decisions y to expect, an estimate for people, never a reward.

    Ye et al. 2012, Optimizing F-Measures, section 3, with the expectation taken in each term.

    Args:
      p: [N] calibrated probabilities.
      decision: [N] bool, p >= 0.5 by default.
      mask: [N] bool, all by default.
    """
    chex.assert_rank(p, 1)
    stated = p >= 0.5 if decision is None else decision
    valid = jnp.ones(p.shape, bool) if mask is None else mask
    chex.assert_equal_shape([p, stated, valid])
    p, stated = jnp.where(valid, p, 0.0), jnp.where(valid, stated, False)
    return _ratio(2.0 * jnp.sum(p * stated), jnp.sum(p) + jnp.sum(stated))


def recall_at_k(retrieved: chex.Array, relevant: chex.Array, k: int) -> jax.Array:
    """Share of the relevant records among the first k retrieved; 0 where nothing is relevant.

    Args:
      retrieved: [L] int records, best first, -1 where empty.
      relevant: [G] int records, each once, -1 where empty.
      k: int.
    """
    chex.assert_rank([retrieved, relevant], 1)
    wanted = relevant >= 0
    found = jnp.any(relevant[:, None] == retrieved[None, :k], axis=1)
    return _ratio(jnp.count_nonzero(found & wanted), jnp.count_nonzero(wanted))


def _f1_of_relations(table: chex.Array) -> jax.Array:
    """[Y + 1, Y + 1] -> [Y]."""
    chex.assert_rank(table, 2)
    tp = jnp.diagonal(table)
    f1 = precision_recall_f1(tp, jnp.sum(table, axis=0) - tp, jnp.sum(table, axis=1) - tp)[2]
    return f1[1:]


def _ratio(part: chex.Array, whole: chex.Array) -> jax.Array:
    """part / whole, 0 where whole is 0, in value and gradient."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0.0)
