from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aco_jax.ops import ranking

SCORES = np.array([0.3, -1.2, 2.0, 0.7, -0.1], np.float32)
MASK = np.array([True, True, True, False, True])
ORDER = np.array([2, 4, 0, 1, 3], np.int32)


def plackett_luce(scores, order):
    """Float64 loop: each place is a softmax over what is left."""
    weights = np.exp(np.asarray(scores, np.float64))
    left, total = list(order), 0.0
    for chosen in order:
        total += np.log(weights[chosen] / weights[left].sum())
        left.remove(chosen)
    return total


def tied(scores, level, mask):
    """Sum of the probability of every order in which no level precedes a better one."""
    valid = np.flatnonzero(mask)
    orders = itertools.permutations(valid)
    good = [order for order in orders if list(level[list(order)]) == sorted(level[list(order)])]
    return np.log(sum(np.exp(plackett_luce(scores, order)) for order in good))


def test_plackett_luce_by_hand(variant):
    # weights 1, 2, 3 in the order 2, 0, 1: 3/6 * 1/3 * 2/2
    scores = np.log(np.array([1.0, 2.0, 3.0], np.float32))
    order = np.array([2, 0, 1], np.int32)
    log_p = variant(ranking.plackett_luce_log_prob, scores, order, np.ones(3, bool))
    assert log_p == pytest.approx(np.log(1 / 6), rel=1e-6)


def test_plackett_luce_leaves_the_masked_out(variant):
    log_p = variant(ranking.plackett_luce_log_prob, SCORES, ORDER, MASK)
    assert log_p == pytest.approx(plackett_luce(SCORES, [2, 4, 0, 1]), rel=1e-5)


@pytest.mark.parametrize("rubbish", [np.inf, np.nan, 1e38])
def test_padding_changes_no_ranking(rubbish):
    spoiled = np.where(MASK, SCORES, rubbish).astype(np.float32)
    level = np.array([1, 0, 0, 9, 2], np.int32)
    for function, args in (
        (ranking.plackett_luce_log_prob, (ORDER, MASK)),
        (ranking.list_mle, (level, MASK)),
        (lambda x, mask: ranking.null_softmax(x, mask)[1], (MASK,)),
    ):
        both = jax.jit(jax.value_and_grad(function))
        clean, clean_gradient = both(SCORES, *args)
        value, gradient = both(spoiled, *args)
        assert value == clean
        np.testing.assert_array_equal(gradient, clean_gradient)
        assert gradient[3] == 0.0
        assert np.any(gradient)


def test_plackett_luce_sums_to_one_over_all_orders():
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    log_p = jax.vmap(ranking.plackett_luce_log_prob, in_axes=(None, 0, None))(SCORES[:4], orders, jnp.ones(4, bool))
    assert np.exp(log_p).sum() == pytest.approx(1.0, rel=1e-5)


def test_plackett_luce_gradient(finite_difference):
    gradient = jax.grad(ranking.plackett_luce_log_prob)(SCORES, ORDER, MASK)
    expected = finite_difference(lambda x: plackett_luce(x, [2, 4, 0, 1]), SCORES)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_plackett_luce_ignores_a_constant():
    shifted = ranking.plackett_luce_log_prob(SCORES + 3.0, ORDER, MASK)
    assert shifted == pytest.approx(float(ranking.plackett_luce_log_prob(SCORES, ORDER, MASK)), rel=1e-5)


def test_list_mle_without_ties_is_plackett_luce(variant):
    level = np.array([2, 3, 0, 7, 1], np.int32)  # the order 2, 4, 0, 1
    loss = variant(ranking.list_mle, SCORES, level, MASK)
    assert loss == pytest.approx(-plackett_luce(SCORES, [2, 4, 0, 1]), rel=1e-5)


@pytest.mark.parametrize("level", [[0, 0, 0, 0, 1], [0, 1, 0, 2, 2], [2, 2, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
def test_list_mle_marginalises_ties(variant, level):
    level = np.array(level, np.int32)
    full = np.ones(5, bool)
    for mask in (full, MASK):
        loss = variant(ranking.list_mle, SCORES, level, mask)
        assert loss == pytest.approx(-tied(SCORES, level, mask), rel=2e-5, abs=2e-6)


def test_list_mle_gradient(finite_difference):
    level = np.array([0, 1, 0, 0, 2], np.int32)
    gradient = jax.jit(jax.grad(ranking.list_mle))(SCORES, level, MASK)
    expected = finite_difference(lambda x: -tied(x, level, MASK), SCORES)
    np.testing.assert_allclose(gradient, expected, atol=2e-5)


def test_list_mle_stops_after_the_ordered_levels():
    level = np.array([0, 1, 2, 2, 2], np.int32)
    full = np.ones(5, bool)
    loss = jax.jit(ranking.list_mle, static_argnames="levels")
    assert loss(SCORES, level, full, levels=2) == pytest.approx(float(loss(SCORES, level, full)), rel=1e-6)
    one = loss(SCORES, level, full, levels=1)
    assert one == pytest.approx(
        float(optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(SCORES), 0)), rel=1e-5
    )


def test_list_mle_with_one_level_says_nothing():
    for mask in (np.ones(5, bool), np.zeros(5, bool)):
        value, gradient = jax.jit(jax.value_and_grad(ranking.list_mle))(SCORES, np.zeros(5, np.int32), mask)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros(5))


def test_list_mle_of_a_tie_of_sixteen():
    # equal scores: all orders are equally likely, so p = 1 / (20 choose 16)
    level = np.array([0] * 16 + [1] * 4, np.int32)
    loss = jax.jit(functools.partial(ranking.list_mle, levels=1))(jnp.zeros(20), level, jnp.ones(20, bool))
    assert loss == pytest.approx(np.log(4845), rel=1e-6)


@pytest.mark.parametrize("gap", [-300.0, -30.0, 30.0, 300.0])
def test_list_mle_far_apart(gap):
    scores = jnp.array([gap, gap, 0.0, 0.0])
    level = jnp.array([0, 0, 1, 1])
    loss, gradient = jax.jit(jax.value_and_grad(ranking.list_mle))(scores, level, jnp.ones(4, bool))
    # far below, two clocks of rate e^gap must both beat rate 2: p -> 2 (e^gap / 2)^2
    expected = -(2 * gap - np.log(2)) if gap < 0 else 0.0
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert np.isfinite(gradient).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=True), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.integers(0, 1000),
)
@example([-np.inf, 1.0, -1e38, np.nan, 0.0, np.inf], [True, False, True, True, False, True], 1.0, 0)
def test_a_sample_is_always_a_permutation_with_the_masked_last(scores, mask, temperature, seed):
    mask = np.array(mask)
    order = ranking.sample_permutation(jax.random.key(seed), np.array(scores, np.float32), mask, temperature)
    assert sorted(order.tolist()) == list(range(6))
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(mask[order], np.sort(mask)[::-1])


def test_samples_follow_plackett_luce():
    scores, mask, temperature = jnp.array([0.0, 1.0, 9.0, -0.5]), jnp.array([1, 1, 0, 1], bool), 2.0
    keys = jax.random.split(jax.random.key(0), 20_000)
    sample = jax.jit(jax.vmap(ranking.sample_permutation, in_axes=(0, None, None, None)))
    orders = np.asarray(sample(keys, scores, mask, temperature))
    for order in itertools.permutations([0, 1, 3]):
        frequency = np.mean(np.all(orders[:, :3] == np.array(order), axis=1))
        p = np.exp(plackett_luce(np.asarray(scores) / temperature, order))
        assert frequency == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 20_000))


def test_a_greedy_order_sorts(variant):
    scores = np.array([1.0, 3.0, 3.0, 2.0, 9.0], np.float32)
    mask = np.array([True, True, True, True, False])
    order = variant(ranking.sample_permutation, jax.random.key(3), scores, mask, np.float32(0.0))
    np.testing.assert_array_equal(order, [1, 2, 3, 0, 4])


def test_null_softmax(variant):
    p, p_null = variant(ranking.null_softmax, np.log(np.array([2.0, 5.0, 1.0], np.float32)), MASK[2:])
    np.testing.assert_allclose(p, [0.5, 0.0, 0.25], rtol=1e-6)  # 2 / (2 + 1 + NULL's 1)
    assert p_null == pytest.approx(0.25)
    nobody, certain = ranking.null_softmax(jnp.zeros(3), jnp.zeros(3, bool))
    assert certain == 1.0
    np.testing.assert_array_equal(nobody, np.zeros(3))


def gain_oracle(p_r, p_o_given_r):
    total = 0.0
    p_o = p_r @ p_o_given_r
    for r, o in np.ndindex(p_o_given_r.shape):
        joint = p_r[r] * p_o_given_r[r, o]
        if joint > 0:
            total += joint * np.log(joint / (p_r[r] * p_o[o]))
    return total


def test_information_gain(variant):
    rng = np.random.default_rng(2)
    p_r, p_o = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4), size=3)
    gain = variant(ranking.information_gain, p_r.astype(np.float32), p_o.astype(np.float32))
    assert gain == pytest.approx(gain_oracle(p_r, p_o), rel=1e-4)


def test_information_gain_at_its_ends():
    p_r = jnp.array([0.5, 0.25, 0.25])
    same = jnp.tile(jnp.array([[0.3, 0.7]]), (3, 1))
    assert ranking.information_gain(p_r, same) == pytest.approx(0.0, abs=1e-6)  # the answer tells nothing
    assert ranking.information_gain(p_r, jnp.eye(3)) == pytest.approx(1.5 * np.log(2))  # it tells all
    sure = jnp.array([1.0, 0.0, 0.0])
    value, gradient = jax.value_and_grad(ranking.information_gain)(sure, jnp.eye(3))
    assert value == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(gradient).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=9, max_size=9))
def test_information_gain_is_never_negative(counts):
    table = np.array(counts, np.float64).reshape(3, 3) + 1e-3
    p_r = table.sum(1) / table.sum()
    gain = ranking.information_gain(p_r.astype(np.float32), (table / table.sum(1, keepdims=True)).astype(np.float32))
    assert 0.0 <= gain <= np.log(3) + 1e-5


def test_duplicate_penalty(variant):
    # cosines one, two, two and a half, three and nine standard deviations above the mean
    cosine = np.array([0.3, 0.4, 0.45, 0.5, 1.1], np.float32)
    penalty = variant(ranking.duplicate_penalty, cosine, np.float32(0.2), np.float32(0.1))
    np.testing.assert_allclose(penalty, [0.0, 0.0, 0.5, 1.0, 1.0], atol=1e-5)


def test_reciprocal_rank(variant):
    scores = np.array([0.1, 0.9, 0.5, 0.5, 2.0], np.float32)
    mask = np.array([True, True, True, True, False])

    def rank(*relevant):
        return variant(ranking.reciprocal_rank, scores, np.isin(np.arange(5), relevant), mask)

    assert rank(1) == 1.0
    assert rank(2) == pytest.approx(1 / 3)  # behind 1, and behind 3 of the same score
    assert rank(0) == 0.25
    assert rank(0, 2) == pytest.approx(1 / 3)
    assert rank(4) == 0.0  # masked
    assert rank() == 0.0


def test_mean_reciprocal_rank_leaves_rows_without_an_answer_out():
    scores = jnp.array([[3.0, 2.0], [3.0, 2.0], [3.0, 2.0]])
    relevant = jnp.array([[True, False], [False, True], [False, False]])
    mean = ranking.mean_reciprocal_rank(scores, relevant, jnp.ones((3, 2), bool))
    assert mean == pytest.approx(0.75)


def test_list_mle_learns_an_order_with_ties():
    level = jnp.array([1, 0, 2, 0])
    loss = functools.partial(ranking.list_mle, level=level, mask=jnp.ones(4, bool))
    step = jax.jit(lambda scores: scores - 0.5 * jax.grad(loss)(scores))
    scores = jnp.zeros(4)
    for _ in range(50):
        scores = step(scores)
    np.testing.assert_array_equal(level[jnp.argsort(-scores)], [0, 0, 1, 2])
    assert scores[1] == pytest.approx(float(scores[3]), rel=1e-3)
