"""The decision process: an anchor's ranked candidates are walked down, and a relation is stated for each or none.

An episode is one anchor. The candidate at hand is the unvisited visible one of best order. Actions, for Y relations:
  0 .. Y - 1  state relation a + 1 for the candidate at hand and move on
  Y      NONE     state nothing for it and move on
  Y + 1  READ     reveal its reading and stay; charged by the token
  Y + 2  REWRITE  make the next row of candidates visible; charged
  Y + 3  STOP     end the episode, free of charge
The state is what is known of the candidate at hand, in bins. Which actions are valid follows from the state's number
alone, since the target of Q knows nothing else. A state has one of three stages: a candidate at hand, nothing at
hand but rows to reveal, ended.

All functions are per anchor and pure, `play` apart, which takes B anchors.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax.ops import binning, policy_gradient
from aco_jax.types import UNKNOWN, Transition

Policy = Callable[[chex.Array, chex.PRNGKey], tuple[chex.Array, chex.Array]]
"""State numbers [B] and a key -> actions [B] int32 and their probabilities mu [B]."""

BINNED = ("posterior", "reading", "reverse", "reward", "spread", "validity", "null_mass", "position", "several")
FACTORS = ("relation", "taken", "rewrites", *BINNED)
RAW = ("stage", "revealed", *FACTORS)  # columns of a raw observation
AT_HAND, EXHAUSTED, ENDED = 0, 1, 2  # stages
_CERTAIN = 4.6  # logit of 0.99: edges beyond it would part what nobody decides differently


@dataclasses.dataclass(frozen=True)
class Config:
    """Costs in units of the reward, and the number of bins of each factor; 1 leaves a factor out."""

    relations: int = 1  # Y; the likeliest relation of the candidate is a factor of Y values
    max_steps: int = 48  # T; longer episodes are truncated, and bootstrapped
    discount: float = 0.99
    step_cost: float = 0.01  # of every action but STOP
    token_cost: float = 0.002  # of a token read
    rewrite_cost: float = 0.1
    posterior: int = 6  # an edge stands at probability 0.5
    reading: int = 4  # hidden, and at least one bin where it is revealed
    taken: int = 2  # partners taken so far: none, .. , taken - 1 or more
    reverse: int = 3
    rewrites: int = 2  # rows left to reveal: none, .. , rewrites - 1 or more
    reward: int = 3  # an edge stands at 0, the worth of NONE
    spread: int = 1
    validity: int = 1
    null_mass: int = 1  # the chance that no visible candidate left is a partner
    position: int = 1  # candidates decided so far
    several: int = 1  # the estimated share of records with several partners

    def __post_init__(self) -> None:
        if min(self.reading, self.rewrites) < 2 or min(self.sizes) < 1 or self.max_steps < 1:
            raise ValueError(f"reading and rewrites need 2 bins, all else 1, max_steps 1: {self}")
        if self.state_count > 4096 or sum(self.token_sizes) > 80 or len(self.token_sizes) > 16:
            raise ValueError(f"{self.state_count} states, {sum(self.token_sizes)} tokens: at most 4096 and 80")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bins of each of FACTORS."""
        return (self.relations, *(getattr(self, name) for name in FACTORS[1:]))

    @property
    def token_sizes(self) -> tuple[int, ...]:
        """Values of each of the n state tokens: the stage, then the factors that are not left out."""
        return (3, *(size for size in self.sizes if size > 1))

    @property
    def action_count(self) -> int:
        return self.relations + 4

    @property
    def terminal(self) -> int:
        """The number of the ended state, the last one."""
        return math.prod(self.sizes) + self.taken

    @property
    def state_count(self) -> int:
        return self.terminal + 1


@struct.dataclass
class Problem:
    """An anchor's candidates, L of them over all rows, and what is believed of them."""

    anchor: chex.Array  # [] int32 record
    query: chex.Array  # [] int32, number of the query within the run
    record: chex.Array  # [L] int32
    row: chex.Array  # [L] int32, 0 the query's, then the rewrites'
    valid: chex.Array  # [L] bool, False where empty
    order: chex.Array  # [L] float32, the ranker's sampled score
    posterior: chex.Array  # [L, Y] float32 probabilities without the reading
    posterior_read: chex.Array  # [L, Y] float32 probabilities with the reading
    reverse: chex.Array  # [L] float32, support of the candidate's own search for the anchor
    validity: chex.Array  # [L] float32 in [0, 1]
    reading: chex.Array  # [L] float32, hidden until READ
    ready: chex.Array  # [L] bool, the reading is computed; READ of another makes the anchor wait
    tokens: chex.Array  # [L] int32, what the reading costs
    reward: chex.Array  # [L, Y] float32, (r(s, a) - r(s, NONE)) / running std
    spread: chex.Array  # [L] float32, of the reward's members
    shares: chex.Array  # [2] float32, estimated shares of records with a partner and with several


@struct.dataclass
class EnvState:
    """Where the walk stands."""

    decision: chex.Array  # [L] int32: relation stated, UNRELATED for NONE, UNKNOWN where not visited
    revealed: chex.Array  # [L] bool, readings seen
    shown: chex.Array  # [] int32, the last visible row
    steps: chex.Array  # [] int32
    tokens: chex.Array  # [] int32, tokens read
    ended: chex.Array  # [] bool, by STOP or because nothing is left; not by truncation


@struct.dataclass
class Observation:
    """What is known of the candidate at hand."""

    raw: chex.Array  # [len(RAW)] float32
    factors: chex.Array  # [n] int32, bins as read by actor and critic
    state: chex.Array  # [] int32 in [0, S)


@struct.dataclass
class Edges:
    """The inner edges of each factor's bins, [bins - 1]; of the reading [bins - 2]: hidden is a bin of its own."""

    posterior: chex.Array  # logits
    reading: chex.Array
    reverse: chex.Array
    reward: chex.Array
    spread: chex.Array
    validity: chex.Array
    null_mass: chex.Array
    position: chex.Array
    several: chex.Array


@struct.dataclass
class Episode:
    """B walks of at most T steps. After the last step of a walk the mask is False and its return is unchanged."""

    transition: Transition  # [B, T]
    raw_tm1: chex.Array  # [B, T, len(RAW)] float32
    raw_t: chex.Array  # [B, T, len(RAW)] float32
    mask: chex.Array  # [B, T] bool
    final: EnvState  # [B]: decision, tokens, steps, ended


def config_for(relations: int, limit: int = 900, **changes: float) -> Config:
    """The config with the default bins made fewer, in a fixed order, until there are at most `limit` states.

    The counts of transitions are dense, S * A * S integers, so S is kept to hundreds.
    """
    coarser = ({}, {"reverse": 2}, {"reward": 2}, {"reward": 1}, {"reading": 3}, {"posterior": 4}, {"reverse": 1})
    bins: dict[str, int] = {}
    for fewer in coarser:
        bins |= fewer
        sizes = {name: bins.get(name, getattr(Config, name)) for name in FACTORS[1:]}
        if relations * math.prod(sizes.values()) < limit:
            break
    return dataclasses.replace(Config(relations, **bins), **changes)


def reset(problem: Problem) -> EnvState:
    """The start of a walk: row 0 is visible. Without any candidate it has ended."""
    zero = jnp.zeros((), jnp.int32)
    return EnvState(
        decision=jnp.full(problem.valid.shape, UNKNOWN, jnp.int32),
        revealed=jnp.zeros(problem.valid.shape, bool),
        shown=zero,
        steps=zero,
        tokens=zero,
        ended=~jnp.any(problem.valid),
    )


def current(problem: Problem, state: EnvState) -> tuple[chex.Array, chex.Array]:
    """The candidate at hand: its place in [0, L), and whether there is one."""
    at_hand = _unvisited(problem, state) & (problem.row <= state.shown)
    return jnp.argmax(jnp.where(at_hand, problem.order, -jnp.inf)), jnp.any(at_hand) & ~state.ended


def over(config: Config, state: EnvState) -> chex.Array:
    """Whether the walk is over, ended or truncated."""
    return state.ended | (state.steps >= config.max_steps)


def step(
    config: Config, problem: Problem, state: EnvState, action: chex.Array
) -> tuple[EnvState, chex.Array, chex.Array]:
    """Takes an action. One that is not valid changes nothing and costs a step.

    Returns:
      the next state, r_t, and discount_t: 0 where the walk ended, not where it was truncated.
    """
    none, read, rewrite, stop = config.relations + np.arange(4)
    place, present = current(problem, state)
    decides = present & (action <= none)
    reveals = present & (action == read) & ~state.revealed[place]
    rewrites = (action == rewrite) & (_rows_left(problem, state) > 0)
    tokens = jnp.where(reveals, problem.tokens[place], 0)
    relation = jnp.where(action == none, 0, action + 1)
    decision = state.decision.at[place].set(jnp.where(decides, relation, state.decision[place]))
    stated = problem.reward[place, jnp.minimum(action, config.relations - 1)]
    reward = (
        jnp.where(decides & (action < none), stated, 0.0)
        - jnp.where(action == stop, 0.0, config.step_cost)
        - jnp.where(rewrites, config.rewrite_cost, 0.0)
        - config.token_cost * tokens
    )
    moved = EnvState(
        decision=decision,
        revealed=state.revealed.at[place].max(reveals),
        shown=state.shown + rewrites,
        steps=state.steps + 1,
        tokens=state.tokens + tokens,
        ended=state.ended | (action == stop),
    )
    moved = moved.replace(ended=moved.ended | ~jnp.any(_unvisited(problem, moved)))
    return moved, reward, jnp.where(moved.ended, 0.0, config.discount)


def observe(config: Config, edges: Edges, problem: Problem, state: EnvState) -> Observation:
    """What is known of the candidate at hand, raw, in bins, and as a state number."""
    raw = _raw(problem, state)
    number = state_id(config, edges, raw)
    return Observation(raw=raw, factors=state_tokens(config, number), state=number)


def play(
    config: Config,
    edges: Edges,
    problem: Problem,
    policy: Policy,
    key: chex.PRNGKey,
    state: EnvState | None = None,
) -> Episode:
    """Walks B anchors, at most `max_steps` steps each.

    Args:
      config: of the process.
      edges: of the bins.
      problem: leaves [B, ..].
      policy: states [B] and a key -> actions and probabilities [B].
      key: consumed.
      state: where to go on, [B], if not at the start. An anchor that wants a reading that is not `ready` takes no
        further step: compute it, and play on from `final`.
    """
    observing = jax.vmap(functools.partial(observe, config, edges))

    def body(
        carry: tuple[EnvState, Observation], key: chex.PRNGKey
    ) -> tuple[tuple[EnvState, Observation], tuple[Transition, chex.Array, chex.Array, chex.Array]]:
        state, seen = carry
        action, mu = policy(seen.state, key)
        live = ~jax.vmap(functools.partial(_rests, config))(problem, state, action)
        moved, reward, discount = jax.vmap(functools.partial(step, config))(problem, state, action)
        moved = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(live, new, old), moved, state)
        then = observing(problem, moved)
        names = jax.vmap(functools.partial(_named, config))(problem, state, action)
        transition = Transition(
            s_tm1=seen.state,
            a_tm1=action.astype(jnp.int32),
            r_t=jnp.where(live, reward, 0.0),
            discount_t=jnp.where(live, discount, 0.0),
            s_t=then.state,
            mu_tm1=mu,
            anchor=problem.anchor,
            record=jnp.where(live, names, -1),
            query=problem.query,
        )
        return (moved, then), (transition, seen.raw, then.raw, live)

    start = jax.vmap(reset)(problem) if state is None else state
    keys = jax.random.split(key, config.max_steps)
    (final, _), steps = jax.lax.scan(body, (start, observing(problem, start)), keys)
    transition, raw_tm1, raw_t, mask = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)
    return Episode(transition=transition, raw_tm1=raw_tm1, raw_t=raw_t, mask=mask, final=final)


def returns(episode: Episode) -> chex.Array:
    """Discounted return of each walk, [B]."""
    steps = episode.transition
    return jax.vmap(policy_gradient.discounted_return)(steps.r_t, steps.discount_t)[:, 0]


def add_terminal_reward(episode: Episode, share: chex.Array) -> Episode:
    """Adds share [B] to the reward of each walk's last step; a walk without a step gets nothing."""
    length = episode.mask.shape[1]
    last = jnp.max(jnp.where(episode.mask, jnp.arange(length)[None], -1), axis=1)
    extra = jnp.where(jnp.arange(length)[None] == last[:, None], share[:, None], 0.0)
    steps = episode.transition
    return episode.replace(transition=steps.replace(r_t=steps.r_t + extra))


def shift_null(problem: Problem, shift: chex.Array) -> Problem:
    """Adds shift [], the continuous action, to the logit of "none of these": all odds fall by exp(shift)."""

    def lowered(p: chex.Array) -> chex.Array:
        return jax.nn.sigmoid(_logit(p) - shift)

    return problem.replace(
        posterior=lowered(problem.posterior), posterior_read=lowered(problem.posterior_read)
    )
