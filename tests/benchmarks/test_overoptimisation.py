"""Best-of-n against enumeration, the climb's KL, and that noise makes one model promise more than it gives."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import overoptimisation


def test_best_of_n_is_the_mean_over_all_draws() -> None:
    proxy, reward = jnp.array([0.3, -1.0, 2.0, 0.5]), jnp.array([1.0, 5.0, -2.0, 0.0])
    draws = itertools.product(range(4), repeat=3)
    expected = np.mean([float(reward[max(draw, key=lambda i: float(proxy[i]))]) for draw in draws])
    found = overoptimisation.best_of(proxy, reward, (1, 3))
    np.testing.assert_allclose(found, [1.0, expected], rtol=1e-6)
    np.testing.assert_allclose(overoptimisation.best_of_kl((1, 2)), [0.0, np.log(2) - 0.5])


def test_the_climb_moves_towards_the_proxy_from_no_kl() -> None:
    proxy = jax.random.normal(jax.random.key(0), (50,))
    kl, policies = overoptimisation.climb(proxy, steps=60)
    assert float(kl[0]) == pytest.approx(0.0, abs=1e-5)
    assert np.all(np.diff(kl) > 0)
    assert np.all(np.diff(policies @ proxy) > 0)


def test_one_model_promises_more_than_it_gives() -> None:
    found = overoptimisation.study(0, 0.25, candidates=512, steps=200)
    for way in ("best of n", "policy gradient"):
        one = found[way]["one model"]
        assert np.shape(one["gold"]) == np.shape(one["proxy"]) == (overoptimisation.MEMBERS, len(found[way]["kl"]))
        assert np.mean(one["proxy"], axis=0)[-1] > np.mean(one["gold"], axis=0)[-1] + 0.3


def test_members_are_combined_as_named() -> None:
    members = jnp.array([[1.0, 4.0], [3.0, 4.0]])
    found = overoptimisation.combined(members)
    np.testing.assert_array_equal(found["one model"], members)
    np.testing.assert_allclose(
        [found[name][0] for name in overoptimisation.METHODS[1:]], [[2.0, 4.0], [1.0, 4.0], [1.5, 4.0]]
    )


def test_what_seeds_have_in_common_falls_out_of_the_differences() -> None:
    ease = (np.random.default_rng(0).normal(size=6) * 5).tolist()
    ahead = {"one model": [[0.0, 1.0, 0.5], [0.5, 0.0, 0.0]], "mean": [[0.0, 1.25, 1.0]]}
    found = [
        {"best of n": {name: {"gold": (np.array(gold) + x).tolist()} for name, gold in ahead.items()}} for x in ease
    ]
    one, mean = (overoptimisation.ends(found, "best of n", name) for name in ahead)
    np.testing.assert_allclose(mean[0] - one[0], np.full(6, 1.25 - (1.0 + 0.5) / 2), rtol=1e-9)
    np.testing.assert_allclose(mean[1] - one[1], np.full(6, 1.0 - (0.5 + 0.0) / 2), rtol=1e-9)
