"""The judge: its loss by hand, folds, and a toy problem."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import judge
from aco_jax.types import Belief, Candidates

CONFIG = judge.Config(
    columns=(0,),
    witnesses=(judge.Witness("witness", (2,)), judge.Witness("doubted", (0, 2), credit=0.25)),
    members=2,
    widths=(8, 8),
    dropped=0.0,
    learning_rate=3e-2,
    steps=60,
    batch=16,
)


def batch(rows: int = 40) -> tuple[Candidates, Belief]:
    """The partner, where there is one, has item 0 at 1; item 1 tells lies and is not read."""
    rng = np.random.default_rng(0)
    evidence = rng.normal(0, 0.1, (rows, 1, 3, 3)).astype(np.float32)
    relation = np.zeros((rows, 1, 3), np.int32)
    relation[::2, 0, 1] = 1
    evidence[..., 0] += relation
    record = np.tile(np.array([4, 5, -1], np.int32), (rows, 1, 1))
    blank = np.zeros((rows, 1, 3), np.float32)
    candidates = Candidates(record, evidence, blank, blank, blank.astype(np.int32))
    belief = Belief(np.where(record >= 0, relation, -1), np.ones(rows, np.float32), np.zeros(rows, bool))
    return candidates, belief


def one(tree, rows):
    return jax.tree.map(lambda x: x[rows], tree)


def alone(params, part):
    """The same judge, all of its parts but one saying nothing."""
    return jax.tree.map(jnp.zeros_like, params) | {part: params[part]}


def test_loss_is_the_negative_log_softmax_with_null_and_the_logistic_loss_of_the_witnesses():
    candidates, belief = batch()
    params = judge.init(jax.random.key(0), CONFIG)
    network, witness, doubted = (
        np.asarray(judge.member_scores(alone(params, part), CONFIG, candidates.evidence), np.float64)[0, :2, 0, :2, 0]
        for part in ("network", "witness", "doubted")
    )
    total = np.log(1 + np.exp(network).sum(axis=1))
    expected = np.mean([total[0] - network[0, 1], total[1]])
    for logit in (witness, doubted / 0.25):  # however much it counts, it learns the whole ratio
        partner, other = logit[0, 1], logit[0, 0]  # the second list has no partner to tell apart
        expected += (np.log1p(np.exp(-partner)) + np.log1p(np.exp(other))) / 2
    few = one(candidates, slice(2)), one(belief, slice(2))
    found = judge.loss(one(params, 0), CONFIG, *few, jnp.ones((2, 1, 1, 1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    all_of_them = judge.member_scores(params, CONFIG, candidates.evidence)[0, :2, 0, :2, 0]
    np.testing.assert_allclose(all_of_them, network + witness + doubted, rtol=1e-4, atol=1e-6)


def test_the_witness_learns_the_log_ratio_of_densities():
    # Item 2 is N(1, 1) of partners and N(0, 1) of others: log ratio x - 1/2.
    rng = np.random.default_rng(0)
    candidates, belief = batch(4000)
    related = np.asarray(belief.relation)[..., None] > 0
    item = rng.normal(related[..., 0], 1.0)
    evidence = np.where(np.arange(3) == 2, item[..., None], candidates.evidence).astype(np.float32)
    candidates = dataclasses.replace(candidates, evidence=evidence)
    config = dataclasses.replace(CONFIG, steps=400, batch=128)
    start = judge.init(jax.random.key(0), config)
    params, _ = judge.fit(start, config, candidates, belief, np.arange(4000) // 2 % 2, seed=0)
    at = np.linspace(-1, 2, 7)
    seen = np.zeros((7, 1, 1, 3), np.float32)
    seen[..., 2] = at[:, None, None]
    found = judge.member_scores(alone(params, "witness"), config, jnp.asarray(seen)).mean(axis=0)[:, 0, 0, 0]
    np.testing.assert_allclose(found, at - 0.5, atol=0.3)


def test_held_out_uses_only_members_of_other_folds():
    scores = jnp.array([[1.0, 2.0], [10.0, 20.0], [3.0, 4.0], [30.0, 40.0]])[..., None]
    np.testing.assert_allclose(judge.held_out(scores, jnp.array([0, 1]))[:, 0], [20.0, 3.0])


def test_fit_learns_and_the_same_seed_gives_the_same_bits():
    candidates, belief = batch()
    fold = np.arange(40) // 2 % 2
    start = judge.init(jax.random.key(1), CONFIG)
    params, metrics = judge.fit(start, CONFIG, candidates, belief, fold, seed=3)
    again, _ = judge.fit(start, CONFIG, candidates, belief, fold, seed=3)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert metrics["judge_loss"] < np.log(2) + 0.2  # item 2 alone tells nothing
    score = np.asarray(judge.member_scores(params, CONFIG, candidates.evidence)).mean(axis=0)[:, 0, :2, 0]
    np.testing.assert_array_equal(score.max(axis=1) > 0, np.arange(40) % 2 == 0)


def test_a_fold_without_belief_learns_from_the_other():
    candidates, belief = batch()
    start = judge.init(jax.random.key(0), CONFIG)
    params, _ = judge.fit(start, CONFIG, candidates, belief, np.zeros(40), seed=0)
    score = np.asarray(judge.judged(params, CONFIG, candidates.evidence[:, 0], np.zeros(40, int)))[..., 0]
    assert (score[::2, 1] > 0).all()
    assert (score[1::2, :2] < 0).all()
    nothing = dataclasses.replace(belief, weight=np.zeros(40))
    with pytest.raises(ValueError, match="no believed list"):
        judge.fit(start, CONFIG, candidates, nothing, np.zeros(40), seed=0)


def test_any_number_of_lists_is_judged_as_one():
    params = judge.init(jax.random.key(0), CONFIG)
    evidence, fold = np.asarray(batch(12)[0].evidence), np.arange(12) % 2
    found = judge.judged_lists(params, CONFIG, evidence, fold)
    np.testing.assert_allclose(found, judge.judged(params, CONFIG, evidence, fold), rtol=1e-5, atol=1e-6)
