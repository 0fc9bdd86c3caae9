"""One replica: its state, a step of supervised start, and a local step of the loop.

A local step plays one episode an anchor, remembers it, and moves all six agents at once: their parameters are
disjoint trees, and what one agent's loss needs of another is a constant to it. The same advantage serves the actor that
decides and the base that asked.
"""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from aco_jax import environment, exploration, hollow, play, replay, shared_reward, transitions
from aco_jax.agents import actor, base, critic, null_shift, ranker, reward, rewriter
from aco_jax.learner_state import (
    Averaged,
    Config,
    State,
    adam,
    all_factors,
    all_valid,
    forms,
    policy_table,
    trees,
    vector,
)
from aco_jax.ops import divergence, policy_gradient, states, values
from aco_jax.types import Metrics, Params, Preference, Transition

LANGUAGE = ("base", "rewriter", "ranker", "reward")  # agents with supervised lessons
WARM_UP = 20  # supervised steps over which the rate rises


@struct.dataclass
class Lessons:
    """Supervised examples for the language models."""

    base: base.SftBatch
    rewriter: rewriter.SftBatch
    reader: ranker.SftBatch
    responses: chex.Array  # [b, T] int32


@struct.dataclass
class Tables:
    """What all replicas read and nobody changes within a round."""

    texts: chex.Array  # [N, T] int32, every record as the reward model reads it
    facts: chex.Array  # [V] bool, tokens that carry a fact


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


def pretrain_step(state: State, lessons: Lessons, tables: Tables, config: Config, rate: float) -> tuple[State, Metrics]:
    """One supervised step of base, rewriter, the ranker's reader and the reward model's trunk."""
    del tables

    def total(vectors: dict[str, chex.Array]) -> tuple[chex.Array, Metrics]:
        losses, metrics = _lesson_losses(trees(vectors, config), config, lessons)
        return sum(losses.values()), metrics

    (_, metrics), grads = jax.value_and_grad(total, has_aux=True)(state.averaged.params)
    warm = jnp.minimum(1.0, (state.step + 1) / WARM_UP)
    now = rate * warm * (1 + jnp.cos(jnp.pi * state.step / config.pretrain_steps)) / 2
    averaged = _update(state.averaged, grads, config, dict.fromkeys(LANGUAGE, now))
    return dataclasses.replace(state, averaged=averaged, step=state.step + 1), metrics


def local_step(state: State, batch: play.Batch, tables: Tables, config: Config) -> tuple[State, Metrics]:
    """Plays B episodes, remembers them, and updates all agents once."""
    key, *keys = jax.random.split(state.key, 6)
    params = trees(state.averaged.params, config)
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
        critic=_critic_batch(state, items, indices, weights, q, log_policy, config),
        actor=_actor_batch(state, episode, items, q, log_policy, batch, config),
        advantage=_query_advantage(episode, q, log_policy),
        shared=shared,
        ranked=ranked,
        preferences=play.prefer(config.base.special, batch, tables.texts, ranked),
        hollow=_hollow(config, batch, tables, keys[4]),
        null_shift=_shift_batch(shifted, episode, q, log_policy, config),
    )

    def total(vectors: dict[str, chex.Array], log_policy: chex.Array) -> tuple[chex.Array, tuple[Metrics, chex.Array]]:
        losses, metrics, td_error = _losses(trees(vectors, config), log_policy, state, batch, given, config, keys[4])
        return sum(losses.values()), (metrics, td_error)

    backward = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, (metrics, td_error)), (grads, in_table) = backward(state.averaged.params, log_policy)
    grads["actor"] = grads["actor"] + table_gradient(in_table)[0]
    # The critic leads: an advantage by values that know nothing yet would unteach the actor.
    lead = jnp.minimum(1.0, (state.step + 1) / max(1.0, config.critic_lead * config.steps))
    rates = dataclasses.asdict(config.rates)
    rates |= {"actor": lead * rates["actor"]} | ({"null_shift": config.null_shift.rate} if config.null_shift else {})
    averaged = _update(state.averaged, grads, config, rates)
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


@functools.partial(jax.jit, static_argnames=("config", "steps", "batch"))
def imitate(
    params: Params, config: Config, key: chex.PRNGKey, steps: int = 100, batch: int = 128, rate: float = 3e-3
) -> tuple[Params, chex.Array]:
    """The actor taught to decide as the posterior alone would, and the cross-entropy (nats) at the end.

    Exploring from nothing, one run in three never found out in a few dozen steps that stating a relation can pay.
    """
    bins = config.environment.bins
    factors, valid, policy = all_factors(config), all_valid(config), jnp.asarray(states.fixed_policy(bins))
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry: tuple[chex.Array, optax.OptState], key: chex.PRNGKey):
        flat, moments = carry
        drawn = jax.random.randint(key, (batch,), 0, bins.state_count)

        def loss(flat: chex.Array) -> chex.Array:
            tree = trees({"actor": flat}, config)["actor"]
            return actor.imitation_loss(tree, config.actor, factors[drawn], valid[drawn], policy[drawn])

        value, grads = jax.value_and_grad(loss)(flat)
        updates, moments = optimiser.update(grads, moments)
        return (optax.apply_updates(flat, updates), moments), value

    flat = vector(params)
    (flat, _), losses = jax.lax.scan(step, (flat, optimiser.init(flat)), jax.random.split(key, steps))
    return trees({"actor": flat}, config)["actor"], losses[-1]


def after_merge(state: State, config: Config) -> State:
    """What follows from merged parameters: what actor and base share."""
    params = _share_encoders(state.averaged.params, state.merges + 1, config)
    averaged = dataclasses.replace(state.averaged, params=params)
    return dataclasses.replace(state, averaged=averaged, merges=state.merges + 1)


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
        "base": batch.silent,
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
    steps, mask = jax.tree.map(_merge_axes, episode.transition), _merge_axes(episode.mask)
    counts = transitions.observe(state.counts, steps.s_tm1, steps.a_tm1, steps.s_t, mask)
    raw_tm1, raw_t = _merge_axes(episode.raw_tm1), _merge_axes(episode.raw_t)
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


def _critic_batch(
    state: State,
    items: Transition,
    indices: chex.Array,
    weights: chex.Array,
    q: chex.Array,
    log_policy: chex.Array,
    config: Config,
) -> critic.Batch:
    """What the critic learns of the items drawn: n steps of their walks, and the model's one."""
    bins = config.environment.bins
    valid, factors = all_valid(config), all_factors(config)
    target = trees({"critic": state.averaged.critic_target}, config)["critic"]
    q_target = critic.q_table(target, config.critic, factors)
    whole = items
    if config.n_step > 1:
        steps, mask = replay.following(state.memory, indices, config.n_step)
        whole = critic.n_step(steps, mask, q, q_target, valid, log_policy)
    return critic.Batch(
        factors_tm1=factors[items.s_tm1],
        a_tm1=items.a_tm1,
        r_t=whole.r_t,
        discount_t=whole.discount_t,
        r_first=items.r_t,
        q_t=q[whole.s_t],
        q_target_t=q_target[whole.s_t],
        valid_t=valid[whole.s_t],
        p_next=transitions.probabilities(
            state.counts, items.s_tm1, items.a_tm1, config.smoothing, config.smoothing_decay
        ),
        v_target=critic.state_values(q_target, valid, bins.terminal),
        importance_weights=weights,
    )


def _actor_batch(
    state: State,
    episode: environment.Episode,
    items: Transition,
    q: chex.Array,
    log_policy: chex.Array,
    batch: play.Batch,
    config: Config,
) -> actor.Batch:
    """This step's decisions, and the replayed ones."""
    fresh = jax.tree.map(_merge_axes, episode.transition)
    both = jax.tree.map(lambda new, old: jnp.concatenate([new, old]), fresh, items)
    mask = jnp.concatenate([_merge_axes(episode.mask), jnp.broadcast_to(state.memory.size > 0, items.r_t.shape)])
    return actor.Batch(
        factors=all_factors(config),
        valid=all_valid(config),
        state=both.s_tm1,
        action=both.a_tm1,
        mu=both.mu_tm1,
        advantage=_advantage(both, q, log_policy),
        q=q[both.s_tm1],
        old_log_pi=state.averaged.old_policy[both.s_tm1],
        mask=mask,
        reason_source=batch.reason_source,
        reason=batch.reason,
        reason_advantage=batch.reason_value,
    )


def _advantage(steps: Transition, q: chex.Array, log_policy: chex.Array) -> chex.Array:
    """r + discount V(s') - V(s) with V(s) = sum_a pi(a given s) Q(s, a), leaves [N] -> [N]."""
    value = jax.vmap(values.soft_value)(jnp.exp(log_policy), q)
    return jax.vmap(policy_gradient.advantage_td)(steps.r_t, steps.discount_t, value[steps.s_t], value[steps.s_tm1])


def _query_advantage(episode: environment.Episode, q: chex.Array, log_policy: chex.Array) -> chex.Array:
    """Discounted sum of the advantages of each query's episode, [B]."""
    steps = episode.transition
    flat = _advantage(jax.tree.map(_merge_axes, steps), q, log_policy).reshape(steps.r_t.shape)
    masked = jnp.where(episode.mask, flat, 0.0)
    return jax.vmap(policy_gradient.discounted_return)(masked, steps.discount_t)[:, 0]


def _shift_batch(
    shifted: play.Shifted | None, episode: environment.Episode, q: chex.Array, log_policy: chex.Array, config: Config
) -> null_shift.Batch | None:
    """What the shifts led to: the advantages of a walk add up to its return less the value of where it began."""
    if shifted is None:
        return None
    value = jax.vmap(values.soft_value)(jnp.exp(log_policy), q)
    returned = _query_advantage(episode, q, log_policy) + value[episode.transition.s_tm1[:, 0]]
    return null_shift.Batch(
        factors=all_factors(config)[shifted.state],
        shift=shifted.shift,
        noise=shifted.noise,
        advantage=returned - value[shifted.state],
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
        params["base"], config.base, batch.ask_source, batch.written, weight, batch.searched
    )
    losses["rewriter"] = config.shared_weight * rewriter.policy_loss(
        params["rewriter"], config.rewriter, batch.rewrite_source, batch.subquery, shared.rewriter
    )
    ranking_loss, ranking_metrics = ranker.loss(
        params["ranker"], config.ranker, batch.candidates, batch.belief, batch.fold
    )
    losses["ranker"] = ranking_loss + config.shared_weight * (
        ranker.policy_loss(params["ranker"], config.ranker, batch.candidates, given.ranked.permutation, shared.ranker)
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


def _update(
    averaged: Averaged, grads: dict[str, chex.Array], config: Config, rates: dict[str, chex.Numeric]
) -> Averaged:
    """One step of Adam for each agent named in `rates`."""
    params, moments = dict(averaged.params), dict(averaged.moments)
    for name, rate in rates.items():
        updates, moments[name] = adam(config).update(grads[name], moments[name], rate=rate)
        params[name] = optax.apply_updates(params[name], updates)
    return dataclasses.replace(averaged, params=params, moments=moments)


def _share_encoders(params: dict[str, chex.Array], merges: chex.Array, config: Config) -> dict[str, chex.Array]:
    """Polyak-averages what actor and base have in common but the decision: their encoders."""
    if not config.share_every:
        return params
    rate = jnp.where(merges % config.share_every == 0, config.share_rate, 0.0)
    common = [
        np.full(leaf.size, path[0].key.startswith("encoder"))
        for path, leaf in jax.tree_util.tree_leaves_with_path(forms(config)["base"])
    ]
    rates = jnp.where(np.concatenate(common), rate, 0.0)
    ours, theirs = params["base"], params["actor"]
    return params | {"base": values.polyak(ours, theirs, rates), "actor": values.polyak(theirs, ours, rates)}


def _merge_axes(x: chex.Array) -> chex.Array:
    return x.reshape(-1, *x.shape[2:])


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
