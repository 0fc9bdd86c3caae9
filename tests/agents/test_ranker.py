"""The ranker: orders that are always valid, cross-fitting, readings that count when revealed, near-duplicates."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.agents import ranker
from aco_jax.models import judge, transformer
from aco_jax.types import UNKNOWN, Belief, Candidates

MODEL = transformer.Config(
    vocab_size=40, width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=16, max_length=12
)
CONFIG = ranker.Config(model=MODEL, judge=judge.Config(columns=(0, 1, 2), members=2, widths=(8, 8)))
B, ROWS, K, F = 3, 2, 4, 3
init, loss, policy_loss, penalty, read, subquery_loss = map(
    functools.partial(jax.jit, static_argnames="config"),
    (ranker.init, ranker.loss, ranker.policy_loss, ranker.penalty, ranker.read, ranker.subquery_loss),
)
member_scores = jax.jit(ranker.member_scores, static_argnames=("config", "revealed"))
verdict_loss = jax.jit(ranker._verdict_loss)
rank = jax.jit(ranker.rank, static_argnames=("config", "temperature", "revealed"))


@pytest.fixture(scope="module")
def params() -> chex.ArrayTree:
    start = init(jax.random.key(0), CONFIG)
    weights = jnp.arange(8, dtype=jnp.float32).reshape(2, 1, 4) / 4
    return start | {"weights": weights, "verdict": jnp.array([[2.0, 0, -2], [-2, 0, 2]])}


def make(seed: int = 0) -> tuple[Candidates, Belief]:
    rng = np.random.default_rng(seed)
    shape = (B, ROWS, K)
    record = rng.integers(0, 9, shape)
    record[:, 1, 2:] = -1
    relation = np.zeros(shape, np.int32)
    relation[:2, 0, 1] = 1
    candidates = Candidates(
        record=jnp.asarray(record, jnp.int32),
        evidence=jnp.asarray(rng.normal(size=(*shape, F)), jnp.float32),
        validity=jnp.asarray(rng.random(shape), jnp.float32),
        reading=jnp.asarray(rng.normal(size=shape), jnp.float32),
        tokens=jnp.ones(shape, jnp.int32),
    )
    belief = Belief(
        relation=jnp.asarray(np.where(record >= 0, relation, UNKNOWN)),
        weight=jnp.array([1.0, 0.5, 1.0]),
        planted=jnp.zeros(B, bool),
    )
    return candidates, belief


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_orders_are_permutations_with_the_empty_last(params: chex.ArrayTree, temperature: float) -> None:
    candidates, _ = make()
    found = rank(params, CONFIG, candidates, jax.random.key(1), temperature)
    order = np.asarray(found.permutation)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(ROWS * K), (B, 1)))
    empty = np.asarray(candidates.record).reshape(B, -1) < 0
    for row in range(B):
        assert empty[row][order[row][-2:]].all()
    assert np.isfinite(found.log_prob).all()


def test_readings_count_only_where_revealed(params: chex.ArrayTree) -> None:
    candidates, _ = make()
    other = dataclasses.replace(candidates, reading=candidates.reading + 1)
    hidden = [member_scores(params, CONFIG, c, False) for c in (candidates, other)]
    revealed = [member_scores(params, CONFIG, c, True) for c in (candidates, other)]
    np.testing.assert_array_equal(*hidden)
    assert float(jnp.max(jnp.abs(revealed[0] - revealed[1]))) > 0.1


def test_gain_is_that_of_the_two_by_three_table() -> None:
    """H[R] - sum_o p(o) H[R given o] in float64, with p(related) = sigmoid(score)."""
    verdict = np.array([[2.0, 0, -2], [-2, 0, 2]])
    given = np.exp(verdict) / np.exp(verdict).sum(axis=1, keepdims=True)

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log(p)).sum())

    for score in (-3.0, 0.0, 1.5):
        p = 1 / (1 + np.exp(-score))
        joint = np.array([1 - p, p])[:, None] * given
        told = joint.sum(axis=0)
        expected = entropy(np.array([1 - p, p])) - sum(t * entropy(joint[:, o] / t) for o, t in enumerate(told))
        found = ranker._gain(jnp.asarray(verdict, jnp.float32), jnp.array([score]))
        np.testing.assert_allclose(found, [expected], atol=1e-5)


def test_a_member_learns_from_its_own_fold_only(params: chex.ArrayTree) -> None:
    candidates, belief = make()

    differentiated = jax.jit(jax.grad(lambda p, fold: loss(p, CONFIG, candidates, belief, fold)[0]))

    def gradient(fold: list[int]) -> chex.ArrayTree:
        return differentiated(params, jnp.array(fold))

    def size(tree: chex.ArrayTree, member: int) -> float:
        return float(jnp.sum(jnp.abs(tree["weights"][member])))

    only_first, planted = gradient([0, 0, 0]), gradient([-1, -1, -1])
    assert size(only_first, 0) > 0
    assert size(only_first, 1) == 0
    assert size(planted, 0) == 0
    # The judge is fitted on whole catalogues, and not here.
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(only_first["judge"]))


def test_nothing_believed_and_no_weight_change_nothing(params: chex.ArrayTree) -> None:
    candidates, belief = make()
    fold = jnp.array([0, 1, 0])
    weightless = dataclasses.replace(belief, weight=belief.weight.at[1].set(0))
    other = dataclasses.replace(weightless, relation=weightless.relation.at[1, 0, 0].set(1))
    first, second = (loss(params, CONFIG, candidates, b, fold)[1]["list_mle"] for b in (weightless, other))
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_the_verdict_is_learned_by_cross_entropy_of_what_is_believed(params: chex.ArrayTree) -> None:
    """In float64, candidate by candidate; the verdicts of `params` lean to the bin at either end."""
    candidates, belief = make()
    total, count = 0.0, 0
    for b, row, k in np.ndindex(B, ROWS, K):
        relation = int(belief.relation[b, row, k])
        if relation >= 0 and candidates.record[b, row, k] >= 0:
            logits = np.float64(params["verdict"][relation])
            read = sum(float(candidates.reading[b, row, k]) >= edge for edge in ranker.VERDICT_EDGES)
            total += np.log(np.exp(logits).sum()) - logits[read]
            count += 1
    assert count < B * ROWS * K
    own = jnp.zeros(B, jnp.int32)
    np.testing.assert_allclose(verdict_loss(params, candidates, belief, own), total / count, rtol=1e-5)


def test_nothing_is_learned_from_planted_anchors(params: chex.ArrayTree) -> None:
    candidates, belief = make()

    def moved(fold: int) -> chex.ArrayTree:
        return jax.grad(lambda p: loss(p, CONFIG, candidates, belief, jnp.full(B, fold))[0])(params)

    planted, other = moved(-1), moved(0)
    for name in ("weights", "verdict"):
        assert not np.any(planted[name])
        assert np.any(other[name])


def test_a_list_counts_by_its_weight(params: chex.ArrayTree) -> None:
    candidates, belief = make()

    def of(weight: np.ndarray) -> float:
        told = dataclasses.replace(belief, weight=jnp.asarray(weight, jnp.float32))
        return float(loss(params, CONFIG, candidates, told, jnp.zeros(B, jnp.int32))[1]["list_mle"])

    each = np.array([of(one) for one in np.eye(B)])
    weight = np.array([1.0, 0.5, 0.1])
    np.testing.assert_allclose(of(weight), weight @ each / weight.sum(), rtol=1e-5)


def test_an_order_has_the_probability_that_it_was_sampled_with(params: chex.ArrayTree) -> None:
    """Of two candidates, by the member that does not learn from the anchor, or by both where nobody does."""
    candidates, _ = make()
    two = jax.tree.map(lambda x: x[:, :1, :2], candidates)
    order = jnp.tile(jnp.array([1, 0]), (B, 1))
    score = np.float64(member_scores(params, CONFIG, two, revealed=False)).max(axis=-1).reshape(2, B, 2)
    for anchor, fold, said in ((0, 0, score[1]), (1, 1, score[0]), (2, -1, score.mean(axis=0))):
        advantage = jnp.zeros(B).at[anchor].set(B)
        found = policy_loss(params, CONFIG, two, order, advantage, jnp.full(B, fold))
        gap = (said[anchor, 1] - said[anchor, 0]) / CONFIG.temperature
        np.testing.assert_allclose(found, np.log1p(np.exp(-gap)), rtol=1e-4)


def test_the_policy_gradient_raises_what_was_rewarded(params: chex.ArrayTree) -> None:
    candidates, _ = make()
    order = rank(params, CONFIG, candidates, jax.random.key(2), 1.0, revealed=False).permutation
    advantage = jnp.array([1.0, 0.0, 0.0])

    @jax.jit
    def regret(p: chex.ArrayTree) -> chex.Array:
        return policy_loss(p, CONFIG, candidates, order, advantage, jnp.full(B, -1))

    assert float(regret(params)) > 0  # a third of -log p of the first anchor's order
    grads = jax.jit(jax.grad(regret))(params)
    assert float(jnp.sum(jnp.abs(grads["weights"]))) > 0
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
    assert float(regret(moved)) < float(regret(params))


def test_near_duplicates_are_penalised_and_others_are_not(params: chex.ArrayTree) -> None:
    rng = np.random.default_rng(0)
    subqueries = rng.integers(5, 40, (64, 2, 12))
    subqueries[3, 1] = subqueries[3, 0]
    found = np.asarray(penalty(params, CONFIG, jnp.asarray(subqueries, jnp.int32)))
    assert found[3] == found.max()
    assert found[3] > 0
    assert np.median(found) == 0


def test_reading_is_the_mean_log_probability_of_the_query(params: chex.ArrayTree) -> None:
    queries, records = jnp.array([[7, 8, 2, 0], [9, 2, 0, 0]]), jnp.array([[7, 8, 9, 0], [7, 8, 0, 0]])
    found = read(params["reader"], CONFIG, queries, records)
    log_prob, mask = transformer.sequence_log_prob(params["reader"], MODEL, records, queries)
    np.testing.assert_allclose(found, (log_prob * mask).sum(axis=1) / mask.sum(axis=1), rtol=1e-6)


def test_subqueries_are_ordered_by_their_merits_and_the_loss_is_plackett_luce(params):
    merits = jnp.array([[[0.1, 0.2, 0.3], [1.0, 0.0, 0.0], [-1.0, 0.5, 0.1]]])
    params = params | {"merits": jnp.array([1.0, 2.0, 0.5])}
    score = np.array([0.1 + 0.4 + 0.15, 1.0, -1.0 + 1.0 + 0.05])
    order = ranker.rank_subqueries(params, merits, jax.random.key(0))
    np.testing.assert_array_equal(order[0], np.argsort(-score))
    drawn = [ranker.rank_subqueries(params, merits, jax.random.key(k), 5.0)[0] for k in range(20)]
    assert {tuple(sorted(one.tolist())) for one in drawn} == {(0, 1, 2)}
    assert len({tuple(one.tolist()) for one in drawn}) > 1
    heat = score / CONFIG.temperature
    log_p = sum(heat[i] - np.log(np.exp(heat[i:]).sum()) for i in range(3))
    found = subquery_loss(params, CONFIG, merits, jnp.array([0.7]))
    np.testing.assert_allclose(found, -0.7 * log_p, rtol=1e-5)
    slope = jax.grad(lambda p: subquery_loss(p, CONFIG, merits, jnp.array([0.7])))(params)["merits"]
    assert np.abs(slope).min() > 0
