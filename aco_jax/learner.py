"""One replica's local step of the loop.

It plays one episode an anchor, remembers it, and moves all six agents at once: their parameters are disjoint trees, and
what one agent's loss needs of another is a constant to it (`targets`). The same advantage serves the actor that decides
and the base that asked.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax import environment, exploration, hollow, play, replay, shared_reward, targets, transitions
from aco_jax.agents import actor, base, critic, null_shift, ranker, reward, rewriter
from aco_jax.learner_state import Config, State, all_factors, all_valid, policy_table, trees, update
from aco_jax.ops import divergence
from aco_jax.types import Metrics, Params, Preference


@struct.dataclass
class Tables:
    """What all replicas read and nobody changes within a round."""

    texts: chex.Array  # [N, T] int32, every record as the reward model reads it
    facts: chex.Array  # [V] bool, tokens that carry a fact
    trunk: Params | None = None  # what the adapters of several agents belong to


@struct.dataclass
class _Constants:
    """What the losses of one step take as given."""

    critic: critic.Batch
    actor: actor.Batch
    advantage: chex.Array  # [B] of each query: the discounted sum of its episode's
    shared: play.Shared
    ranked: play.Ranked
    preferences: Preference
    hollow: reward.Hollow | None
    null_shift: null_shift.Batch | None


def local_step(state: State, batch: play.Batch, tables: Tables, config: Config) -> tuple[State, Metrics]:
    """Plays B episodes, remembers them, and updates all agents once."""
    key, *keys = jax.random.split(state.key, 6)
    params = trees(state.averaged.params, config, tables.trunk)
    ranked = play.rank(params["ranker"], config.ranker, batch, keys[0], config.ranker.temperature)
    value, spread, scale = _value(params["reward"], state.averaged.scale, config, batch, ranked, tables, keys[1])
    problem, shifted = _shift_null(params, state, play.problems(batch, ranked, value, spread), keys[2], config)
    # Read once, for the behaviour and for the loss: `table_gradient` takes the loss's gradient back to the parameters.
    log_policy, table_gradient = jax.vjp(
        lambda flat: policy_table(trees({"actor": flat}, config)["actor"], config), state.averaged.params["actor"]
    )
    state = _begin_round(state, log_policy, config)
    epsilon = exploration.anneal(state.averaged.epsilon, config.epsilon_last, state.step, config.steps)
    episode = play.walk(config.environment, state.edges, problem, log_policy, epsilon, keys[2])
    shared = _share(params["ranker"], state.averaged.shared_value, config, batch, tables, ranked, episode)
    episode = environment.add_terminal_reward(episode, config.credit_weight * shared.credit)
    state = _remember(state, episode, shared, config)
    exponent = exploration.anneal(config.importance_exponent, 1.0, state.step, config.steps)
    items, indices, weights = replay.sample(state.memory, keys[3], config.replay_batch, exponent, state.shards)
    q = critic.q_table(params["critic"], config.critic, all_factors(config))
    given = _Constants(
        critic=targets.critic_batch(state, items, indices, weights, q, log_policy, config),
        actor=targets.actor_batch(state, episode, items, q, log_policy, batch, config),
        advantage=targets.query_advantage(episode, q, log_policy),
        shared=shared,
        ranked=ranked,
        preferences=play.prefer(config.base.special, batch, tables.texts, ranked),
        hollow=_hollow(config, batch, tables, keys[4]),
        null_shift=targets.shift_batch(shifted, episode, q, log_policy, config),
    )

    def total(vectors: dict[str, chex.Array], log_policy: chex.Array) -> tuple[chex.Array, tuple[Metrics, chex.Array]]:
        now = trees(vectors, config, tables.trunk)
        losses, metrics, td_error = _losses(now, log_policy, state, batch, given, config, keys[4])
        return sum(losses.values()), (metrics, td_error)

    backward = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, (metrics, td_error)), (grads, in_table) = backward(state.averaged.params, log_policy)
    grads["actor"] = grads["actor"] + table_gradient(in_table)[0]
    # The critic leads: an advantage by values that know nothing yet would unteach the actor.
    lead = jnp.clip((state.step + 1 - config.warm_up) / max(1.0, config.critic_lead * config.steps), 0.0, 1.0)
    rates = dataclasses.asdict(config.rates)
    rates |= {"actor": lead * rates["actor"]} | ({"null_shift": config.null_shift.rate} if config.null_shift else {})
    # In the rounds the ranker learns what is laid on top of the judge, not its reader.
    rates = {name: rate if name == "ranker" else config.rate_of(name, rate) for name, rate in rates.items()}
    averaged = update(state.averaged, grads, config, rates)
    averaged = dataclasses.replace(
        averaged,
        critic_target=critic.update_target(
            config.critic, averaged.critic_target, averaged.params["critic"], state.step + 1
        ),
        scale=scale,
    )
    memory = replay.set_priorities(state.memory, indices, td_error, weights > 0)
    state = dataclasses.replace(state, averaged=averaged, memory=memory, step=state.step + 1, key=key)
    held = {"actor/round_kl": averaged.kl, "actor/kl_weight": averaged.kl_weight}
    return state, metrics | held | _episode_metrics(episode, shared, epsilon)


def _begin_round(state: State, log_policy: chex.Array, config: Config) -> State:
    """At the first step of a round the merged policy [S, A] becomes the old one; its KL sets the penalty's weight.

    Where no state was counted since the bins were fitted there is no KL to go by, and both stay.
    """
    averaged, seen = state.averaged, transitions.visited(state.counts)
    kl = jax.vmap(divergence.kl_categorical)(averaged.old_policy, log_policy, all_valid(config))
    kl = jnp.sum(kl * seen) / jnp.maximum(jnp.sum(seen), 1)
    weight = divergence.adaptive_weight(averaged.kl_weight, kl, config.kl_target)
    first = state.step % config.merge_every == 0
    told = first & jnp.any(seen)
    averaged = dataclasses.replace(
        averaged,
        old_policy=jnp.where(first, log_policy, averaged.old_policy),
        kl=jnp.where(told, kl, averaged.kl),
        kl_weight=jnp.where(told, weight, averaged.kl_weight),
    )
    return dataclasses.replace(state, averaged=averaged)


def _shift_null(
    params: dict[str, Params], state: State, problem: environment.Problem, key: chex.PRNGKey, config: Config
) -> tuple[environment.Problem, play.Shifted | None]:
    """The problems as the actor's continuous action makes them; as they are where it has none."""
    if config.null_shift is None:
        return problem, None
    noise = exploration.anneal(config.null_shift.noise, config.null_shift.least_noise, state.step, config.steps)
    return play.shift_null(
        params["null_shift"],
        config.null_shift,
        config.environment,
        state.edges,
        problem,
        noise,
        jax.random.fold_in(key, 1),
    )


def _hollow(config: Config, batch: play.Batch, tables: Tables, key: chex.PRNGKey) -> reward.Hollow | None:
    """Responses that say nothing new, beside what they repeat; none where the reward model is not to learn of them."""
    if not config.reward.hollow_weight:
        return None
    special, relations, room = config.base.special, config.reward.relations, config.actor.reason_length
    drawn = jax.random.fold_in(key, 2)
    return hollow.lessons(special, drawn, batch.text, batch.candidates, tables.texts, relations, room)


def _value(
    params: Params,
    scale: chex.Array,
    config: Config,
    batch: play.Batch,
    ranked: play.Ranked,
    tables: Tables,
    key: chex.PRNGKey,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Reward and spread of stating each relation for each candidate, [B, L, Y] each, and the new scale [E]."""
    few, place = play.likeliest(batch, ranked)
    every = play.all_preferences(config.base.special, few, tables.texts, config.reward.relations)
    keys = jax.random.split(key, batch.anchor.shape[0])
    members = jax.vmap(lambda one, k: reward.member_scores(params, config.reward, one, k))(every, keys)
    mask = jnp.repeat(play.flat(few.candidates.record >= 0), config.reward.relations, axis=1)
    scale = reward.update_scale(scale, members, mask, config.scale_rate)
    value, spread = jax.vmap(lambda scores: reward.combine(config.reward, scores, scale))(members)
    count = ranked.blind.shape[1]
    return play.spread_out(value, place, count), play.spread_out(spread, place, count), scale


def _share(
    params: Params,
    value: chex.Array,
    config: Config,
    batch: play.Batch,
    tables: Tables,
    ranked: play.Ranked,
    episode: environment.Episode,
) -> play.Shared:
    penalties = {
        "base": batch.lost,
        "rewriter": _mean_of_rewrites(rewriter.penalty(batch.subquery, batch.ask_source, tables.facts)),
        "ranker": ranker.penalty(params, config.ranker, batch.subquery),
    }
    # V counts R at every step of a walk; a step of it is in units of R.
    discount = config.environment.discount
    baseline = (1 - discount) * value[episode.transition.s_tm1[:, 0]]
    return play.share(
        batch,
        ranked,
        episode.final.decision,
        penalties,
        baseline,
        config.agreement_weight,
        config.penalty_weight,
    )


def _mean_of_rewrites(x: chex.Array) -> chex.Array:
    """[B, M] -> [B], 0 where nothing is rewritten."""
    return jnp.sum(x, axis=1) / max(x.shape[1], 1)


def _remember(state: State, episode: environment.Episode, shared: play.Shared, config: Config) -> State:
    """Counts and stores the transitions, and backs the shared value up along what was seen."""
    steps, mask = jax.tree.map(targets.merge_axes, episode.transition), targets.merge_axes(episode.mask)
    counts = transitions.observe(state.counts, steps.s_tm1, steps.a_tm1, steps.s_t, mask)
    raw_tm1, raw_t = targets.merge_axes(episode.raw_tm1), targets.merge_axes(episode.raw_t)
    value = shared_reward.shared_value(
        state.averaged.shared_value,
        shared.score.reward,
        config.environment.discount,
        transitions.successors(counts),
        config.environment.bins.terminal,
    )
    return dataclasses.replace(
        state,
        averaged=dataclasses.replace(state.averaged, shared_value=value),
        memory=replay.add(state.memory, steps, raw_tm1, raw_t, mask),
        counts=counts,
    )


def _losses(
    params: dict[str, Params],
    log_policy: chex.Array,
    state: State,
    batch: play.Batch,
    given: _Constants,
    config: Config,
    key: chex.PRNGKey,
) -> tuple[dict[str, chex.Array], Metrics, chex.Array]:
    """One loss an agent, each of its own parameters only; metrics; the critic's TD errors."""
    shared, losses = given.shared, {}
    # What all queries of a batch have in common is no reason to ask any of them less.
    asked = given.advantage - jnp.mean(given.advantage)
    weight = config.policy_weight * asked + config.shared_weight * shared.base
    losses["base"], base_metrics = base.policy_loss(
        params["base"], config.base, batch.ask_source, batch.written, weight, batch.searched, config.temperature
    )
    losses["rewriter"] = config.shared_weight * rewriter.policy_loss(
        params["rewriter"], config.rewriter, batch.rewrite_source, batch.subquery, shared.rewriter, config.temperature
    )
    ranking_loss, ranking_metrics = ranker.loss(
        params["ranker"], config.ranker, batch.candidates, batch.belief, batch.fold
    )
    losses["ranker"] = ranking_loss + config.shared_weight * (
        ranker.policy_loss(
            params["ranker"], config.ranker, batch.candidates, given.ranked.permutation, shared.ranker, batch.fold
        )
        + ranker.subquery_loss(params["ranker"], config.ranker, batch.merits, shared.ranker)
    )
    losses["reward"], reward_metrics = reward.loss(
        params["reward"], config.reward, given.preferences, key, given.hollow
    )
    losses["critic"], critic_metrics = critic.loss(params["critic"], config.critic, given.critic)
    losses["actor"], actor_metrics = actor.loss(
        params["actor"], config.actor, given.actor, state.averaged.kl_weight, log_policy
    )
    td_error = critic_metrics.pop("td_error")
    named = {
        "base": base_metrics,
        "ranker": ranking_metrics,
        "reward": reward_metrics,
        "critic": critic_metrics,
        "actor": actor_metrics,
    }
    if config.null_shift is not None and given.null_shift is not None:
        losses["null_shift"], named["null_shift"] = null_shift.loss(
            params["null_shift"], config.null_shift, given.null_shift
        )
    metrics = {f"{agent}/{name}": x for agent, found in named.items() for name, x in found.items()}
    return losses, metrics, td_error


def _episode_metrics(episode: environment.Episode, shared: play.Shared, epsilon: chex.Array) -> Metrics:
    final = episode.final
    score = {
        name: getattr(shared.score, name) for name in ("precision", "recall", "weighted_f1", "agreement", "reward")
    }
    return {
        "play/return": jnp.mean(environment.returns(episode)),
        "play/steps": jnp.mean(final.steps),
        "play/tokens": jnp.mean(final.tokens),
        "play/ended": jnp.mean(final.ended),
        "play/epsilon": epsilon,
        **{f"shared/{name}": value for name, value in score.items()},
        **{f"penalty/{name}": value for name, value in shared.penalties.items()},
    }
