from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.ops import preference


@pytest.mark.parametrize("label", [1.0, 0.8, 0.0])
def test_bradley_terry_agrees_with_optax(variant, label):
    a, b = np.float32(1.3), np.float32(-0.4)
    expected = float(optax.sigmoid_binary_cross_entropy(jnp.float32(1.7), jnp.float32(label)))
    loss = variant(preference.bradley_terry_loss, a, b, np.float32(label))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_bradley_terry_by_hand():
    assert preference.bradley_terry_loss(2.0, 2.0) == pytest.approx(np.log(2))
    assert preference.bradley_terry_loss(np.log(3.0), 0.0) == pytest.approx(-np.log(0.75), rel=1e-6)
    assert preference.bradley_terry_loss(-200.0, 200.0) == pytest.approx(400.0)


def test_bradley_terry_gradient(finite_difference):
    def oracle(r):
        return 0.7 * np.log1p(np.exp(r[1] - r[0])) + 0.3 * np.log1p(np.exp(r[0] - r[1]))

    gradient = jax.grad(preference.bradley_terry_loss, argnums=(0, 1))(0.9, -0.3, 0.7)
    np.testing.assert_allclose(gradient, finite_difference(oracle, [0.9, -0.3]), atol=1e-6)


def test_a_margin_asks_for_that_much_more(variant):
    loss = variant(preference.bradley_terry_loss, *np.array([1.3, -0.4, 0.8, 0.5], np.float32))
    assert loss == pytest.approx(0.8 * np.log1p(np.exp(-1.2)) + 0.2 * np.log1p(np.exp(1.2)), rel=1e-6)


def test_centring(variant):
    assert variant(preference.centring_loss, np.float32(1.5), np.float32(-0.5)) == pytest.approx(1.0)
    assert jax.grad(preference.centring_loss, argnums=(0, 1))(1.5, -0.5) == (2.0, 2.0)
    assert preference.centring_loss(3.0, -3.0) == 0.0


def test_bradley_terry_leaves_the_offset_free():
    for shift in (-7.0, 100.0):
        moved = preference.bradley_terry_loss(1.5 + shift, 0.25 + shift)
        assert moved == pytest.approx(float(preference.bradley_terry_loss(1.5, 0.25)), rel=1e-5)
        moved = preference.relative_reward(1.5 + shift, 0.25 + shift, 0.5)
        assert moved == pytest.approx(2.5)


def test_pairs_by_hand(variant):
    mask = np.array([True, True, False])
    i, j, weight = variant(preference.pairs, np.array([1, 0, 2], np.int32), mask)
    np.testing.assert_array_equal(i, [1, 1, 0])
    np.testing.assert_array_equal(j, [0, 2, 2])
    np.testing.assert_array_equal(weight, [1.0, 0.0, 0.0])


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.lists(st.booleans(), min_size=5, max_size=5))
def test_pairs_are_all_pairs_once(order, mask):
    i, j, weight = preference.pairs(jnp.array(order), np.array(mask))
    found = {(int(a), int(b)) for a, b, w in zip(i, j, weight, strict=True) if w}
    kept = [k for k in order if mask[k]]
    assert found == set(itertools.combinations(kept, 2))
    assert len(i) == 10
    assert weight.sum() == len(found)


def test_one_candidate_has_no_pairs():
    i, j, weight = preference.pairs(jnp.array([0]), jnp.array([True]))
    assert i.shape == j.shape == weight.shape == (0,)


def test_standardise(variant):
    x = np.array([1.0, 3.0, 8.0], np.float32)
    z = variant(preference.standardise, x, x.mean(), x.std())
    assert np.mean(z) == pytest.approx(0.0, abs=1e-6)
    assert np.std(z) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_array_equal(variant(preference.standardise, x, np.float32(1.0), np.float32(0.0)), [0.0, 2.0, 7.0])


def test_ensembles(variant):
    rewards = np.array([1.0, 2.0, 6.0], np.float32)  # mean 3, variance (4 + 1 + 9) / 3
    assert variant(preference.ensemble_mean, rewards) == pytest.approx(3.0)
    assert variant(preference.ensemble_worst, rewards) == 1.0
    weighted = variant(preference.ensemble_uncertainty_weighted, rewards, np.float32(0.5))
    assert weighted == pytest.approx(3.0 - 0.5 * 14 / 3, rel=1e-6)


def test_members_that_agree_are_one_member():
    rewards = jnp.full(4, 1.25)
    for combined in (
        preference.ensemble_mean(rewards),
        preference.ensemble_worst(rewards),
        preference.ensemble_uncertainty_weighted(rewards, 3.0),
    ):
        assert combined == pytest.approx(1.25)
