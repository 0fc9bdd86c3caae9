"""Value iteration against closed forms, and that each part computes what it says on a small process."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import known_mdps, mdps


def test_value_iteration_of_a_chain_is_its_closed_form() -> None:
    mdp = mdps.chain(5, slip=0.0)
    s = np.arange(5)
    best = np.maximum(mdps.DISCOUNT**s, mdps.DISCOUNT ** (4 - s))  # left for ever is worth 1 too
    np.testing.assert_allclose(mdp.best[:5].max(axis=1), best)
    np.testing.assert_allclose(mdp.best[:5, 1], np.append(mdps.DISCOUNT * best[1:], 1.0))
    slow = mdps.chain(1, slip=0.5)  # one state: left for ever is worth 0.1 / (1 - 0.9), right stays half of the time
    np.testing.assert_allclose(slow.best[0], [1.0, 0.5 + 0.5 * mdps.DISCOUNT])


@pytest.mark.parametrize("mdp", [mdps.chain(), mdps.grid(), mdps.garnet()], ids=lambda mdp: mdp.name)
def test_the_greedy_policy_of_the_best_values_has_them(mdp: mdps.Mdp) -> None:
    np.testing.assert_allclose(mdp.p.sum(axis=-1), 1.0)
    policy = np.eye(mdp.actions)[mdp.best.argmax(axis=1)]
    np.testing.assert_allclose(mdps.policy_value(mdp, policy), mdp.best.max(axis=1), atol=1e-9)
    assert known_mdps.loss_of_greedy(mdp, mdp.best) == pytest.approx(0.0, abs=1e-9)


def test_experience_follows_the_process() -> None:
    mdp = mdps.garnet(1, states=4)
    items = mdps.experience(mdp, jax.random.key(0), 40_000)
    counts = np.zeros(mdp.p.shape)
    np.add.at(counts, (items.s_tm1, items.a_tm1, items.s_t), 1)
    seen = counts.sum(axis=-1, keepdims=True)[:-1]
    np.testing.assert_allclose(counts[:-1] / seen, mdp.p[:-1], atol=0.04)
    assert not np.any(counts[mdp.p == 0])
    even = mdps.even_experience(mdp, 400)
    counts = np.zeros(mdp.p.shape)
    np.add.at(counts, (even.s_tm1, even.a_tm1, even.s_t), 1 / 400)
    np.testing.assert_allclose(counts[:-1], mdp.p[:-1], atol=1 / 200)


def test_values_are_approached_in_a_table_and_by_the_critic() -> None:
    found = known_mdps.reach(mdps.grid(2), 2, each=128, steps=800, width=16)
    assert found["data"] < 5
    assert max(found["tabular"]) < 10
    assert len(found["critic"]) == 2
    assert max(found["critic"]) < 10


def test_planning_gets_better_with_samples_and_smoothing_survives_unseen_pairs() -> None:
    found = known_mdps.smoothing(mdps.chain(4), 3, samples=(8, 4096))
    for model in known_mdps.MODELS:
        few, many = (np.mean(each) for each in found[model]["error"])
        assert many < 0.05 < few


def test_regret_grows_and_less_when_exploring_ends() -> None:
    found = known_mdps.explore(mdps.chain(4, slip=0.0), 2, steps=400)
    added = {name: np.diff(np.array(found[name]), axis=0) for name in known_mdps.EXPLORERS}
    assert all(np.all(each >= 0) for each in added.values())
    assert added["from 1, annealed"][-1].mean() < added["fixed 0.3"][-1].mean()


def test_the_actor_reaches_the_optimum_and_its_kl_the_target() -> None:
    found = known_mdps.act(mdps.chain(4), 2, steps=800, batch=64)
    assert min(found["return"]) > 0.99 * found["optimum"]
    found = known_mdps.act(mdps.grid(), 2, steps=240)
    assert min(found["rounds"]) > 20
    assert np.mean(found["within"]) > 0.85
