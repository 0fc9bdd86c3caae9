"""State numbers, what they decode to, which actions they allow, and where fitted edges stand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.ops import states

SMALL = states.Config(relations=2, posterior=4, reading=3, reverse=2, reward=1, taken=2, rewrites=2)


def raw(**known: float) -> jax.Array:
    return jnp.array([known.get(name, 0.0) for name in states.RAW], jnp.float32)


def random_raw(rng: np.random.Generator, count: int) -> jax.Array:
    table: dict[str, np.ndarray] = {name: rng.normal(size=count) * 2 for name in states.RAW}
    table |= {
        "stage": rng.integers(0, 3, count),
        "revealed": rng.integers(0, 2, count),
        "relation": rng.integers(0, 2, count),
        "taken": rng.integers(0, 4, count),
        "rewrites": rng.integers(0, 4, count),
    }
    # With nothing at hand there are always rows left; otherwise the walk would have ended.
    table["rewrites"] = np.where(table["stage"] == states.EXHAUSTED, 1 + table["rewrites"], table["rewrites"])
    return jnp.asarray(np.stack([table[name] for name in states.RAW], axis=1), jnp.float32)


def test_every_number_has_its_own_factors() -> None:
    everything = jnp.arange(SMALL.state_count)
    factors = np.asarray(states.factors(SMALL, everything))
    assert SMALL.state_count == 2 * 2 * 2 * 4 * 3 * 2 + 2 + 1
    assert factors.shape == (SMALL.state_count, len(SMALL.factor_sizes)) == (SMALL.state_count, 7)
    assert len({tuple(row) for row in factors}) == SMALL.state_count
    assert np.all(factors >= 0)
    assert np.all(factors < np.array(SMALL.factor_sizes))
    assert factors[SMALL.terminal, 0] == states.ENDED


def test_factors_are_the_bins_of_the_observation() -> None:
    edges = states.first_edges(SMALL)
    np.testing.assert_allclose(edges.posterior, [-1.5, 0.0, 1.5])
    seen = raw(relation=1, taken=5, rewrites=2, posterior=0.4, revealed=1, reading=2.0, reverse=-1.0)
    factors = states.factors(SMALL, states.number(SMALL, edges, seen))
    # stage, relation, taken, rewrites, posterior, reading, reverse
    np.testing.assert_array_equal(factors, [0, 1, 1, 1, 2, 2, 0])
    hidden = states.factors(SMALL, states.number(SMALL, edges, seen.at[1].set(0)))
    np.testing.assert_array_equal(hidden, [0, 1, 1, 1, 2, 0, 0])


@pytest.mark.parametrize("config", [SMALL, states.Config(), states.config_for(3)])
def test_validity_from_the_number_is_validity_from_the_observation(config: states.Config) -> None:
    seen = random_raw(np.random.default_rng(0), 300)
    numbers = jax.jit(jax.vmap(lambda x: states.number(config, states.first_edges(config), x)))(seen)
    stage, revealed = (np.asarray(seen[:, states.RAW.index(name)]) for name in ("stage", "revealed"))
    rows = np.asarray(seen[:, states.RAW.index("rewrites")])
    at_hand = stage == states.AT_HAND
    expected = np.zeros((300, config.action_count), bool)
    expected[:, : config.relations + 1] = at_hand[:, None]
    expected[:, config.relations + 1] = at_hand & (revealed == 0)
    expected[:, config.relations + 2] = (rows > 0) & (stage != states.ENDED)
    expected[:, config.relations + 3] = True
    np.testing.assert_array_equal(states.valid_actions(config, numbers), expected)
    assert np.all((np.asarray(numbers) == config.terminal) == (stage == states.ENDED))


@pytest.mark.parametrize("relations", [1, 2, 3, 4, 8])
def test_the_default_bins_keep_dense_counts_small(relations: int) -> None:
    config = states.config_for(relations)
    assert 200 < config.state_count <= 900
    assert config.state_count**2 * config.action_count * 4 < 40e6
    assert config.relations == relations
    assert min(config.posterior, config.reading) >= 3


def test_fitted_edges_part_at_even_odds_and_fill_the_bins() -> None:
    config = states.Config(validity=3)
    rng = np.random.default_rng(1)
    seen = random_raw(rng, 4000)
    posterior = rng.normal(-2.0, 2.0, 4000)
    seen = seen.at[:, states.RAW.index("posterior")].set(posterior)
    mask = jnp.asarray(rng.random(4000) < 0.9)
    edges = jax.jit(states.fit, static_argnums=0)(config, seen, mask)
    assert edges.posterior.shape == (5,)
    assert edges.posterior[2] == 0.0
    at_hand = np.asarray(mask & (seen[:, 0] == states.AT_HAND))
    near = at_hand & (np.abs(posterior) < states._CERTAIN)
    below, above = near & (posterior < 0), near & (posterior >= 0)
    np.testing.assert_allclose(edges.posterior[:2], np.quantile(posterior[below], [1 / 3, 2 / 3]), atol=1e-3)
    np.testing.assert_allclose(edges.posterior[3:], np.quantile(posterior[above], [1 / 3, 2 / 3]), atol=1e-3)
    numbers = jax.vmap(lambda x: states.number(config, edges, x))(seen)
    factors = np.asarray(states.factors(config, numbers))[at_hand]
    place = 1 + [n for n, size in zip(states.FACTORS, config.sizes, strict=True) if size > 1].index("validity")
    share = np.bincount(factors[:, place], minlength=3) / len(factors)
    np.testing.assert_allclose(share, np.full(3, 1 / 3), atol=0.01)


def test_masked_rows_never_move_an_edge() -> None:
    seen = random_raw(np.random.default_rng(2), 60)
    mask = jnp.arange(60) < 40
    other = seen.at[40:].set(1e3)
    for one, two in zip(
        jax.tree.leaves(states.fit(SMALL, seen, mask)),
        jax.tree.leaves(states.fit(SMALL, other, mask)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_edges_of_nothing_are_finite() -> None:
    edges = states.fit(SMALL, jnp.zeros((5, len(states.RAW))), jnp.zeros(5, bool))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(edges))


def test_impossible_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="reading and rewrites need 2 bins"):
        states.Config(reading=1)
    with pytest.raises(ValueError, match="more than 4096 states"):
        states.Config(relations=8, posterior=12)


def test_the_fixed_policy_states_what_is_likelier_than_not_and_else_stops() -> None:
    config = states.Config(relations=2)
    policy = states.fixed_policy(config, certain=0.9)
    factors = np.asarray(states.factors(config, jnp.arange(config.state_count)))
    valid = np.asarray(states.valid_actions(config, jnp.arange(config.state_count)))
    names = ("stage", *(n for n, size in zip(states.FACTORS, config.sizes, strict=True) if size > 1))
    stage, relation, posterior = (factors[:, names.index(name)] for name in ("stage", "relation", "posterior"))
    np.testing.assert_allclose(policy.sum(axis=1), 1, rtol=1e-6)
    assert (policy[~valid] == 0).all()
    likely = (stage == states.AT_HAND) & (
        posterior >= 3
    )  # of six bins; the edge at 0 lies between the third and fourth
    np.testing.assert_array_equal(policy.argmax(axis=1)[likely], relation[likely])
    assert (policy.argmax(axis=1)[~likely] == config.action_count - 1).all()
    np.testing.assert_allclose(policy.max(axis=1), 0.9 + 0.1 / valid.sum(axis=1), rtol=1e-6)
    reads = states.fixed_policy(config, reach=2).argmax(axis=1)
    unread = (stage == states.AT_HAND) & (factors[:, names.index("reading")] == 0)
    near = unread & (posterior >= 1) & (posterior < 5)
    assert near.any()
    np.testing.assert_array_equal(reads[near], config.relations + 1)
    np.testing.assert_array_equal(reads[~near], policy.argmax(axis=1)[~near])
    goes_on = states.fixed_policy(config, stops=False).argmax(axis=1)
    passed = (stage == states.AT_HAND) & ~likely
    assert (goes_on[passed] == config.relations).all()
    np.testing.assert_array_equal(goes_on[~passed], policy.argmax(axis=1)[~passed])
