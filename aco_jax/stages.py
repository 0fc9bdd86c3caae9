"""What happens to the replicas' states between two stages of a run, once and in all replicas alike.

They begin equal; the judge that was fitted on the host is put in; the actor is taught after the supervised start; after
the first round the bins of the states are fitted; and some rounds later the actor begins to learn.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from aco_jax import exploration, learner_state, pretraining, replay, replicas, transitions
from aco_jax.agents import actor, reward
from aco_jax.ops import states
from aco_jax.types import Metrics, Params


@partial(jax.jit, static_argnums=(1, 2))
def fresh(key: jax.Array, agents: learner_state.Config, count: int) -> learner_state.State:
    """The replicas' states; as one program, for hundreds of small ones take longer to compile."""
    return replicas.start(learner_state.init(key, agents), count, jax.random.fold_in(key, 2))


@jax.jit
def begun(state: learner_state.State, base: Params) -> learner_state.State:
    """With a base of published weights, and an actor that begins as it."""
    return _with(state, {"base": base, "actor": actor.from_base(base)})


@partial(jax.jit, static_argnums=2)
def with_judge(state: learner_state.State, fitted: Params, agents: learner_state.Config) -> learner_state.State:
    """With the judge as it was fitted."""
    return _with(state, {"ranker": _first(state.averaged.params, agents)["ranker"] | {"judge": fitted}})


@partial(jax.jit, static_argnums=1)
def taught(
    state: learner_state.State, agents: learner_state.Config, key: jax.Array, reasons: actor.Reasons
) -> tuple[learner_state.State, Metrics]:
    """After the supervised start: the actor begins as the base, taught to decide and to give reasons, and the reward
    model's start is kept."""
    params = _first(state.averaged.params, agents)
    decides, metrics = pretraining.imitate(actor.from_base(params["base"]), agents, key, reasons)
    moved = _with(state, {"actor": decides, "reward": reward.restart(params["reward"])})
    # Moments of the lessons would go on moving what the rounds have no gradient for.
    averaged = dataclasses.replace(moved.averaged, moments=jax.tree.map(jnp.zeros_like, moved.averaged.moments))
    moved = dataclasses.replace(moved, averaged=averaged, step=jnp.zeros_like(state.step))
    return moved, {f"actor/{name}": value for name, value in metrics.items()}


@partial(jax.jit, static_argnums=1)
def after_warm_up(state: learner_state.State, agents: learner_state.Config) -> learner_state.State:
    """After the warm-up round: how much to explore, and the bins of the states, fitted once and the same everywhere.

    The first share of exploring actions is how uncertain the transitions were. Then counts and shared values, which are
    of the old numbers, are cleared and the replay is recoded.
    """
    bins, count = agents.environment.bins, state.step.shape[0]
    seen = jax.tree.map(lambda x: x[0], state.counts)
    valid = states.valid_actions(bins, jnp.arange(bins.state_count))
    entropy = transitions.row_entropy(seen, agents.smoothing, agents.smoothing_decay)
    epsilon = exploration.epsilon_from_entropy(entropy, transitions.reachable(seen, valid))
    raw = state.memory.raw_tm1.reshape(-1, state.memory.raw_tm1.shape[-1])
    filled = (jnp.arange(state.memory.capacity)[None] < state.memory.size[:, None]).reshape(-1)
    edges = states.fit(bins, raw, filled)
    encode = jax.vmap(partial(states.number, bins, edges))
    return dataclasses.replace(
        state,
        averaged=dataclasses.replace(
            state.averaged, epsilon=_spread(epsilon, count), shared_value=jnp.zeros_like(state.averaged.shared_value)
        ),
        edges=_spread(edges, count),
        memory=jax.vmap(lambda memory: replay.recode(memory, encode))(state.memory),
        counts=_spread(transitions.init(bins.state_count, bins.action_count), count),
    )


@partial(jax.jit, static_argnums=1)
def actor_begins(state: learner_state.State, agents: learner_state.Config) -> learner_state.State:
    """Where the actor begins to learn: the replay and the actor's moments begin anew.

    What they hold was rewarded by a reward model that had learned nothing yet. One run in ten of those on
    Amazon-Google found out from it that nothing is worth stating, and kept to that.
    """
    count, memory = state.step.shape[0], learner_state.empty_memory(agents)
    moments = state.averaged.moments | {"actor": jax.tree.map(jnp.zeros_like, state.averaged.moments["actor"])}
    return dataclasses.replace(
        state,
        averaged=dataclasses.replace(state.averaged, moments=moments),
        memory=_spread(memory, count),
        shards=_spread(replay.exchange(memory), count),
    )


def _with(state: learner_state.State, params: dict[str, Params]) -> learner_state.State:
    """The state with other parameters of some agents, in all replicas."""
    count = state.step.shape[0]
    moved = _spread({name: learner_state.vector(tree) for name, tree in params.items()}, count)
    averaged = dataclasses.replace(state.averaged, params=state.averaged.params | moved)
    return dataclasses.replace(state, averaged=averaged)


def _first(params: dict[str, jax.Array], agents: learner_state.Config) -> dict[str, Params]:
    """The agents' parameters of the first of equal replicas."""
    return learner_state.trees(jax.tree.map(lambda x: x[0], params), agents)


def _spread(tree: Params, count: int) -> Params:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)
