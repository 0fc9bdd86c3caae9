"""What all agents are rewarded with: how right the hard decisions are where the truth is planted.

R = mean(precision, recall, weighted F1 over the relations) + agreement_weight * agreement of the committee;
for an agent R less its own penalty. Decisions, planted truth and hard votes are all that enters: no model's
score does.

The credit of one anchor is the difference reward R(z) - R(z without the anchor's decisions), Wolpert and
Tumer 2001, Optimal Payoff Functions for Members of Collectives: it has the sign of the anchor's part in R,
and none of the noise of the others' parts.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.ops import metrics, values
from aco_jax.types import UNKNOWN, UNRELATED


@struct.dataclass
class Score:
    """The shared reward and its parts, scalars."""

    precision: chex.Array  # of the relations stated
    recall: chex.Array  # of the relations planted
    weighted_f1: chex.Array
    agreement: chex.Array
    reward: chex.Array  # R


def confusions(decision: chex.Array, truth: chex.Array, planted: chex.Array, missed: chex.Array) -> chex.Array:
    """Each anchor's own confusion table, [B, Y + 1, Y + 1] float32, rows true, columns stated.

    Args:
      decision: [B, L] relation stated, UNRELATED for none, UNKNOWN where not visited, which states nothing.
      truth: [B, L] relation, UNKNOWN where nothing is believed.
      planted: [B] bool; the table of an anchor whose truth is not planted is 0.
      missed: [B, Y] planted partners of each relation that no query found: truths nobody could state.
    """
    chex.assert_rank([decision, truth, planted, missed], [2, 2, 1, 2])
    counted = planted[:, None] & (truth != UNKNOWN)
    stated = jnp.where(decision == UNKNOWN, UNRELATED, decision)
    known = jnp.where(truth == UNKNOWN, UNRELATED, truth)
    tables = jax.vmap(metrics.confusion, (0, 0, 0, None))(known, stated, counted, missed.shape[1])
    return tables.at[:, 1:, UNRELATED].add(jnp.where(planted[:, None], missed, 0))


def agreement(votes: chex.Array, consensus: chex.Array, mask: chex.Array) -> chex.Array:
    """Mean over members of 2 x (relations stated alike) / (stated by the member + stated by the consensus).

    Most candidates are left unrelated by all, which says nothing, so those do not count: Dice 1945, Measures
    of the Amount of Ecologic Association. 0 where nobody states anything.

    Args:
      votes: [E, N] int32, each member's hard decision, UNRELATED or a relation.
      consensus: [N] int32, the hard decision of their mean.
      mask: [N] bool.
    """
    chex.assert_rank([votes, consensus, mask], [2, 1, 1])

    def member(vote: chex.Array) -> chex.Array:
        own, common = mask & (vote > UNRELATED), mask & (consensus > UNRELATED)
        alike = jnp.count_nonzero(own & (vote == consensus))
        apart = jnp.count_nonzero(own) - alike, jnp.count_nonzero(common) - alike
        return metrics.precision_recall_f1(alike, *apart)[2]

    return jnp.mean(jax.vmap(member)(votes))


def score(table: chex.Array, agreement: chex.Array, agreement_weight: chex.Numeric) -> Score:
    """R of the summed confusion table [Y + 1, Y + 1] and the committee's agreement []."""
    chex.assert_rank([table, agreement], [2, 0])
    right = jnp.sum(jnp.diagonal(table)[1:])
    stated, true = jnp.sum(table[:, 1:]), jnp.sum(table[1:])
    precision, recall, _ = metrics.precision_recall_f1(right, stated - right, true - right)
    weighted_f1 = metrics.weighted_f1(table)
    reward = (precision + recall + weighted_f1) / 3 + agreement_weight * agreement
    return Score(
        precision=precision,
        recall=recall,
        weighted_f1=weighted_f1,
        agreement=agreement,
        reward=jax.lax.stop_gradient(reward),
    )


def credits(tables: chex.Array, planted: chex.Array) -> chex.Array:
    """Difference rewards [B], in units of R for an anchor of average weight; 0 where not planted.

    The agreement is the same with and without an anchor's decisions, so it has no part here.

    Args:
      tables: [B, Y + 1, Y + 1] of `confusions`.
      planted: [B] bool.
    """
    chex.assert_rank([tables, planted], [3, 1])
    silent = jnp.zeros_like(tables).at[:, :, UNRELATED].set(jnp.sum(tables, axis=2))
    total = jnp.sum(tables, axis=0, keepdims=True)
    both = jnp.concatenate([total, total - tables + silent])
    rewards = jax.vmap(lambda table: score(table, jnp.zeros(()), 0.0).reward)(both)
    return jnp.where(planted, (rewards[0] - rewards[1:]) * jnp.count_nonzero(planted), 0.0)


def agent_reward(reward: chex.Array, penalty: chex.Array, weight: chex.Numeric) -> chex.Array:
    """R_agent = R - weight x penalty of the agent, both [..], a constant for every gradient."""
    chex.assert_equal_shape([reward, penalty])
    return jax.lax.stop_gradient(reward - weight * penalty)


def shared_value(
    value: chex.Array,
    reward: chex.Array,
    discount: chex.Numeric,
    seen: chex.Array,
    terminal: int,
    sweeps: int = 1,
) -> chex.Array:
    """Sweeps of V(s) <- R + discount x max of V(s') over the s' seen from s; V(terminal) = 0.

    Args:
      value: [S] before.
      reward: [] R.
      discount: scalar in [0, 1).
      seen: [S, S] bool, s' was seen right after s; a state without successors keeps its value.
      terminal: the ended state.
      sweeps: backups of all states at once.
    """
    chex.assert_rank([value, reward, seen], [1, 0, 2])
    ended = jnp.arange(value.shape[0]) == terminal
    backed_up = jnp.any(seen, axis=1) & ~ended

    def sweep(_: int, v: chex.Array) -> chex.Array:
        target = jax.vmap(values.shared_value_target, (None, None, None, 0))(reward, discount, v, seen)
        return jnp.where(backed_up, target, v)

    return jax.lax.fori_loop(0, sweeps, sweep, jnp.where(ended, 0.0, value))
