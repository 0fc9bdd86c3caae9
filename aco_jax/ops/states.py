"""The states of the decision process: what is known of the candidate at hand, in bins, as one number.

A state has one of three stages: a candidate at hand, nothing at hand but rows of candidates to reveal, ended.
Numbers 0 .. prod(sizes) - 1 are the first stage's, then `taken` numbers of the second, then the ended one.
Which actions are valid follows from the number alone: the target of Q knows nothing else of the next state.

Actions, for Y relations: 0 .. Y - 1 state relation a + 1; then NONE, READ, REWRITE, STOP.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax.ops import binning

BINNED = (
    "posterior",
    "reading",
    "reverse",
    "reward",
    "spread",
    "validity",
    "null_mass",
    "position",
    "several",
)
FACTORS = ("relation", "taken", "rewrites", *BINNED)
RAW = ("stage", "revealed", *FACTORS)  # columns of a raw observation
AT_HAND, EXHAUSTED, ENDED = 0, 1, 2  # stages
_SIGNED = ("posterior", "reward")  # an edge stands at 0, and either side has its own bins
_CERTAIN = 4.6  # logit of 0.99: edges beyond it would part what nobody decides differently


@dataclasses.dataclass(frozen=True)
class Config:
    """The number of bins of each factor; 1 leaves it out."""

    relations: int = 1  # Y; the likeliest relation of the candidate is a factor of Y values
    taken: int = 2  # partners taken so far: none, .. , taken - 1 or more
    rewrites: int = 2  # rows left to reveal: none, .. , rewrites - 1 or more
    posterior: int = 6  # of the likeliest relation, a logit; an edge stands at 0
    reading: int = 4  # the first: not revealed
    reverse: int = 3  # support of the candidate's own search for the anchor
    reward: int = 3  # of the likeliest relation; an edge stands at 0, the worth of NONE
    spread: int = 1  # of the reward's members
    validity: int = 1
    null_mass: int = 1  # the chance that no visible candidate left is a partner
    position: int = 1  # candidates decided so far
    several: int = 1  # the estimated share of records with several partners

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or min(self.reading, self.rewrites) < 2:
            raise ValueError(f"reading and rewrites need 2 bins, every other factor 1: {self}")
        if self.state_count > 4096 or len(self.factor_sizes) > 16 or sum(self.factor_sizes) > 80:
            raise ValueError(f"more than 4096 states, 16 factors or 80 values in all: {self}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bins of each of FACTORS."""
        return (self.relations, *(getattr(self, name) for name in FACTORS[1:]))

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Values of each of the n factors that actor and critic read: the stage, then those not left out."""
        return (3, *(size for size in self.sizes if size > 1))

    @property
    def action_count(self) -> int:
        """A."""
        return self.relations + 4

    @property
    def terminal(self) -> int:
        """The number of the ended state."""
        return math.prod(self.sizes) + self.taken

    @property
    def state_count(self) -> int:
        """S."""
        return self.terminal + 1


@struct.dataclass
class Edges:
    """The inner edges of the bins, [bins - 1] float32 each; of the reading [bins - 2], hidden is apart."""

    posterior: chex.Array
    reading: chex.Array
    reverse: chex.Array
    reward: chex.Array
    spread: chex.Array
    validity: chex.Array
    null_mass: chex.Array
    position: chex.Array
    several: chex.Array


def config_for(relations: int, limit: int = 900) -> Config:
    """The default bins, made fewer in a fixed order until at most `limit` states are left.

    Counts of transitions are dense, S * A * S integers: S is kept to hundreds.
    """
    coarser = ("reverse", 2), ("reward", 2), ("reward", 1), ("reading", 3), ("posterior", 4), ("reverse", 1)
    config = Config()
    for name, bins in coarser:
        if relations * math.prod(config.sizes) + config.taken < limit:
            break
        config = dataclasses.replace(config, **{name: bins})
    return dataclasses.replace(config, relations=relations)


def first_edges(config: Config) -> Edges:
    """Evenly spaced edges in [-3, 3], for the walks that `fit` then learns from."""
    bins = {name: getattr(config, name) - (name == "reading") for name in BINNED}
    return Edges(**{name: jnp.linspace(-3.0, 3.0, count + 1)[1:-1] for name, count in bins.items()})


def fit(config: Config, raw: chex.Array, mask: chex.Array) -> Edges:
    """Edges that put equally many of the observations in each bin; 0 always parts posterior and reward.

    Args:
      config: of the bins.
      raw: [N, len(RAW)] observations.
      mask: [N] bool.
    """
    chex.assert_rank([raw, mask], [2, 1])
    column = dict(zip(RAW, raw.T, strict=True))
    at_hand = mask & (column["stage"] == AT_HAND)
    fitted = {}
    for name in BINNED:
        bins, values = getattr(config, name), column[name]
        if name in _SIGNED and bins > 1:
            near = at_hand & (jnp.abs(values) < _CERTAIN)
            below = binning.fit_edges(values, near & (values < 0), bins // 2)
            above = binning.fit_edges(values, near & (values >= 0), bins - bins // 2)
            fitted[name] = jnp.concatenate([below, jnp.zeros(1), above])
        elif name == "reading":
            fitted[name] = binning.fit_edges(values, at_hand & (column["revealed"] > 0), bins - 1)
        else:
            fitted[name] = binning.fit_edges(values, at_hand, bins)
    return Edges(**fitted)


def number(config: Config, edges: Edges, raw: chex.Array) -> chex.Array:
    """State number, int32 in [0, S), of a raw observation [len(RAW)]."""
    chex.assert_shape(raw, (len(RAW),))
    column = dict(zip(RAW, raw, strict=True))
    bins = {
        name: jnp.clip(column[name].astype(jnp.int32), 0, size - 1)
        for name, size in zip(FACTORS[:3], config.sizes, strict=False)
    }
    for name in BINNED:
        inner = getattr(edges, name)
        bins[name] = binning.digitize(column[name], inner) if len(inner) else jnp.zeros((), jnp.int32)
    bins["reading"] = jnp.where(column["revealed"] > 0, 1 + bins["reading"], 0)
    at_hand = binning.encode(jnp.stack([bins[name] for name in FACTORS]), config.sizes)
    exhausted = math.prod(config.sizes) + bins["taken"]
    ended = jnp.where(column["stage"] == ENDED, config.terminal, exhausted)
    return jnp.where(column["stage"] == AT_HAND, at_hand, ended)


def factors(config: Config, state: chex.Array) -> chex.Array:
    """What actor and critic read of states [..]: [.., n] int32, the stage and the bins not left out.

    Bins that a stage does not have are 0.
    """
    return jnp.asarray(_tables(config)[0])[state]


def valid_actions(config: Config, state: chex.Array) -> chex.Array:
    """[.., A] bool, the valid actions of states [..].

    STOP is valid everywhere, in the ended state too, where it changes nothing: no row is empty.
    """
    return jnp.asarray(_tables(config)[1])[state]


def fixed_policy(config: Config, certain: float = 0.9, reach: int = 0, stops: bool = True) -> np.ndarray:
    """A policy that learns nothing: [S, A] probabilities, 0 where an action is not valid.

    It states the likeliest relation of the candidate at hand where that is likelier than not, and stops where it is
    not: those that follow are less likely still. The share 1 - certain goes to all valid actions alike.

    Args:
      reach: the candidate at hand is read first where its posterior is in one of so many bins on either side of a half;
        with 0 the policy asks for nothing.
      stops: at the first candidate that is less likely than not; else all are looked at.
    """
    factors, valid = (np.asarray(table) for table in _tables(config))
    read = dict(
        zip(("stage", *(n for n, size in zip(FACTORS, config.sizes, strict=True) if size > 1)), factors.T, strict=True)
    )
    stated = (read["stage"] == AT_HAND) & (read["posterior"] >= config.posterior // 2)
    relation = read.get("relation", np.zeros(len(factors), np.int32))
    turned_down = config.action_count - 1 if stops else config.relations
    choice = np.where(stated, relation, np.where(read["stage"] == AT_HAND, turned_down, config.action_count - 1))
    middle = config.posterior // 2
    near = (read["posterior"] >= middle - reach) & (read["posterior"] < middle + reach)
    choice = np.where(near & valid[:, config.relations + 1], config.relations + 1, choice)
    return certain * np.eye(config.action_count)[choice] + (1 - certain) * valid / valid.sum(axis=1, keepdims=True)


@functools.lru_cache
def _tables(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Factors [S, n] int32 and valid actions [S, A] bool of every state."""
    count = math.prod(config.sizes)
    bins = np.zeros((config.state_count, len(FACTORS)), np.int32)
    bins[:count] = np.stack(np.unravel_index(np.arange(count), config.sizes), axis=1)
    bins[count:-1, FACTORS.index("taken")] = np.arange(config.taken)
    bins[count:-1, FACTORS.index("rewrites")] = 1
    stage = np.repeat(np.array([AT_HAND, EXHAUSTED, ENDED], np.int32), [count, config.taken, 1])
    read = [size > 1 for size in config.sizes]
    decides = np.repeat((stage == AT_HAND)[:, None], config.relations + 1, axis=1)
    reads = (stage == AT_HAND) & (bins[:, FACTORS.index("reading")] == 0)
    rewrites = bins[:, FACTORS.index("rewrites")] > 0
    valid = np.concatenate([decides, np.stack([reads, rewrites, np.ones_like(reads)], axis=1)], axis=1)
    return np.concatenate([stage[:, None], bins[:, read]], axis=1), valid
