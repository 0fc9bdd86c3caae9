"""The decision process: an anchor's ranked candidates are walked down, a relation or none stated for each.

An episode is one anchor. The candidate at hand is the visible one of best order that was not yet decided.
Actions, for Y relations:
  0 .. Y - 1  state relation a + 1 for the candidate at hand and move on
  Y      NONE     state nothing for it and move on
  Y + 1  READ     reveal its reading and stay; charged by the token
  Y + 2  REWRITE  make the next row of candidates visible; charged
  Y + 3  STOP     end the episode, free of charge
The state is what is known of the candidate at hand, in bins (`ops.states`).

All functions are per anchor and pure, `play` apart, which takes B anchors.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax.ops import policy_gradient, states
from aco_jax.types import UNKNOWN, UNRELATED, Transition

Policy = Callable[[chex.Array, chex.PRNGKey], tuple[chex.Array, chex.Array]]
"""State numbers [B] and a key -> actions [B] int32 and their probabilities mu [B]."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Costs are in units of the reward."""

    bins: states.Config
    max_steps: int = 48  # T; a longer walk is truncated, and its value bootstrapped
    discount: float = 0.99
    step_cost: float = 0.01  # of every action but STOP
    token_cost: float = 0.002  # of a token read
    rewrite_cost: float = 0.1

    def __post_init__(self) -> None:
        if self.max_steps < 1 or not 0 <= self.discount <= 1:
            raise ValueError(f"max_steps of at least 1 and a discount in [0, 1] are expected: {self}")

    @property
    def actions(self) -> tuple[int, int, int, int]:
        """The numbers of NONE, READ, REWRITE and STOP; smaller ones state a relation."""
        first = self.bins.relations
        return first, first + 1, first + 2, first + 3


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
    pending: chex.Array  # [] bool, the rows below the first are not made yet; REWRITE makes the anchor wait
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

    raw: chex.Array  # [len(states.RAW)] float32
    factors: chex.Array  # [n] int32, `states.factors`
    state: chex.Array  # [] int32 in [0, S)


@struct.dataclass
class Episode:
    """B walks of at most T steps. After a walk's last step the mask is False, reward and discount are 0."""

    transition: Transition  # [B, T]
    raw_tm1: chex.Array  # [B, T, len(states.RAW)] float32
    raw_t: chex.Array  # [B, T, len(states.RAW)] float32
    mask: chex.Array  # [B, T] bool
    final: EnvState  # [B]: decision, tokens, steps, ended


def reset(problem: Problem) -> EnvState:
    """The start of a walk: row 0 is visible. Without any candidate it has ended."""
    return start(problem.valid, problem.pending)


def start(valid: chex.Array, pending: chex.Array) -> EnvState:
    """The start of walks whose candidates are valid [.., L] and whose further rows are pending [..]."""
    zero = jnp.zeros(pending.shape, jnp.int32)
    return EnvState(
        decision=jnp.full(valid.shape, UNKNOWN, jnp.int32),
        revealed=jnp.zeros(valid.shape, bool),
        shown=zero,
        steps=zero,
        tokens=zero,
        ended=~(jnp.any(valid, axis=-1) | pending),
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
    none, read, rewrite, stop = config.actions
    place, present = current(problem, state)
    decides = present & (action <= none)
    reveals = present & (action == read) & ~state.revealed[place]
    rewrites = (action == rewrite) & (_rows_left(problem, state) > 0)
    tokens = jnp.where(reveals, problem.tokens[place], 0)
    relation = jnp.where(action == none, 0, action + 1)
    decision = state.decision.at[place].set(jnp.where(decides, relation, state.decision[place]))
    stated = problem.reward[place, jnp.minimum(action, none - 1)]
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
    left = jnp.any(_unvisited(problem, moved)) | problem.pending
    moved = dataclasses.replace(moved, ended=moved.ended | ~left)
    return moved, reward, jnp.where(moved.ended, 0.0, config.discount)


def observe(config: Config, edges: states.Edges, problem: Problem, state: EnvState) -> Observation:
    """What is known of the candidate at hand, raw, in bins, and as a state number."""
    raw = _raw(problem, state)
    number = states.number(config.bins, edges, raw)
    return Observation(raw=raw, factors=states.factors(config.bins, number), state=number)


def play(
    config: Config,
    edges: states.Edges,
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
      state: where to go on, [B], if not at the start. An anchor that wants a reading which is not `ready`, or rows
        that are `pending`, takes no further step: compute them, and play on from `final`.
    """
    start = jax.vmap(reset)(problem) if state is None else state
    first = jax.vmap(functools.partial(observe, config, edges))(problem, start)
    body = functools.partial(_walk, config, edges, problem, policy)
    (final, _), steps = jax.lax.scan(body, (start, first), jax.random.split(key, config.max_steps))
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
    return dataclasses.replace(episode, transition=dataclasses.replace(steps, r_t=steps.r_t + extra))


def shift_null(problem: Problem, shift: chex.Array) -> Problem:
    """Adds shift [], the continuous action, to the logit of "none of these": all odds fall by exp(shift)."""

    def lowered(p: chex.Array) -> chex.Array:
        return jax.nn.sigmoid(_logit(p) - shift)

    return dataclasses.replace(
        problem, posterior=lowered(problem.posterior), posterior_read=lowered(problem.posterior_read)
    )


def _walk(
    config: Config,
    edges: states.Edges,
    problem: Problem,
    policy: Policy,
    carry: tuple[EnvState, Observation],
    key: chex.PRNGKey,
) -> tuple[tuple[EnvState, Observation], tuple[Transition, chex.Array, chex.Array, chex.Array]]:
    """One step of B walks; those that rest stay as they are."""
    state, seen = carry
    action, mu = policy(seen.state, key)
    live = ~jax.vmap(functools.partial(_rests, config))(problem, state, action)
    moved, reward, discount = jax.vmap(functools.partial(step, config))(problem, state, action)
    moved = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(live, new, old), moved, state)
    then = jax.vmap(functools.partial(observe, config, edges))(problem, moved)
    named = jax.vmap(functools.partial(_named, config))(problem, state, action)
    transition = Transition(
        s_tm1=seen.state,
        a_tm1=action.astype(jnp.int32),
        r_t=jnp.where(live, reward, 0.0),
        discount_t=jnp.where(live, discount, 0.0),
        s_t=then.state,
        mu_tm1=mu,
        anchor=problem.anchor,
        record=jnp.where(live, named, -1),
        query=problem.query,
    )
    return (moved, then), (transition, seen.raw, then.raw, live)


def _unvisited(problem: Problem, state: EnvState) -> chex.Array:
    """[L] bool, in rows still hidden too."""
    return problem.valid & (state.decision == UNKNOWN)


def _rows_left(problem: Problem, state: EnvState) -> chex.Array:
    """How many rows lie below the visible ones, up to the last that holds or may hold a candidate."""
    last = jnp.max(jnp.where(problem.valid | problem.pending, problem.row, 0))
    return jnp.maximum(last - state.shown, 0)


def _rests(config: Config, problem: Problem, state: EnvState, action: chex.Array) -> chex.Array:
    """Whether no step is taken: the walk is over, or wants a reading or rows that are not there yet."""
    _, read, rewrite, _ = config.actions
    place, present = current(problem, state)
    unread = present & ~state.revealed[place] & ~problem.ready[place]
    waits = (unread & (action == read)) | (problem.pending & (action == rewrite))
    return over(config, state) | waits


def _named(config: Config, problem: Problem, state: EnvState, action: chex.Array) -> chex.Array:
    """The record that an action speaks of, -1 where it names none."""
    place, present = current(problem, state)
    return jnp.where(present & (action <= config.actions[1]), problem.record[place], -1)


def _raw(problem: Problem, state: EnvState) -> chex.Array:
    """One number for each of `states.RAW`; 0 where the stage does not have it."""
    place, present = current(problem, state)
    revealed = state.revealed[place] & present
    posterior = jnp.where(state.revealed[:, None], problem.posterior_read, problem.posterior)
    relation = jnp.argmax(posterior[place])
    visible = _unvisited(problem, state) & (problem.row <= state.shown)
    absent = jnp.where(visible, jnp.log1p(-_inside(jnp.max(posterior, axis=1))), 0.0)
    candidate = {
        "revealed": revealed,
        "relation": relation,
        "posterior": _logit(posterior[place, relation]),
        "reading": jnp.where(revealed, problem.reading[place], 0.0),
        "reverse": problem.reverse[place],
        "reward": problem.reward[place, relation],
        "spread": problem.spread[place],
        "validity": problem.validity[place],
        "null_mass": jnp.exp(jnp.sum(absent)),
    }
    stage = jnp.where(state.ended, states.ENDED, jnp.where(present, states.AT_HAND, states.EXHAUSTED))
    walk = {
        "taken": jnp.count_nonzero(state.decision > UNRELATED),
        "rewrites": _rows_left(problem, state),
        "position": jnp.count_nonzero(state.decision != UNKNOWN),
        "several": problem.shares[1],
    }
    known = {name: jnp.where(present, value, 0) for name, value in candidate.items()}
    known |= {name: jnp.where(state.ended, 0, value) for name, value in walk.items()} | {"stage": stage}
    return jnp.stack([known[name].astype(jnp.float32) for name in states.RAW])


def _logit(p: chex.Array) -> chex.Array:
    inside = _inside(p)
    return jnp.log(inside) - jnp.log1p(-inside)


def _inside(p: chex.Array) -> chex.Array:
    """A probability whose logit is finite."""
    return jnp.clip(p, 1e-6, 1 - 1e-6)
