"""The judge: its loss by hand, folds, and a toy problem."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import judge
from aco_jax.types import Belief, Candidates

CONFIG = judge.Config(columns=(0, 2), members=2, widths=(8, 8), dropped=0.0, learning_rate=3e-2, steps=60, batch=16)


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


def test_loss_is_the_negative_log_softmax_with_null():
    candidates, belief = batch()
    params = judge.init(jax.random.key(0), CONFIG)
    member = one(params, 0)
    score = np.asarray(judge.member_scores(params, CONFIG, candidates.evidence))[0, :2, 0, :2, 0].astype(np.float64)
    total = np.log(1 + np.exp(score).sum(axis=1))
    expected = np.mean([total[0] - score[0, 1], total[1]])
    found = judge.loss(member, CONFIG, one(candidates, slice(2)), one(belief, slice(2)), jnp.ones((2, 1, 1, 2)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


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
    assert metrics["judge_loss"] < 0.2
    score = np.asarray(judge.member_scores(params, CONFIG, candidates.evidence)).mean(axis=0)[:, 0, :2, 0]
    np.testing.assert_array_equal(score.max(axis=1) > 0, np.arange(40) % 2 == 0)


def test_a_fold_without_belief_is_named():
    candidates, belief = batch()
    with pytest.raises(ValueError, match="fold 1 has no believed list"):
        judge.fit(judge.init(jax.random.key(0), CONFIG), CONFIG, candidates, belief, np.zeros(40), seed=0)
