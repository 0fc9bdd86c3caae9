"""The measures of the replay's benchmark on small trees, and that they notice a tree that is wrong."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import replay as benchmark


def test_draws_fit_their_priorities() -> None:
    found = benchmark.goodness(0, 1 << 10, 40_000)
    assert found["empty"] == 0
    assert found["p"] > 1e-3
    assert found["cells"] > 100


def test_pooling_keeps_the_sums_and_expects_enough() -> None:
    rng = np.random.default_rng(0)
    expected = rng.lognormal(0, 2, 500)
    expected[::7] = 0.0
    observed = rng.poisson(expected)
    seen, mean = benchmark.pooled(observed, expected)
    assert seen.sum() == observed.sum()
    assert mean.sum() == pytest.approx(expected.sum())
    assert mean[:-1].min() >= 5.0
    assert len(mean) > 20


def test_a_tree_of_differences_loses_mass_and_ours_does_not() -> None:
    found = benchmark.shrink(0, 1 << 14)
    ours, naive = found["each ancestor from its children"], found["differences added to the ancestors"]
    assert ours["root"] == pytest.approx(1.0, abs=1e-5)
    assert ours["unreachable"] == 0
    assert ours["misplaced"] < 1e-4
    assert naive["misplaced"] > 0.05


def test_a_slot_that_its_left_neighbour_hides_is_out_of_reach() -> None:
    tree = jnp.array([0.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5])  # node 2's mass is all of the root's
    found = benchmark.held(tree)
    assert found["unreachable"] == 2
    assert found["root"] == pytest.approx(2.0 / 3.0)
    assert found["misplaced"] == pytest.approx(1.0 / 3.0)


def test_a_step_is_timed() -> None:
    found = benchmark.seconds(64, 10)
    assert found["aco_jax"]["low"] <= found["aco_jax"]["median"] <= found["aco_jax"]["high"]
