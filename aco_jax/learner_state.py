"""What one replica is: its config, its state, and its agents' parameters as vectors and as trees."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from aco_jax import environment, replay, transitions
from aco_jax.agents import actor, base, critic, null_shift, ranker, reward, rewriter
from aco_jax.models import lora
from aco_jax.ops import states
from aco_jax.types import Params

AGENTS = ("base", "rewriter", "ranker", "reward", "critic", "actor")


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam."""

    base: float = 1e-4
    rewriter: float = 1e-4
    ranker: float = 5e-3  # of what is laid on top of the judge, a handful of numbers
    reward: float = 3e-3  # slower, what it says is still wrong when the actor begins to learn
    critic: float = 3e-3
    actor: float = 1e-3


@dataclass(frozen=True)
class Config:
    """What a replica learns with."""

    base: base.Config
    rewriter: rewriter.Config
    ranker: ranker.Config
    reward: reward.Config
    critic: critic.Config
    actor: actor.Config
    environment: environment.Config
    null_shift: null_shift.Config | None = None  # None: the actor has no continuous action
    rates: Rates = field(default_factory=Rates)
    clip: float = 1.0  # greatest norm of an agent's gradient
    accumulate: int = 1  # steps whose mean gradient moves the agents once
    adam_eps: float = 1e-6  # well above the rounding noise of gradients that are 0 but for it
    steps: int = 100  # local steps of the run, over which exploration is annealed
    merge_every: int = 4  # local steps of a round
    warm_up: int = 4  # local steps in which the actor does not learn: the reward model knows little yet
    critic_lead: float = 0.25  # share of the steps over which its rate rises from there on
    pretrain_steps: int = 200  # supervised steps of the run, over which their rate falls to 0
    replay_capacity: int = 4096  # transitions of this replica's shard
    replay_batch: int = 128
    priority_exponent: float = 0.6  # 0 draws uniformly
    priority_ranks: bool = False  # draw by the rank of a priority instead of its size
    importance_exponent: float = 0.4  # at the start; 1 at the end
    n_step: int = 1  # steps of a walk in a target of the critic
    smoothing: float = 1.0  # mass of a row of the transition model
    smoothing_decay: float = 0.0  # power by which the mass falls with what was seen of a row; 0 keeps it
    epsilon_last: float = 0.02  # share of exploring actions at the end
    kl_target: float = 0.02  # nats a decision and round
    credit_weight: float = 1.0  # of the shared reward at the end of an episode
    temperature: float = 1.0  # that the queries and subqueries of a round are drawn at
    policy_weight: float = 0.05  # of the episode's advantage in the base's loss
    shared_weight: float = 0.05  # of the shared reward in the losses of base, rewriter and ranker
    penalty_weight: float = 1.0  # of an agent's own penalty
    agreement_weight: float = 1.0  # of the committee's agreement in the shared reward
    scale_rate: float = 0.05  # of the running spread of the reward's members
    share_rate: float = 0.1  # Polyak rate between the encoders of base and actor
    share_every: int = 4  # merges; 0 never shares
    begun: tuple[str, ...] = ()  # agents that begin from published weights
    begun_rate: float = 3e-4  # the highest of theirs

    def rate_of(self, agent: str, rate: chex.Numeric) -> chex.Numeric:
        """An agent's rate: what is learned in vast texts is not to be lost in a few steps."""
        return jnp.minimum(rate, self.begun_rate) if agent in self.begun else rate


@struct.dataclass
class Averaged:
    """What the merge averages over replicas."""

    params: dict[str, chex.Array]  # one vector an agent; `trees` gives the parameters their shapes
    moments: dict[str, optax.OptState]  # Adam's, one an agent
    critic_target: chex.Array  # a vector, as the critic's
    old_policy: chex.Array  # [S, A] log-probabilities after the last merge
    shared_value: chex.Array  # [S]
    scale: chex.Array  # [E] spread of each reward member
    kl: chex.Array  # [] nats a visited state, of the policy after the last round to that before
    kl_weight: chex.Array  # []
    epsilon: chex.Array  # [] share of exploring actions before annealing


@struct.dataclass
class State:
    """A replica's state; leaves have a leading axis R when there are several."""

    averaged: Averaged
    memory: replay.State
    shards: replay.Shards
    counts: transitions.State
    edges: states.Edges
    step: chex.Array  # [] int32, local steps
    merges: chex.Array  # [] int32
    key: chex.PRNGKey


def init(key: chex.PRNGKey, config: Config) -> State:
    """A replica that has learned nothing; the actor starts as a copy of the base."""
    params = {name: vector(tree) for name, tree in _fresh(key, config).items()}
    bins = config.environment.bins
    memory = empty_memory(config)
    averaged = Averaged(
        params=params,
        moments={name: adam(config).init(flat) for name, flat in params.items()},
        critic_target=jnp.copy(params["critic"]),
        old_policy=jnp.zeros((bins.state_count, bins.action_count)),
        shared_value=jnp.zeros(bins.state_count),
        scale=jnp.ones(config.reward.members),
        kl=jnp.zeros(()),
        kl_weight=jnp.ones(()),
        epsilon=jnp.ones(()),
    )
    return State(
        averaged=averaged,
        memory=memory,
        shards=replay.exchange(memory),
        counts=transitions.init(bins.state_count, bins.action_count),
        edges=states.first_edges(bins),
        step=jnp.zeros((), jnp.int32),
        merges=jnp.zeros((), jnp.int32),
        key=jax.random.fold_in(key, 1),
    )


def empty_memory(config: Config) -> replay.State:
    """A replica's replay before it has seen anything."""
    return replay.init(config.replay_capacity, len(states.RAW), config.priority_exponent, ranked=config.priority_ranks)


def trees(vectors: dict[str, chex.Array], config: Config, trunk: Params | None = None) -> dict[str, Params]:
    """The parameters of the agents as the agents read them, of `Averaged.params`; NumPy stays NumPy.

    Adapters are put beside the kernels of the trunk that they belong to, where it is given.
    """
    found = {name: _shaped(x, forms(config)[name]) for name, x in vectors.items()}
    if trunk is None:
        return found
    beside = functools.partial(lora.attach, trunk)
    reader = {"reader": beside(found["ranker"]["reader"])}
    ours = {part: beside(found["reward"][part]) for part in ("trunk", "start")}
    whole = {
        "rewriter": beside(found["rewriter"]),
        "ranker": found["ranker"] | reader,
        "reward": found["reward"] | ours,
    }
    return found | whole


def vector(tree: Params) -> chex.Array:
    """All parameters of an agent in one vector, as `trees` reads it. A merge and a step of Adam are one operation."""
    return jnp.concatenate([jnp.reshape(leaf, -1) for leaf in jax.tree.leaves(tree)])


@functools.partial(jax.jit, static_argnames="config")
def policy_table(params: Params, config: Config) -> chex.Array:
    """Log-probabilities of the actor's actions in every state, [S, A]."""
    valid = all_valid(config)
    return actor.act(params, config.actor, all_factors(config), valid)


def all_factors(config: Config) -> chex.Array:
    """The state tokens of every state, [S, n]."""
    bins = config.environment.bins
    return states.factors(bins, jnp.arange(bins.state_count))


def all_valid(config: Config) -> chex.Array:
    """The valid actions of every state, [S, A] bool."""
    bins = config.environment.bins
    return states.valid_actions(bins, jnp.arange(bins.state_count))


def adam(config: Config) -> optax.GradientTransformationExtraArgs:
    """Adam whose rate is an argument; it moves at every `accumulate`-th step, by the mean of their gradients."""

    def descend(updates: chex.Array, state: optax.OptState, params: None = None, *, rate: chex.Numeric):
        del params
        return -rate * updates, state

    scaled = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), descend)
    whole = optax.chain(optax.clip_by_global_norm(config.clip), optax.scale_by_adam(eps=config.adam_eps), scaled)
    if config.accumulate == 1:
        return whole
    several = optax.MultiSteps(whole, config.accumulate)
    return optax.GradientTransformationExtraArgs(several.init, several.update)


def update(
    averaged: Averaged, grads: dict[str, chex.Array], config: Config, rates: dict[str, chex.Numeric]
) -> Averaged:
    """One step of Adam for each agent named in `rates`."""
    params, moments = dict(averaged.params), dict(averaged.moments)
    for name, rate in rates.items():
        updates, moments[name] = adam(config).update(grads[name], moments[name], rate=rate)
        params[name] = optax.apply_updates(params[name], updates)
    return dataclasses.replace(averaged, params=params, moments=moments)


def _fresh(key: chex.PRNGKey, config: Config) -> dict[str, Params]:
    keys = dict(zip(AGENTS, jax.random.split(key, len(AGENTS)), strict=True))
    params = {
        "base": base.init(keys["base"], config.base),
        "rewriter": rewriter.init(keys["rewriter"], config.rewriter),
        "ranker": ranker.init(keys["ranker"], config.ranker),
        "reward": reward.init(keys["reward"], config.reward),
        "critic": critic.init(keys["critic"], config.critic),
    }
    if config.null_shift is not None:
        params["null_shift"] = null_shift.init(keys["actor"], config.null_shift)
    return params | {"actor": actor.from_base(params["base"])}


@functools.lru_cache
def forms(config: Config) -> dict[str, Params]:
    """The shapes of every agent's parameters."""
    return jax.eval_shape(lambda: _fresh(jax.random.key(0), config))


def _shaped(flat: chex.Array, form: Params) -> Params:
    leaves, tree = jax.tree.flatten(form)
    stops = np.cumsum([leaf.size for leaf in leaves])[:-1]
    split = np.split if isinstance(flat, np.ndarray) else jnp.split
    parts: list[chex.Array] = split(flat, stops)
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
