"""Prioritised experience replay: a ring of transitions under a sum tree in arrays.

Schaul et al. 2016, Prioritized Experience Replay, eq. 1, sections 3.3 and 3.4, and appendix B.2.1. Priorities are
proportional, p^e, or rank-based, rank(p)^-e; the latter sorts all leaves at each draw, which a few thousand allow.

A shard is one replica's replay. Shards draw equally many items each, so item i of a shard has the probability
P(i) = p_i^e / (R * sum of its shard's p^e).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.kernels import sum_tree
from aco_jax.types import Transition

_GREATEST = 1e30  # absolute TD error, so that no sum of priorities is infinite


@struct.dataclass
class State:
    """Z slots, of which the first `size` in order of writing hold an item, the oldest overwritten first."""

    items: Transition  # leaves [Z]
    raw_tm1: chex.Array  # [Z, n] float32, the observation that s_tm1 was coded from
    raw_t: chex.Array  # [Z, n] float32, the observation that s_t was coded from
    # A sum tree (kernels/sum_tree.py) of p^exponent, of p if ranked; 0 at empty slots.
    tree: chex.Array  # [2 * leaves] float32
    position: chex.Array  # int32 in [0, Z), the slot written next
    size: chex.Array  # int32, number of valid items
    exponent: float = struct.field(pytree_node=False)  # e of p^e; 0 draws uniformly
    offset: float = struct.field(pytree_node=False)  # added to the absolute TD error
    ranked: bool = struct.field(pytree_node=False, default=False)  # draw by rank(p)^-exponent

    @property
    def capacity(self) -> int:
        return self.raw_tm1.shape[-2]


@struct.dataclass
class Shards:
    """What shards know of one another between two merges."""

    count: chex.Array  # int32 R
    least: chex.Array  # float32, the smallest P(i) in any shard


def init(capacity: int, factors: int, exponent: float = 0.6, offset: float = 1e-3, ranked: bool = False) -> State:
    """An empty replay.

    Args:
      capacity: Z, the number of slots of this shard; any number, a power of two or not.
      factors: n, the length of a raw observation.
      exponent: e >= 0 of p^e.
      offset: > 0, so that no item becomes unreachable.
      ranked: draw by the ranks of the priorities.
    """
    if capacity < 1 or exponent < 0 or offset <= 0:
        raise ValueError(f"capacity {capacity} >= 1, exponent {exponent} >= 0 and offset {offset} > 0 are expected")
    whole, real = jnp.zeros(capacity, jnp.int32), jnp.zeros(capacity, jnp.float32)
    items = Transition(
        s_tm1=whole,
        a_tm1=whole,
        r_t=real,
        discount_t=real,
        s_t=whole,
        mu_tm1=real,
        anchor=whole,
        record=whole,
        query=whole,
    )
    leaves = 1 << max(capacity - 1, 1).bit_length()
    return State(
        # A copy each: a donated buffer may be given once only.
        items=jax.tree.map(jnp.copy, items),
        raw_tm1=jnp.zeros((capacity, factors), jnp.float32),
        raw_t=jnp.zeros((capacity, factors), jnp.float32),
        tree=jnp.zeros(2 * leaves, jnp.float32),
        position=jnp.zeros((), jnp.int32),
        size=jnp.zeros((), jnp.int32),
        exponent=exponent,
        offset=offset,
        ranked=ranked,
    )


def add(state: State, items: Transition, raw_tm1: chex.Array, raw_t: chex.Array, mask: chex.Array) -> State:
    """Writes the unmasked items at the greatest priority held, 1 in an empty replay.

    Args:
      state: of Z slots.
      items: leaves [n], n <= Z.
      raw_tm1: [n, factors].
      raw_t: [n, factors].
      mask: [n] bool; a masked item is not stored.
    """
    chex.assert_rank([raw_tm1, raw_t, mask], [2, 2, 1])
    if mask.shape[0] > state.capacity:
        raise ValueError(f"{mask.shape[0]} items do not fit into a replay of {state.capacity} slots")
    rank = jnp.cumsum(mask) - 1
    slot = jnp.where(mask, (state.position + rank) % state.capacity, state.capacity)

    def write(old: chex.Array, new: chex.Array) -> chex.Array:
        return old.at[slot].set(new.astype(old.dtype), mode="drop")

    highest = jnp.max(state.tree[state.tree.shape[0] // 2 :])
    entry = jnp.where(state.size > 0, highest, 1.0)
    count = jnp.count_nonzero(mask)
    return dataclasses.replace(
        state,
        items=jax.tree.map(write, state.items, items),
        raw_tm1=write(state.raw_tm1, raw_tm1),
        raw_t=write(state.raw_t, raw_t),
        tree=sum_tree.update(state.tree, slot, jnp.broadcast_to(entry, mask.shape), mask),
        position=(state.position + count) % state.capacity,
        size=jnp.minimum(state.size + count, state.capacity),
    )


def sample(
    state: State,
    key: chex.PRNGKey,
    batch: int,
    importance_exponent: chex.Numeric,
    shards: Shards | None = None,
) -> tuple[Transition, chex.Array, chex.Array]:
    """Draws items in proportion to p^e or rank(p)^-e, one from each of `batch` equal strata of the sum.

    Importance weights (N P(i))^-b / max_j (N P(j))^-b are (min_j P(j) / P(i))^b: N, of valid items, cancels.

    Args:
      state: to draw from.
      key: consumed.
      batch: number of draws.
      importance_exponent: b in [0, 1], annealed to 1.
      shards: the newest `exchange`; without it the replay is the only shard.

    Returns:
      items with leaves [batch], indices [batch] int32, and importance weights [batch] in [0, 1], all 0 where
      the replay is empty.
    """
    shards = exchange(state) if shards is None else shards
    tree = _rank_tree(state) if state.ranked else state.tree
    coarse, fine = jax.random.uniform(key, (2, batch))
    indices = sum_tree.descend(tree, (jnp.arange(batch) + coarse) / batch * tree[1], fine)
    leaf = tree[tree.shape[0] // 2 + indices]
    probability = leaf / jnp.where(state.size > 0, shards.count * tree[1], 1.0)
    filled = jnp.where(state.size > 0, probability, 1.0)
    # `least` is as old as the last merge, so an item may be rarer by now.
    weights = jnp.minimum(shards.least / filled, 1.0) ** importance_exponent
    items = jax.tree.map(lambda leaf: leaf[indices], state.items)
    return items, indices, jnp.where(state.size > 0, weights, 0.0)


def following(state: State, indices: chex.Array, steps: int) -> tuple[Transition, chex.Array]:
    """The drawn items and what was written right after each, as far as it is the same walk, which its query names.

    The ring holds single steps in their order, so no item has to know how many of them a target takes.

    Args:
      state: the one that was drawn from.
      indices: [batch] int32.
      steps: n >= 1.

    Returns:
      items with leaves [batch, n], the drawn one first, and [batch, n] bool: False from where the walk ended, was cut,
      or is not held.
    """
    chex.assert_rank(indices, 1)
    ahead = jnp.arange(steps)[None]
    items = jax.tree.map(lambda leaf: leaf[(indices[:, None] + ahead) % state.capacity], state.items)
    written = (indices - state.position + state.size) % state.capacity  # 0 is the oldest item
    held = written[:, None] + ahead < state.size
    went_on = jnp.pad(items.discount_t[:, :-1] > 0, ((0, 0), (1, 0)), constant_values=True)
    same = held & went_on & (items.query == items.query[:, :1])
    return items, jnp.cumprod(same, axis=1) > 0


def set_priorities(state: State, indices: chex.Array, td_error: chex.Array, mask: chex.Array) -> State:
    """p = |td_error| + offset for drawn items; of an item drawn twice the greater counts.

    Args:
      state: the one that was drawn from.
      indices: [batch] int32.
      td_error: [batch], not weighted by importance; where it is not finite the old priority stays.
      mask: [batch] bool.
    """
    chex.assert_rank([indices, td_error, mask], 1)
    held = state.tree[state.tree.shape[0] // 2 + indices] > 0
    size = jnp.minimum(jnp.abs(td_error), _GREATEST) + state.offset
    priority = size if state.ranked else size**state.exponent
    tree = sum_tree.update(state.tree, indices, priority, mask & held & jnp.isfinite(td_error))
    return dataclasses.replace(state, tree=tree)


def exchange(state: State, axis_name: str | tuple[str, ...] | None = None) -> Shards:
    """The shards' numbers, over the replicas of `axis_name`, one or several, where it is given."""
    tree = _rank_tree(state) if state.ranked else state.tree
    leaves = tree[tree.shape[0] // 2 :]
    least = jnp.min(jnp.where(leaves > 0, leaves, jnp.inf)) / jnp.where(state.size > 0, tree[1], 1.0)
    count = jnp.ones((), jnp.int32)
    if axis_name is not None:
        least, count = jax.lax.pmin(least, axis_name), jax.lax.psum(count, axis_name)
    return Shards(count=count, least=jnp.where(jnp.isfinite(least), least, 1.0) / count)


def recode(state: State, encode: Callable[[chex.Array], chex.Array]) -> State:
    """Codes every item's states anew after a refit of the bins.

    Args:
      state: the replay.
      encode: raw observations [Z, n] -> state ids [Z].
    """
    items = dataclasses.replace(state.items, s_tm1=encode(state.raw_tm1), s_t=encode(state.raw_t))
    return dataclasses.replace(state, items=items)


def _rank_tree(state: State) -> chex.Array:
    """The sum tree of rank(p)^-exponent, rank 1 the greatest priority, the first among equals; 0 at empty slots."""
    priority = state.tree[state.tree.shape[0] // 2 :]
    order = jnp.argsort(-priority)
    rank = jnp.zeros_like(priority).at[order].set(1.0 + jnp.arange(priority.shape[0]))
    levels = [jnp.where(priority > 0, rank**-state.exponent, 0.0)]
    while levels[0].shape[0] > 1:
        levels.insert(0, levels[0][0::2] + levels[0][1::2])
    return jnp.concatenate([jnp.zeros(1), *levels])
