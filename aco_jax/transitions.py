"""What was seen to follow what: counts of transitions, and the smoothed model made of them.

P(s' given s, a) = (N(s, a, s') + c / |S|) / (N(s, a) + c): the posterior mean under a symmetric Dirichlet
prior of total mass c. Adding 1 to each of thousands of next states would drown the counts;
here the mass is shared. By a confidence schedule the mass falls with what was seen of a row, c / (1 + N(s, a))^decay:
the prior's share of a row then vanishes as N^-(1 + decay) instead of 1 / N.

The counts that all replicas agreed on and those gathered since are kept apart, so that a merge adds every
replica's increment once.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.kernels import transition_counts
from aco_jax.ops import policy_gradient

_ROWS_AT_ONCE = 16  # states whose [A, S] rows are floats at the same time


@struct.dataclass
class State:
    """Counts of (s, a, s')."""

    merged: chex.Array  # [S, A, S] int32, of all replicas up to the last merge
    increment: chex.Array  # [S, A, S] int32, of this replica since then


def init(states: int, actions: int) -> State:
    """Nothing seen yet."""
    return State(
        merged=jnp.zeros((states, actions, states), jnp.int32),
        increment=jnp.zeros((states, actions, states), jnp.int32),
    )


def observe(state: State, s_tm1: chex.Array, a_tm1: chex.Array, s_t: chex.Array, mask: chex.Array) -> State:
    """Counts each unmasked (s, a, s'), all [n]."""
    chex.assert_rank([s_tm1, a_tm1, s_t, mask], 1)
    return dataclasses.replace(state, increment=transition_counts.add(state.increment, s_tm1, a_tm1, s_t, mask))


def merge(state: State, increments: chex.Array) -> State:
    """Takes in the sum over replicas of their increments, [S, A, S] int32, and starts counting anew."""
    return State(merged=state.merged + increments, increment=jnp.zeros_like(state.increment))


def probabilities(
    state: State, s: chex.Array, a: chex.Array, smoothing: chex.Numeric = 1.0, decay: float = 0.0
) -> chex.Array:
    """P(. given s, a) [.., S] for s and a [..] under the smoothed model; an unseen row is 1 / |S|.

    Args:
      state: counts.
      s: [..] int32.
      a: [..] int32.
      smoothing: c > 0, the mass shared by a row's next states.
      decay: >= 0, of the mass with N(s, a); 0 keeps it.
    """
    return _smooth(state.merged[s, a] + state.increment[s, a], smoothing, decay)


def expected_value(
    state: State, s: chex.Array, a: chex.Array, v: chex.Array, smoothing: chex.Numeric = 1.0, decay: float = 0.0
) -> chex.Array:
    """sum_s' P(s' given s, a) v(s') [..] for values v [S]."""
    return jnp.einsum("...s,s->...", probabilities(state, s, a, smoothing, decay), v)


def row_entropy(state: State, smoothing: chex.Numeric = 1.0, decay: float = 0.0) -> chex.Array:
    """Entropy of every smoothed row over log |S|, [S, A] in [0, 1]; an unseen row has 1."""
    states = state.merged.shape[0]

    def row(s: chex.Array) -> chex.Array:
        p = _smooth(state.merged[s] + state.increment[s], smoothing, decay)
        return jax.vmap(policy_gradient.normalised_entropy)(p)

    entropy = jax.lax.map(row, jnp.arange(states), batch_size=_ROWS_AT_ONCE)
    return jnp.where(counts(state) > 0, entropy, 1.0)


def counts(state: State) -> chex.Array:
    """N(s, a) [S, A] int32."""
    return jnp.sum(state.merged, axis=-1) + jnp.sum(state.increment, axis=-1)


def visited(state: State) -> chex.Array:
    """[S] bool: states in which an action was taken."""
    return jnp.any(counts(state) > 0, axis=-1)


def reachable(state: State, valid: chex.Array) -> chex.Array:
    """[S, A] bool: valid actions, [S, A] bool, of visited states, taken or not."""
    return visited(state)[:, None] & valid


def successors(state: State) -> chex.Array:
    """[S, S] bool: s' was seen right after s, whatever the action."""
    return jnp.any(state.merged > 0, axis=1) | jnp.any(state.increment > 0, axis=1)


def _smooth(rows: chex.Array, smoothing: chex.Numeric, decay: float) -> chex.Array:
    total = jnp.sum(rows, axis=-1, keepdims=True)
    mass = smoothing / (1.0 + total) ** decay if decay else smoothing
    return (rows + mass / rows.shape[-1]) / (total + mass)
