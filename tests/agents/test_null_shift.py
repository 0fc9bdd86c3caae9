"""The shift of the NULL logit: its gradient against a closed form, and that the best shift is found."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from aco_jax import environment, exploration, play
from aco_jax.agents import null_shift
from aco_jax.ops import states

BINS = states.Config(posterior=2, reading=2, reverse=1, reward=1)
CONFIG = null_shift.Config(BINS.factor_sizes, limit=3.0)
PROCESS = environment.Config(BINS, max_steps=2, discount=1.0, step_cost=0.01)
EDGES = states.Edges(**{name: jnp.zeros(1 if name == "posterior" else 0) for name in states.BINNED})
FIXED = jnp.argmax(jnp.asarray(states.fixed_policy(BINS)), axis=1)
gradient = jax.jit(jax.grad(lambda params, batch: null_shift.loss(params, CONFIG, batch)[0]))


def some_params(seed: int = 0) -> chex.ArrayTree:
    rng = np.random.default_rng(seed)
    kernel = jnp.asarray(rng.normal(0, 0.3, sum(CONFIG.factor_sizes)), jnp.float32)
    return {"kernel": kernel, "bias": jnp.float32(0.1)}


def single(logit: jax.Array, reward: jax.Array) -> environment.Problem:
    """Anchors with one candidate each, of these logits [B] and rewards [B] of stating the relation."""
    count = logit.shape[0]
    one, none = jnp.ones((count, 1)), jnp.zeros((count, 1))
    posterior = jax.nn.sigmoid(logit)[:, None, None]
    return environment.Problem(
        anchor=jnp.arange(count),
        query=jnp.arange(count),
        record=jnp.arange(count)[:, None],
        row=jnp.zeros((count, 1), jnp.int32),
        valid=one > 0,
        order=one,
        posterior=posterior,
        posterior_read=posterior,
        reverse=none,
        validity=one,
        reading=none,
        ready=one > 0,
        pending=jnp.zeros(count, bool),
        tokens=jnp.full((count, 1), 9, jnp.int32),
        reward=reward[:, None, None],
        spread=none,
        shares=jnp.full((count, 2), 0.5),
    )


def returned(problem: environment.Problem) -> jax.Array:
    """The return of each walk when what is likelier than not is stated, [B]."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return FIXED[state], jnp.ones(state.shape)

    return environment.returns(environment.play(PROCESS, EDGES, problem, policy, jax.random.key(0)))


def test_it_begins_with_no_shift_and_stays_within_its_limit() -> None:
    every = states.factors(BINS, jnp.arange(BINS.state_count))
    np.testing.assert_array_equal(null_shift.act(null_shift.init(jax.random.key(0), CONFIG), CONFIG, every), 0.0)
    params = some_params()
    sizes, kernel = CONFIG.factor_sizes, np.asarray(params["kernel"], np.float64)
    for row, found in zip(np.asarray(every), null_shift.act(params, CONFIG, every), strict=True):
        total = sum(kernel[sum(sizes[:place]) + value] for place, value in enumerate(row))
        np.testing.assert_allclose(found, 3 * np.tanh(total + 0.1), rtol=1e-5)
    large = jax.tree.map(lambda x: 100 * x, params)
    assert float(jnp.max(jnp.abs(null_shift.act(large, CONFIG, every)))) <= 3.0


def test_the_estimators_mean_is_the_gradient_of_the_expected_return() -> None:
    """One candidate of a known logit: it is stated where the shift is below it. The mean over the noise by quadrature.

    J(m) = (reward - cost) Phi((logit - m) / noise), for to state costs a step and to stop nothing.
    """
    logit, reward, noise, params = 0.8, 1.5, 0.6, some_params()
    problem = single(jnp.full(1, logit), jnp.full(1, reward))
    state, mean = play.mean_shift(params, CONFIG, PROCESS, EDGES, problem)
    m = float(mean[0])
    grid = np.linspace(m - 8 * noise, m + 8 * noise, 20_001)
    weight = stats.norm.pdf(grid, m, noise) * (grid[1] - grid[0])
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(grid), *x.shape[1:])), problem)
    gained = np.asarray(returned(jax.vmap(environment.shift_null)(many, jnp.asarray(grid, jnp.float32))), np.float64)
    np.testing.assert_allclose(gained, np.where(grid < logit, reward - PROCESS.step_cost, 0.0), atol=1e-6)
    for baseline in (0.0, 0.7):  # whatever does not depend on the shift
        batch = null_shift.Batch(
            factors=jnp.repeat(states.factors(BINS, state), len(grid), axis=0),
            shift=jnp.asarray(grid, jnp.float32),
            noise=jnp.float32(noise),
            advantage=jnp.asarray(weight * (gained - baseline) * len(grid), jnp.float32),
        )
        found = gradient(params, batch)
        slope = -(reward - PROCESS.step_cost) * stats.norm.pdf(logit, m, noise)
        through = 3.0 * (1 - (m / 3.0) ** 2)
        np.testing.assert_allclose(found["bias"], -(noise**2) * slope * through, rtol=2e-3)
        taken = np.zeros(len(params["kernel"]))
        sizes = CONFIG.factor_sizes
        for place, value in enumerate(np.asarray(states.factors(BINS, state))[0]):
            taken[sum(sizes[:place]) + value] = 1
        np.testing.assert_allclose(found["kernel"], taken * np.asarray(found["bias"]), rtol=1e-4)


@functools.partial(jax.jit, static_argnums=(1, 2))
def learned(key: jax.Array, steps: int, anchors: int) -> jax.Array:
    """The mean shift after learning where all logits are 1.5 too high, of a candidate that looks likely."""
    optimiser = optax.adam(CONFIG.rate)

    def step(carry: tuple, given: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
        (params, moments), (number, key) = carry, given
        drawn, tossed, noisy = jax.random.split(key, 3)
        true = 1.5 * jax.random.normal(drawn, (anchors,))
        partner = jax.random.bernoulli(tossed, jax.nn.sigmoid(true))
        problem = single(true + 1.5, jnp.where(partner, 1.0, -1.0))
        noise = exploration.anneal(CONFIG.noise, CONFIG.least_noise, number, steps)
        posed, tried = play.shift_null(params, CONFIG, PROCESS, EDGES, problem, noise, noisy)
        gained = returned(posed)
        advantage = jax.lax.stop_gradient(gained - jnp.mean(gained))
        batch = null_shift.Batch(states.factors(BINS, tried.state), tried.shift, tried.noise, advantage)
        slope = jax.grad(lambda params: null_shift.loss(params, CONFIG, batch)[0])(params)
        updates, moments = optimiser.update(slope, moments)
        return (optax.apply_updates(params, updates), moments), None

    params = null_shift.init(key, CONFIG)
    start = params, optimiser.init(params)
    (params, _), _ = jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))
    return play.mean_shift(params, CONFIG, PROCESS, EDGES, single(jnp.ones(1), jnp.ones(1)))[1][0]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_shift_is_found(seed: int) -> None:
    """To state pays from a true logit of 0.02 on, for a step has its cost."""
    assert abs(float(learned(jax.random.key(seed), 1000, 1024)) - 1.52) < 0.3
