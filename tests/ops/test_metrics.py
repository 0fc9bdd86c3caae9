from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from aco_jax.ops import metrics

TRUTH = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 0], np.int32)
PREDICTED = np.array([0, 0, 1, 1, 1, 2, 2, 0, 1, 3], np.int32)
MASK = np.array([True] * 9 + [False])


def test_precision_recall_f1(variant):
    p, r, f1 = variant(metrics.precision_recall_f1, *np.array([6.0, 2.0, 4.0], np.float32))
    assert (p, r) == (pytest.approx(0.75), pytest.approx(0.6))
    assert f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35, rel=1e-6)


@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 3, 0), (0, 0, 3), (0, 2, 2)])
def test_undefined_is_zero(counts):
    assert metrics.precision_recall_f1(*counts) == (0.0, 0.0, 0.0)


def test_counts_of_several_relations_at_once():
    p, _, _ = metrics.precision_recall_f1(jnp.array([1, 0]), jnp.array([1, 0]), jnp.array([0, 2]))
    np.testing.assert_array_equal(p, [0.5, 0.0])


def test_confusion(variant):
    table = variant(functools.partial(metrics.confusion, relations=3), TRUTH, PREDICTED, MASK)
    np.testing.assert_array_equal(table, confusion_matrix(TRUTH[:9], PREDICTED[:9], labels=range(4)))


def test_f1_leaves_unrelated_out_of_the_weights(variant):
    table = metrics.confusion(TRUTH, PREDICTED, MASK, 3)
    for average, function in (("weighted", metrics.weighted_f1), ("macro", metrics.macro_f1)):
        expected = f1_score(TRUTH[:9], PREDICTED[:9], labels=[1, 2, 3], average=average, zero_division=0)
        assert variant(function, table) == pytest.approx(expected, rel=1e-5)


def test_saying_unrelated_to_all_earns_nothing():
    table = jnp.array([[90.0, 0.0], [10.0, 0.0]])
    assert metrics.weighted_f1(table) == 0.0
    assert metrics.macro_f1(table) == 0.0
    assert metrics.weighted_f1(jnp.array([[90.0, 0.0], [0.0, 0.0]])) == 0.0
    assert metrics.weighted_f1(jnp.array([[90.0, 0.0], [0.0, 10.0]])) == 1.0


def test_a_relation_that_never_occurs_does_not_count():
    table = jnp.diag(jnp.array([5.0, 2.0, 0.0]))
    assert metrics.macro_f1(table) == 1.0


def test_soft_f1_by_hand(variant):
    p = np.array([0.9, 0.6, 0.4, 0.1], np.float32)
    # decisions 1 1 0 0: 2 * 1.5 / (2.0 + 2)
    assert variant(metrics.soft_f1, p) == pytest.approx(0.75)
    every = np.ones(4, bool)
    assert variant(metrics.soft_f1, p, every) == pytest.approx(2 * 2.0 / (2.0 + 4))
    kept = np.array([True, False, True, False])
    assert variant(metrics.soft_f1, p, every, kept) == pytest.approx(2 * 1.3 / (1.3 + 2))
    assert metrics.soft_f1(jnp.zeros(3)) == 0.0


def test_soft_f1_of_certain_answers_is_f1():
    rng = np.random.default_rng(10)
    truth, decision = rng.uniform(size=(2, 50)) < 0.4
    value = metrics.soft_f1(truth.astype(np.float32), decision)
    assert value == pytest.approx(f1_score(truth, decision), rel=1e-6)


def test_soft_f1_estimates_the_f1_of_calibrated_answers():
    rng = np.random.default_rng(11)
    p = rng.beta(0.5, 0.8, size=20_000).astype(np.float32)
    truth = rng.uniform(size=p.size) < p
    assert metrics.soft_f1(p) == pytest.approx(f1_score(truth, p >= 0.5), abs=0.01)


def test_recall_at_k(variant):
    retrieved, relevant = np.array([7, 3, 9, -1], np.int32), np.array([9, 7, 5, -1], np.int32)
    for k, expected in ((1, 1 / 3), (2, 1 / 3), (3, 2 / 3), (4, 2 / 3)):
        recall = variant(functools.partial(metrics.recall_at_k, k=k), retrieved, relevant)
        assert recall == pytest.approx(expected)
    assert metrics.recall_at_k(retrieved, jnp.full(4, -1), 4) == 0.0  # empty slots are no match


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=9, max_size=9))
def test_f1_lies_within_bounds(counts):
    table = jnp.asarray(counts, jnp.float32).reshape(3, 3)
    for value in (metrics.weighted_f1(table), metrics.macro_f1(table)):
        assert 0.0 <= value <= 1.0 + 1e-6


def test_ratios_have_finite_gradients():
    gradient = jax.grad(lambda tp: metrics.precision_recall_f1(tp, 0.0, 0.0)[2])(0.0)
    assert np.isfinite(gradient)
