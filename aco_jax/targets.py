"""What the losses of a local step take as given: what critic and actor learn of, and the advantages.

A loss reads tables over all states (Q, the policy) that were made once; here they are looked up at the steps that were
just walked and at those drawn from the replay.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax import environment, play, replay, transitions
from aco_jax.agents import actor, critic, null_shift
from aco_jax.learner_state import Config, State, all_factors, all_valid, trees
from aco_jax.ops import policy_gradient, values
from aco_jax.types import Transition


def critic_batch(
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


def actor_batch(
    state: State,
    episode: environment.Episode,
    items: Transition,
    q: chex.Array,
    log_policy: chex.Array,
    batch: play.Batch,
    config: Config,
) -> actor.Batch:
    """This step's decisions, and the replayed ones."""
    fresh = jax.tree.map(merge_axes, episode.transition)
    both = jax.tree.map(lambda new, old: jnp.concatenate([new, old]), fresh, items)
    mask = jnp.concatenate([merge_axes(episode.mask), jnp.broadcast_to(state.memory.size > 0, items.r_t.shape)])
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
        reason_advantage=batch.reason_value - jnp.mean(batch.reason_value),
    )


def query_advantage(episode: environment.Episode, q: chex.Array, log_policy: chex.Array) -> chex.Array:
    """Discounted sum of the advantages of each query's episode, [B]."""
    steps = episode.transition
    flat = _advantage(jax.tree.map(merge_axes, steps), q, log_policy).reshape(steps.r_t.shape)
    masked = jnp.where(episode.mask, flat, 0.0)
    return jax.vmap(policy_gradient.discounted_return)(masked, steps.discount_t)[:, 0]


def shift_batch(
    shifted: play.Shifted | None, episode: environment.Episode, q: chex.Array, log_policy: chex.Array, config: Config
) -> null_shift.Batch | None:
    """What the shifts led to: the advantages of a walk add up to its return less the value of where it began."""
    if shifted is None:
        return None
    value = jax.vmap(values.soft_value)(jnp.exp(log_policy), q)
    returned = query_advantage(episode, q, log_policy) + value[episode.transition.s_tm1[:, 0]]
    return null_shift.Batch(
        factors=all_factors(config)[shifted.state],
        shift=shifted.shift,
        noise=shifted.noise,
        advantage=returned - value[shifted.state],
    )


def merge_axes(x: chex.Array) -> chex.Array:
    """Walks [B, T, ..] -> their steps [B T, ..]."""
    return x.reshape(-1, *x.shape[2:])


def _advantage(steps: Transition, q: chex.Array, log_policy: chex.Array) -> chex.Array:
    """r + discount V(s') - V(s) with V(s) = sum_a pi(a given s) Q(s, a), leaves [N] -> [N]."""
    value = jax.vmap(values.soft_value)(jnp.exp(log_policy), q)
    return jax.vmap(policy_gradient.advantage_td)(steps.r_t, steps.discount_t, value[steps.s_t], value[steps.s_tm1])
