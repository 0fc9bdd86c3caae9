"""The critic's loss against its formula in float64, and Q* of a chain approached from both targets."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.agents import critic
from aco_jax.ops import states
from aco_jax.types import Transition

CONFIG = critic.Config((3, 2, 4), actions=3, width=16, heads=2, layers=1, mlp_width=32, chunk=5)
B, S = 6, 24
q_values = jax.jit(critic.q_values, static_argnums=1)
q_table = jax.jit(critic.q_table, static_argnums=1)
slopes = jax.jit(jax.value_and_grad(critic.loss, has_aux=True), static_argnums=1)


def factors(seed: int, count: int = B) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(np.stack([rng.integers(0, size, count) for size in CONFIG.factor_sizes], axis=1), jnp.int32)


def batch(seed: int = 0) -> critic.Batch:
    rng = np.random.default_rng(seed)

    def real(count: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=count), jnp.float32)

    p = rng.random((B, S))
    return critic.Batch(
        factors_tm1=factors(seed),
        a_tm1=jnp.asarray(rng.integers(0, 3, B), jnp.int32),
        r_t=real(B),
        discount_t=jnp.array([0.9, 0.9, 0.0, 0.9, 0.0, 0.9]),
        r_first=real(B),
        q_t=jnp.asarray(rng.normal(size=(B, 3)), jnp.float32),
        q_target_t=jnp.asarray(rng.normal(size=(B, 3)), jnp.float32),
        valid_t=jnp.asarray(rng.random((B, 3)) < 0.6).at[:, 2].set(True),
        p_next=jnp.asarray(p / p.sum(axis=1, keepdims=True), jnp.float32),
        v_target=real(S),
        importance_weights=jnp.asarray(rng.random(B), jnp.float32),
    )


@pytest.fixture(scope="module")
def params() -> chex.ArrayTree:
    """With a head large enough that actions differ."""
    tree = jax.jit(critic.init, static_argnums=1)(jax.random.key(0), CONFIG)
    return {**tree, "head": {**tree["head"], "kernel": 100 * tree["head"]["kernel"]}}


@pytest.mark.parametrize(("model_weight", "huber"), [(0.3, 0.0), (0.6, 0.5)])
def test_loss_is_its_formula(params: chex.ArrayTree, model_weight: float, huber: float) -> None:
    config = dataclasses.replace(CONFIG, model_weight=model_weight, huber=huber, discount=0.8)
    data = batch()
    (loss, metrics), _ = slopes(params, config, data)
    q_tm1 = np.asarray(q_values(params, CONFIG, data.factors_tm1), np.float64)
    q_t, q_target = (np.asarray(q, np.float64) for q in (data.q_t, data.q_target_t))
    errors = []
    for i in range(B):
        valid = np.flatnonzero(np.asarray(data.valid_t[i]))
        best = valid[np.argmax(q_t[i, valid])]
        double = float(data.r_t[i]) + float(data.discount_t[i]) * q_target[i, best]
        model = float(data.r_first[i]) + 0.8 * np.asarray(data.p_next[i], np.float64) @ np.asarray(data.v_target)
        errors.append((1 - model_weight) * double + model_weight * model - q_tm1[i, int(data.a_tm1[i])])
    size = np.abs(errors)
    cost = np.where(size <= huber, 0.5 * size**2, huber * (size - 0.5 * huber)) if huber else 0.5 * size**2
    np.testing.assert_allclose(metrics["td_error"], errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, np.mean(np.asarray(data.importance_weights) * cost), rtol=1e-4)
    np.testing.assert_allclose(metrics["absolute_error"], size.mean(), rtol=1e-4)


def test_priorities_are_not_weighted_and_weightless_items_teach_nothing(
    params: chex.ArrayTree,
) -> None:
    data = batch()
    some = dataclasses.replace(data, importance_weights=jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    other = dataclasses.replace(some, r_t=some.r_t.at[3:].add(100.0))
    (one, metrics), slope = slopes(params, CONFIG, some)
    (two, _), other_slope = slopes(params, CONFIG, other)
    assert float(one) == float(two)
    chex.assert_trees_all_equal(slope, other_slope)
    (_, plain), _ = slopes(params, CONFIG, data)
    np.testing.assert_array_equal(metrics["td_error"], plain["td_error"])


def test_the_slope_is_that_of_finite_differences(params: chex.ArrayTree) -> None:
    """The targets are constants: only Q(s_tm1, a_tm1) moves."""
    data = batch()
    config = dataclasses.replace(CONFIG, model_weight=0.3, huber=0.0, discount=0.8)

    def loss(move: jax.Array) -> float:
        head = {**params["head"], "bias": params["head"]["bias"] + move}
        return float(slopes({**params, "head": head}, config, data)[0][0])

    bias = slopes(params, config, data)[1]["head"]["bias"]
    for a in range(3):
        move = jnp.zeros(3).at[a].set(1e-2)
        np.testing.assert_allclose(bias[a], (loss(move) - loss(-move)) / 2e-2, rtol=2e-3, atol=1e-3)


def test_table_in_chunks_equals_values_at_once(params: chex.ArrayTree) -> None:
    everything = factors(3, 13)
    at_once = q_values(params, CONFIG, everything)
    np.testing.assert_allclose(q_table(params, CONFIG, everything), at_once, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        q_values(params, CONFIG, everything[:12].reshape(3, 4, 3)),
        at_once[:12].reshape(3, 4, 3),
        rtol=1e-4,
        atol=1e-5,
    )


def test_each_factor_is_read(params: chex.ArrayTree) -> None:
    one_apart = jnp.concatenate([jnp.zeros((1, 3), jnp.int32), jnp.eye(3, dtype=jnp.int32)])
    q = np.asarray(q_values(params, CONFIG, one_apart))
    assert all(not np.allclose(q[0], q[1 + place]) for place in range(3))


def test_state_values_leave_invalid_actions_out_and_end_at_0() -> None:
    q = jnp.array([[1.0, 5.0], [-3.0, 2.0], [9.0, 9.0]])
    valid = jnp.array([[True, False], [True, False], [False, True]])
    np.testing.assert_array_equal(critic.state_values(q, valid, 2), [1.0, -3.0, 0.0])


def test_target_moves_at_its_rate(params: chex.ArrayTree) -> None:
    config = dataclasses.replace(CONFIG, target_rate=0.25)
    target = jax.tree.map(lambda p: -2 * p, params)
    moved = critic.update_target(config, target, params, 1)
    expected = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, target, params)
    chex.assert_trees_all_close(moved, expected, rtol=1e-5, atol=1e-6)


def test_target_by_interval_is_a_copy_at_its_steps_and_rests_between(params: chex.ArrayTree) -> None:
    config = dataclasses.replace(CONFIG, target_every=3)
    target = jax.tree.map(lambda p: -2 * p, params)
    chex.assert_trees_all_equal(critic.update_target(config, target, params, 2), target)
    chex.assert_trees_all_equal(critic.update_target(config, target, params, 6), params)


def test_it_reads_the_states_of_the_decision_process() -> None:
    bins = states.config_for(1)
    config = critic.Config(bins.factor_sizes, bins.action_count, width=16, heads=2, layers=1, mlp_width=16)
    everything = states.factors(bins, jnp.arange(bins.state_count))
    params = jax.jit(critic.init, static_argnums=1)(jax.random.key(0), config)
    q = q_table(params, config, everything)
    assert q.shape == (bins.state_count, bins.action_count)
    chex.assert_tree_all_finite(q)
    assert len(everything[0]) <= 16


CHAIN, DISCOUNT = 5, 0.9


def chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States 0..3 and the ended 4; rewards, transitions and Q*.

    Action 0 goes left and pays 0.1 in state 0; 1 goes right, but stays with a chance of 0.2, and pays 1 in
    state 3; 2 is not valid and would pay 10.
    """
    p, r = np.zeros((CHAIN, 3, CHAIN)), np.zeros((CHAIN, 3))
    for s in range(CHAIN - 1):
        p[s, 0, max(s - 1, 0)] += 1.0
        p[s, 1, s + 1] += 0.8
        p[s, 1, s] += 0.2
        p[s, 2, s], r[s, 2] = 1.0, 10.0
    r[0, 0], r[CHAIN - 2, 1] = 0.1, 1.0
    q = np.zeros((CHAIN, 3))
    for _ in range(300):
        v = np.append(q[:-1, :2].max(axis=1), 0.0)
        q = np.where(np.arange(3) == 2, 0.0, r + DISCOUNT * p @ v)
    return p, r, q


def chain_batch(
    config: critic.Config, params: chex.ArrayTree, target: chex.ArrayTree, key: jax.Array, copies: int = 8
) -> critic.Batch:
    """Every valid action of every state, with next states drawn anew."""
    p, r, _ = chain()
    pairs = np.meshgrid(np.arange(CHAIN - 1), np.arange(2), indexing="ij")
    s, a = (np.tile(x.ravel(), copies) for x in pairs)
    valid = jnp.asarray(np.tile([True, True, False], (CHAIN, 1)))
    then = jax.random.categorical(key, jnp.log(jnp.asarray(p[s, a], jnp.float32)))
    online, q = (critic.q_values(tree, config, jnp.arange(CHAIN)[:, None]) for tree in (params, target))
    return critic.Batch(
        factors_tm1=jnp.asarray(s)[:, None],
        a_tm1=jnp.asarray(a),
        r_t=jnp.asarray(r[s, a], jnp.float32),
        discount_t=jnp.where(then == CHAIN - 1, 0.0, DISCOUNT),
        r_first=jnp.asarray(r[s, a], jnp.float32),
        q_t=online[then],
        q_target_t=q[then],
        valid_t=valid[then],
        p_next=jnp.asarray(p[s, a], jnp.float32),
        v_target=critic.state_values(q, valid, CHAIN - 1),
        importance_weights=jnp.ones(len(s)),
    )


def test_the_chains_best_values_are_approached() -> None:
    """Both targets have Q* as their fixed point, so an error in either would show in their mixture."""
    config = critic.Config(
        (CHAIN,), 3, 16, heads=1, layers=1, mlp_width=32, discount=DISCOUNT, huber=0.0, target_rate=0.1
    )
    assert config.model_weight == 0.5
    optimiser = optax.adam(optax.linear_schedule(5e-3, 0.0, 1000))

    @jax.jit
    def train(key: jax.Array) -> jax.Array:
        def body(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            params, target, moments = carry
            data = jax.lax.stop_gradient(chain_batch(config, params, target, key))
            slope = jax.grad(critic.loss, has_aux=True)(params, config, data)[0]
            change, moments = optimiser.update(slope, moments)
            params = optax.apply_updates(params, change)
            return (params, critic.update_target(config, target, params, 0), moments), None

        params = critic.init(key, config)
        start = (params, params, optimiser.init(params))
        (params, _, _), _ = jax.lax.scan(body, start, jax.random.split(key, 1000))
        return critic.q_values(params, config, jnp.arange(CHAIN)[:, None])

    q = train(jax.random.key(0))
    np.testing.assert_allclose(q[:-1, :2], chain()[2][:-1, :2], atol=0.06)


def windows(seed: int, count: int, steps: int) -> tuple[Transition, jax.Array]:
    """Walks on a chain without slips under a policy of halves, as the replay gives them: some end, some are cut.

    Right (1) leads on and pays 1 in the last state; left (0) leads back and pays 0.1 in the first.
    """
    rng = np.random.default_rng(seed)
    fields = {name: np.zeros((count, steps), np.float32) for name in ("s", "a", "r", "d", "t")}
    mask = np.zeros((count, steps), bool)
    for row in range(count):
        s, cut = rng.integers(0, CHAIN - 1), rng.integers(1, steps + 1)
        for place in range(cut):
            a = rng.integers(0, 2)
            t = s + 1 if a else max(s - 1, 0)
            r = 1.0 if t == CHAIN - 1 else 0.1 * (s == 0 and not a)
            for name, value in zip("sardt", (s, a, r, 0.0 if t == CHAIN - 1 else DISCOUNT, t), strict=True):
                fields[name][row, place] = value
            mask[row, place], s = True, t
            if t == CHAIN - 1:
                break
    whole = {name: jnp.asarray(fields[name], jnp.int32) for name in "sat"}
    given = Transition(
        s_tm1=whole["s"],
        a_tm1=whole["a"],
        r_t=jnp.asarray(fields["r"]),
        discount_t=jnp.asarray(fields["d"]),
        s_t=whole["t"],
        mu_tm1=jnp.full((count, steps), 0.5),
        anchor=whole["s"],
        record=whole["s"],
        query=whole["s"],
    )
    return given, jnp.asarray(mask)


def by_loop(steps: Transition, mask: np.ndarray, q: np.ndarray, q_target: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """The corrected return of each walk, backwards in float64."""
    v = q_target[np.arange(len(q)), q.argmax(axis=1)]
    found = []
    for row in range(len(mask)):
        last = int(mask[row].sum()) - 1
        s, a, t = (np.asarray(x)[row] for x in (steps.s_tm1, steps.a_tm1, steps.s_t))
        r, d = (np.asarray(x, np.float64)[row] for x in (steps.r_t, steps.discount_t))
        total = r[last] + d[last] * v[t[last]]
        for k in reversed(range(last)):
            c = min(1.0, pi[s[k + 1], a[k + 1]] / 0.5)
            total = r[k] + d[k] * (v[t[k]] + c * (total - q_target[s[k + 1], a[k + 1]]))
        found.append(total)
    return np.array(found)


n_step = jax.jit(critic.n_step)
BOTH = jnp.ones((CHAIN, 2), bool)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_n_steps_are_those_of_a_loop_over_walks(steps: int) -> None:
    rng = np.random.default_rng(steps)
    q, q_target, logits = rng.normal(size=(3, CHAIN, 2))
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given, mask = windows(steps, 64, steps)
    found = n_step(given, mask, jnp.asarray(q), jnp.asarray(q_target), BOTH, jnp.log(jnp.asarray(pi)))
    best = q_target[np.arange(CHAIN), q.argmax(axis=1)]
    ours = np.asarray(found.r_t) + np.asarray(found.discount_t) * best[np.asarray(found.s_t)]
    np.testing.assert_allclose(ours, by_loop(given, np.asarray(mask), q, q_target, pi), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.s_tm1, given.s_tm1[:, 0])
    np.testing.assert_array_equal(found.a_tm1, given.a_tm1[:, 0])
    # One that ended has nothing to come, one that was cut has.
    ended = np.asarray(jnp.any(mask & (given.discount_t == 0), axis=1))
    np.testing.assert_array_equal(np.asarray(found.discount_t) == 0, ended)
    if steps == 1:
        np.testing.assert_array_equal(found.r_t, given.r_t[:, 0])
        np.testing.assert_array_equal(found.s_t, given.s_t[:, 0])


def test_the_best_values_are_a_fixed_point_whatever_was_done() -> None:
    """Where nothing is left to chance every target is Q* itself; plain returns of bad steps are far below it."""
    q = np.zeros((CHAIN, 2))
    for _ in range(300):
        v = np.append(q[:-1].max(axis=1), 0.0)
        right = np.append(DISCOUNT * v[1:-1], 1.0)
        left = np.append(0.1, np.zeros(CHAIN - 2)) + DISCOUNT * v[np.maximum(np.arange(CHAIN - 1) - 1, 0)]
        q[:-1] = np.stack([left, right], axis=1)
    given, mask = windows(7, 256, 5)
    table, log_pi = jnp.asarray(q, jnp.float32), jnp.log(jnp.full((CHAIN, 2), 0.5))
    found = n_step(given, mask, table, table, BOTH, log_pi)
    ours = found.r_t + found.discount_t * jnp.max(table, axis=1)[found.s_t]
    np.testing.assert_allclose(ours, table[found.s_tm1, found.a_tm1], atol=1e-5)
