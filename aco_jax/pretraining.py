"""The supervised start of one replica: the language models take their lessons, the actor its own.

It learns the fixed policy and to give reasons. Without all this nobody asks, reads or states anything that could be
rewarded.
"""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from aco_jax.agents import actor, base, ranker, reward, rewriter
from aco_jax.learner import Tables
from aco_jax.learner_state import Config, State, all_factors, all_valid, trees, update, vector
from aco_jax.ops import states
from aco_jax.types import Metrics, Params

LANGUAGE = ("base", "rewriter", "ranker", "reward")  # agents with supervised lessons
WARM_UP = 20  # supervised steps over which the rate rises


@struct.dataclass
class Lessons:
    """Supervised examples for the language models."""

    base: base.SftBatch
    rewriter: rewriter.SftBatch
    reader: ranker.SftBatch
    responses: chex.Array  # [b, T] int32


def pretrain_step(state: State, lessons: Lessons, tables: Tables, config: Config, rate: float) -> tuple[State, Metrics]:
    """One supervised step of base, rewriter, the ranker's reader and the reward model's trunk."""

    def total(vectors: dict[str, chex.Array]) -> tuple[chex.Array, Metrics]:
        losses, metrics = _lesson_losses(trees(vectors, config, tables.trunk), config, lessons)
        return sum(losses.values()), metrics

    (_, metrics), grads = jax.value_and_grad(total, has_aux=True)(state.averaged.params)
    warm = jnp.minimum(1.0, (state.step + 1) / WARM_UP)
    now = rate * warm * (1 + jnp.cos(jnp.pi * state.step / config.pretrain_steps)) / 2
    averaged = update(state.averaged, grads, config, {name: config.rate_of(name, now) for name in LANGUAGE})
    return dataclasses.replace(state, averaged=averaged, step=state.step + 1), metrics


@functools.partial(jax.jit, static_argnames=("config", "batch"))
def imitate(
    params: Params, config: Config, key: chex.PRNGKey, reasons: actor.Reasons, batch: int = 128, rate: float = 3e-3
) -> tuple[Params, Metrics]:
    """The actor taught to decide as the posterior alone would, and to give reasons: one step a row of `reasons`.

    Exploring from nothing, one run in three never found out in a few dozen steps that stating a relation can pay.

    Args:
        reasons: leaves [steps, b, ..].
        batch: states whose decisions are taught at a step.

    Returns:
        parameters, and metrics of the last step: imitation (nats a state), explanation (nats a token).
    """
    bins = config.environment.bins
    factors, valid, policy = all_factors(config), all_valid(config), jnp.asarray(states.fixed_policy(bins))
    optimiser = optax.adam(optax.cosine_decay_schedule(config.rate_of("actor", rate), len(reasons.source)))

    def step(carry: tuple[chex.Array, optax.OptState], given: tuple[chex.PRNGKey, actor.Reasons]):
        (flat, moments), (key, lessons) = carry, given
        drawn = jax.random.randint(key, (batch,), 0, bins.state_count)

        def loss(flat: chex.Array) -> tuple[chex.Array, Metrics]:
            tree = trees({"actor": flat}, config)["actor"]
            decisions = actor.imitation_loss(tree, config.actor, factors[drawn], valid[drawn], policy[drawn])
            explanations = actor.explanation_loss(tree, config.actor, lessons)
            return decisions + explanations, {"imitation": decisions, "explanation": explanations}

        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(flat)
        updates, moments = optimiser.update(grads, moments)
        return (optax.apply_updates(flat, updates), moments), metrics

    flat, keys = vector(params), jax.random.split(key, len(reasons.source))
    (flat, _), metrics = jax.lax.scan(step, (flat, optimiser.init(flat)), (keys, reasons))
    return trees({"actor": flat}, config)["actor"], jax.tree.map(lambda x: x[-1], metrics)


def _lesson_losses(
    params: dict[str, Params], config: Config, lessons: Lessons
) -> tuple[dict[str, chex.Array], Metrics]:
    """The supervised losses of the language models; the base teaches rewriter and reader."""
    teacher, model = params["base"], config.base.model
    found = {
        "base": base.loss(params["base"], config.base, lessons.base),
        "rewriter": rewriter.loss(params["rewriter"], config.rewriter, lessons.rewriter, teacher, model),
        "ranker": ranker.reader_loss(params["ranker"], config.ranker, lessons.reader, teacher, model),
        "reward": reward.language_loss(params["reward"], config.reward, lessons.responses),
    }
    metrics = {f"{agent}/{name}": x for agent, (_, part) in found.items() for name, x in part.items()}
    return {agent: value for agent, (value, _) in found.items()}, metrics
