"""Targets and errors of the value functions."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import NEVER


def td_error(
    q_tm1: chex.Array,
    a_tm1: chex.Array,
    r_t: chex.Array,
    discount_t: chex.Array,
    q_t_value: chex.Array,
    q_t_selector: chex.Array,
    valid_t: chex.Array,
) -> jax.Array:
    """Double Q: r_t + discount_t Q_value(s_t, argmax_a Q_selector(s_t, a)) - Q(s_tm1, a_tm1), target stopped.

    van Hasselt et al. 2016, Deep Reinforcement Learning with Double Q-learning, eq. 4.

    Args:
      q_tm1: [A].
      a_tm1: int in [0, A).
      r_t: scalar.
      discount_t: scalar, 0 on termination, not on truncation.
      q_t_value: [A], of the target network.
      q_t_selector: [A], of the online network.
      valid_t: [A] bool; where no action is valid the next state is worth 0.
    """
    chex.assert_rank([q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector, valid_t], [1, 0, 0, 0, 1, 1, 1])
    q_t = jnp.where(jnp.any(valid_t), jnp.take(q_t_value, masked_argmax(q_t_selector, valid_t)), 0.0)
    target = r_t + discount_t * q_t
    return jax.lax.stop_gradient(target) - jnp.take(q_tm1, a_tm1)


def expected_target(r_t: chex.Array, discount_t: chex.Array, p_next: chex.Array, v_target: chex.Array) -> jax.Array:
    """r + discount sum_s' P(s' given s, a) V_target(s'), stopped.

    Sutton and Barto 2018, Reinforcement Learning, eq. 4.10, with V_target(s') = max_a Q_target(s', a).

    Args:
      r_t: scalar.
      discount_t: scalar.
      p_next: [S], sums to 1.
      v_target: [S], 0 at terminal states.
    """
    chex.assert_rank([r_t, discount_t, p_next, v_target], [0, 0, 1, 1])
    return jax.lax.stop_gradient(r_t + discount_t * jnp.sum(p_next * v_target))


def shared_value_target(reward: chex.Array, discount: chex.Array, v_next: chex.Array, seen: chex.Array) -> jax.Array:
    """Shared value: V(s) <- R + discount max V(s') over the s' seen from s, stopped; R alone at a terminal.

    Sutton and Barto 2018, Reinforcement Learning, eq. 4.10, its max over successors instead of actions.

    Args:
      reward: scalar R.
      discount: scalar.
      v_next: [S].
      seen: [S] bool, the successors observed; none for a terminal.
    """
    chex.assert_rank([reward, discount, v_next, seen], [0, 0, 1, 1])
    return jax.lax.stop_gradient(reward + discount * masked_max(v_next, seen))


def n_step_return(
    rewards: chex.Array, discounts: chex.Array, values: chex.Array, mask: chex.Array, steps: int
) -> jax.Array:
    """Return of `steps` rewards and a bootstrap; near the end, of what is left and the last value.

    Sutton and Barto 2018, Reinforcement Learning, eq. 7.1.

    Args:
      rewards: [T] r_t.
      discounts: [T] discount_t, 0 on termination.
      values: [T] V(s_t), of the state that r_t led to.
      mask: [T] bool, valid steps first.
      steps: int >= 1.

    Returns:
      [T], entry t the return from s_tm1 on; 0 at masked steps.
    """
    chex.assert_rank([rewards, discounts, values, mask], 1)
    length = rewards.shape[0]
    start = jnp.arange(length)
    last = jnp.maximum(jnp.count_nonzero(mask) - 1, 0)
    returns = jnp.take(values, jnp.minimum(start + steps - 1, last))
    for ahead in reversed(range(steps)):
        step = jnp.minimum(start + ahead, last)
        further = jnp.take(rewards, step) + jnp.take(discounts, step) * returns
        returns = jnp.where(start + ahead <= last, further, returns)
    return jnp.where(mask, returns, 0.0)


def corrected_n_step(
    r_t: chex.Array,
    discount_t: chex.Array,
    v_t: chex.Array,
    q_tm1: chex.Array,
    ratio_tm1: chex.Array,
    mask: chex.Array,
) -> tuple[jax.Array, jax.Array]:
    """n steps of a walk as one: reward + discount V(s_n) is the return of the first action, stopped.

    G_k = r_k + discount_k (V_k + c_k+1 (G_k+1 - Q_k+1)), at the last step r_k + discount_k V_k. Each c at most the
    ratio of target policy to behaviour keeps the fixed point of one step; all c = 1 and Q = V is the plain n-step one.
    Munos et al. 2016, Safe and Efficient Off-Policy Reinforcement Learning, eq. 3 and 4 (Retrace).

    Args:
      r_t: [n].
      discount_t: [n], 0 on termination, not on truncation.
      v_t: [n] V(s_t).
      q_tm1: [n] Q(s_tm1, a_tm1); the first is not looked at.
      ratio_tm1: [n] c in [0, 1] of a_tm1; the first is not looked at.
      mask: [n] bool, the steps of the walk; its end, or the n-th, is the last.

    Returns:
      reward and discount.
    """
    chex.assert_rank([r_t, discount_t, v_t, q_tm1, ratio_tm1, mask], 1)
    further = jnp.append(mask[1:], False)
    ratio, q = jnp.roll(ratio_tm1, -1), jnp.roll(q_tm1, -1)
    rewards = jnp.where(further, r_t + discount_t * (v_t - ratio * q), r_t)
    discounts = jnp.where(further, discount_t * ratio, discount_t)
    reward = n_step_return(rewards, discounts, jnp.zeros_like(r_t), mask, len(r_t))[0]
    return jax.lax.stop_gradient(reward), jax.lax.stop_gradient(jnp.prod(jnp.where(mask, discounts, 1.0)))


def masked_argmax(x: chex.Array, valid: chex.Array) -> jax.Array:
    """Index of the largest valid entry, the first among equals; 0 where none is valid.

    Args:
      x: [A].
      valid: [A] bool.
    """
    chex.assert_rank([x, valid], 1)
    return jnp.argmax(jnp.where(valid, x, NEVER))


def masked_max(x: chex.Array, valid: chex.Array) -> jax.Array:
    """Largest valid entry; 0 where none is valid.

    Args:
      x: [A].
      valid: [A] bool.
    """
    chex.assert_rank([x, valid], 1)
    return jnp.where(jnp.any(valid), jnp.max(jnp.where(valid, x, NEVER)), 0.0)


def soft_value(policy: chex.Array, q: chex.Array) -> jax.Array:
    """V(s) = sum_a pi(a given s) Q(s, a). Sutton and Barto 2018, Reinforcement Learning, exercise 3.18.

    Args:
      policy: [A], sums to 1, 0 at invalid actions.
      q: [A], finite.
    """
    chex.assert_rank([policy, q], 1)
    return jnp.sum(policy * q)


def polyak(target: chex.ArrayTree, online: chex.ArrayTree, rate: chex.Numeric) -> chex.ArrayTree:
    """target + rate (online - target) at each leaf.

    Polyak and Juditsky 1992, Acceleration of Stochastic Approximation; Lillicrap et al. 2016, DDPG.

    Args:
      target: tree.
      online: tree of the same structure and shapes.
      rate: in [0, 1], a scalar or of the leaves' shape.
    """
    chex.assert_trees_all_equal_shapes(target, online)
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, online)


def periodic(target: chex.ArrayTree, online: chex.ArrayTree, step: chex.Numeric, every: int) -> chex.ArrayTree:
    """online where `step` is a multiple of `every`, else target. Mnih et al. 2015, algorithm 1.

    Args:
      target: tree.
      online: tree of the same structure and shapes.
      step: int.
      every: int >= 1, steps.
    """
    chex.assert_trees_all_equal_shapes(target, online)
    return jax.tree.map(lambda old, new: jnp.where(step % every == 0, new, old), target, online)
