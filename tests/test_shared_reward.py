"""The shared reward on numbers that fit on a hand, and what must never enter it."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import shared_reward
from aco_jax.types import UNKNOWN

# Three planted anchors and one that is not, Y = 2, L = 3.
DECISION = jnp.array([[1, 0, -1], [2, 1, 0], [0, -1, -1], [1, 1, 1]])
TRUTH = jnp.array([[1, 0, 0], [2, 0, -1], [1, 0, 0], [0, 0, 0]])
PLANTED = jnp.array([True, True, True, False])
MISSED = jnp.array([[0, 0], [0, 0], [0, 1], [5, 5]])


def tables() -> jax.Array:
    return shared_reward.confusions(DECISION, TRUTH, PLANTED, MISSED)


def reward_of(table: np.ndarray) -> float:
    """(precision + recall + weighted F1) / 3 in plain arithmetic."""
    right = np.trace(table[1:, 1:])
    stated, true = table[:, 1:].sum(), table[1:].sum()
    f1, support = [], table[1:].sum(axis=1)
    for y in range(1, len(table)):
        whole = table[y].sum() + table[:, y].sum()
        f1.append(2 * table[y, y] / whole if whole else 0.0)
    weighted = (np.array(f1) * support).sum() / support.sum() if support.sum() else 0.0
    return ((right / stated if stated else 0.0) + (right / true if true else 0.0) + weighted) / 3


def test_confusions_count_planted_truth_only() -> None:
    expected = np.zeros((4, 3, 3))
    expected[0, 1, 1] = 1  # the partner, stated
    expected[0, 0, 0] = 2  # one left as unrelated, one never visited
    expected[1, 2, 2], expected[1, 0, 1] = 1, 1  # a partner, a wrong one; the third is not known
    expected[2, 1, 0], expected[2, 0, 0], expected[2, 2, 0] = 1, 2, 1  # overlooked, and never found
    np.testing.assert_array_equal(tables(), expected)


def test_the_score_on_hand_numbers() -> None:
    score = shared_reward.score(jnp.sum(tables(), axis=0), jnp.float32(0.8), 0.5)
    # 3 stated of which 2 right; 4 planted. F1 of relation 1: 2/(2+2), of relation 2: 2/(1+2).
    weighted = (2 * 2 / 4 + 2 * 2 / 3) / 4
    np.testing.assert_allclose(score.precision, 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(score.recall, 2 / 4, rtol=1e-6)
    np.testing.assert_allclose(score.weighted_f1, weighted, rtol=1e-6)
    np.testing.assert_allclose(score.reward, (2 / 3 + 1 / 2 + weighted) / 3 + 0.5 * 0.8, rtol=1e-6)


def test_stating_nothing_earns_nothing() -> None:
    silent = shared_reward.confusions(jnp.full((4, 3), UNKNOWN), TRUTH, PLANTED, MISSED)
    score = shared_reward.score(jnp.sum(silent, axis=0), jnp.float32(0.0), 0.5)
    assert float(score.reward) == 0.0
    empty = shared_reward.score(jnp.zeros((3, 3)), jnp.float32(0.0), 0.5)
    assert float(empty.reward) == 0.0


def test_agreement_counts_related_candidates_only() -> None:
    consensus = jnp.array([1, 0, 2, 0, 0, 9])
    votes = jnp.array([[1, 0, 2, 0, 0, 9], [1, 1, 0, 0, 0, 9], [0, 0, 1, 0, 0, 9]])
    mask = jnp.arange(6) < 5
    # Alike with all; 1 of 2 and 2 stated; a relation of another kind is none alike.
    expected = np.mean([1.0, 2 * 1 / (2 + 2), 0.0])
    np.testing.assert_allclose(shared_reward.agreement(votes, consensus, mask), expected, rtol=1e-6)
    longer = jnp.zeros((3, 100), jnp.int32).at[:, :6].set(votes)
    padded = shared_reward.agreement(longer, jnp.zeros(100, jnp.int32).at[:6].set(consensus), jnp.arange(100) < 5)
    np.testing.assert_allclose(padded, expected, rtol=1e-6)
    none = shared_reward.agreement(jnp.zeros((2, 4), jnp.int32), jnp.zeros(4, jnp.int32), jnp.ones(4, bool))
    assert float(none) == 0.0


def test_credits_are_differences_of_the_reward() -> None:
    each = np.asarray(tables(), np.float64)
    total = each.sum(axis=0)
    expected = np.zeros(4)
    for anchor in range(3):
        silent = np.zeros((3, 3))
        silent[:, 0] = each[anchor].sum(axis=1)
        expected[anchor] = 3 * (reward_of(total) - reward_of(total - each[anchor] + silent))
    actual = shared_reward.credits(tables(), PLANTED)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert actual[0] > 0
    np.testing.assert_allclose(actual[2:], [0.0, 0.0], atol=1e-6)


def test_a_wrong_statement_costs_its_anchor() -> None:
    decision = DECISION.at[2, 1].set(1)
    worse = shared_reward.credits(shared_reward.confusions(decision, TRUTH, PLANTED, MISSED), PLANTED)
    assert worse[2] < 0


def test_an_agent_pays_its_own_penalty() -> None:
    reward, penalty = jnp.array([0.6, 0.6]), jnp.array([0.0, 0.5])
    np.testing.assert_allclose(shared_reward.agent_reward(reward, penalty, 0.2), [0.6, 0.5], rtol=1e-6)
    slope = jax.grad(lambda p: jnp.sum(shared_reward.agent_reward(reward, p, 0.2)))(penalty)
    np.testing.assert_array_equal(slope, np.zeros(2))


@pytest.mark.parametrize(("sweeps", "expected"), [(1, [1.5, 1.0, 0.0, 7.0]), (2, [1.5, 1.0, 0.0, 7.0])])
def test_shared_value_of_a_chain(sweeps: int, expected: list[float]) -> None:
    seen = np.zeros((4, 4), bool)
    seen[0, 1] = seen[1, 2] = True
    value = shared_reward.shared_value(
        jnp.array([0.0, 1.0, 9.0, 7.0]), jnp.float32(1.0), 0.5, jnp.asarray(seen), 2, sweeps
    )
    # V(1) = R + 0.5 * V(terminal); V(0) = R + 0.5 * V(1); state 3 was never left.
    np.testing.assert_allclose(value, expected)


def test_shared_value_takes_the_best_successor_seen() -> None:
    seen = np.zeros((4, 4), bool)
    seen[0, [1, 2]] = True
    value = shared_reward.shared_value(jnp.array([0.0, 2.0, 4.0, 100.0]), jnp.float32(1.0), 0.5, jnp.asarray(seen), 3)
    np.testing.assert_allclose(value, [1.0 + 0.5 * 4.0, 2.0, 4.0, 0.0])


def test_shared_value_converges() -> None:
    seen = jnp.asarray(np.random.default_rng(0).random((6, 6)) < 0.5).at[0, 0].set(True)
    value = shared_reward.shared_value(jnp.zeros(6), jnp.float32(0.7), 0.5, seen, 5, 60)
    v = np.zeros(6)
    for _ in range(60):
        v = np.array(
            [0.0 if s == 5 else 0.7 + 0.5 * v[np.asarray(seen[s])].max() if seen[s].any() else v[s] for s in range(6)]
        )
    np.testing.assert_allclose(value, v, rtol=1e-5)


def test_no_model_score_can_enter() -> None:
    """Whole numbers and masks are all that the parts of R are made of."""
    known = {
        "confusions": {"decision", "truth", "planted", "missed"},
        "agreement": {"votes", "consensus", "mask"},
        "score": {"table", "agreement", "agreement_weight"},
        "credits": {"tables", "planted"},
        "agent_reward": {"reward", "penalty", "weight"},
        "shared_value": {"value", "reward", "discount", "seen", "terminal", "sweeps"},
    }
    public = {
        name: set(inspect.signature(value).parameters)
        for name, value in vars(shared_reward).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == shared_reward.__name__
    }
    assert public == known

    def reward(scores: jax.Array) -> jax.Array:
        """A reward model's scores reach R through hard decisions alone, which have no slope."""
        hard = (scores > 0).astype(jnp.int32)
        table = jnp.sum(shared_reward.confusions(hard, TRUTH, PLANTED, MISSED), axis=0)
        votes = shared_reward.agreement(hard, hard[0], jnp.ones(3, bool))
        return shared_reward.score(table, votes, 0.5).reward

    scores = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
    np.testing.assert_array_equal(jax.grad(reward)(scores), np.zeros((4, 3)))
    assert float(reward(scores)) == float(reward(scores * 10))


def test_jit_agrees() -> None:
    np.testing.assert_array_equal(jax.jit(shared_reward.confusions)(DECISION, TRUTH, PLANTED, MISSED), tables())
    plain = shared_reward.credits(tables(), PLANTED)
    np.testing.assert_allclose(jax.jit(shared_reward.credits)(tables(), PLANTED), plain, atol=1e-6)
