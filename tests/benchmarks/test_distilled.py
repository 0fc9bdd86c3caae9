"""What rewriter and reader keep of their teacher: on a small run, whose partners are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rankings
from aco_jax import answer, configuration, evaluation, inquiry
from aco_jax import train as training
from aco_jax.settings import TrainConfig
from benchmarks import distilled as benchmark


@pytest.fixture(scope="module", name="opened")
def fixture_opened(finished: Path) -> tuple[inquiry.Staff, training.Run]:
    config = configuration.read(finished, TrainConfig)
    _, agents, desk, run = answer.restore(finished, configuration.load(config.data, finished, config.seed))
    lists = np.arange(len(desk.problem.anchor))
    return inquiry.staff(desk, config, agents, training.parameters(run, agents), lists), run


def test_the_teacher_stands_beside_every_form_of_its_pupils(
    opened: tuple[inquiry.Staff, training.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "ANCHORS", 16)
    found = benchmark.planted(*opened)
    assert list(found) == ["base", "float32", "int8", "int4"]
    assert 2 * found["float32"]["parameters"] <= found["base"]["parameters"]
    for figures in found.values():
        assert 0 <= figures["recall@10"] <= 1
        assert 0 <= figures["facts lost"] <= 1
        assert 0 < figures["mrr"] <= 1


def test_candidates_are_read_each_for_itself_and_nobody_is_likely_least(
    opened: tuple[inquiry.Staff, training.Run],
) -> None:
    team, _ = opened
    written = team.desk.asks[:2, :6]
    candidates = np.array([[3, -1, 4], [5, 6, -1]])
    found = rankings.read(team, team.agents, team.params["ranker"]["reader"], written, candidates)
    assert (np.isneginf(found) == (candidates < 0)).all()
    one = inquiry.read_by(team.params["ranker"]["reader"], team.agents, written[1:], team.desk.asks[[6]])
    np.testing.assert_allclose(found[1, 1], one[0], rtol=1e-5)


def test_everybody_orders_what_was_found_and_own_words_find_as_they_are(
    opened: tuple[inquiry.Staff, training.Run],
) -> None:
    team, _ = opened
    rows = np.flatnonzero(team.desk.settled >= 0)
    everything, orders = rankings.orders(team, rows)
    assert list(orders) == list(rankings.ORDERS)
    assert all(order.shape == (len(rows), rankings.DEPTH) for order in orders.values())
    np.testing.assert_array_equal(np.sort(orders[rankings.READ], axis=1), np.sort(everything, axis=1))
    records = team.desk.asks[team.desk.problem.anchor[rows]]
    words = inquiry.lexical(team.desk, records, team.desk.problem.table[rows], rankings.DEPTH)
    np.testing.assert_array_equal(orders[rankings.RAW], words)
    partner = team.desk.problem.record[rows, team.desk.settled[rows]]
    assert rankings.reciprocal_rank(orders[rankings.RAW], partner) > 0.5


def test_recall_is_the_share_of_the_labelled_partners_that_were_found(
    opened: tuple[inquiry.Staff, training.Run], finished: Path, tmp_path: Path
) -> None:
    team, _ = opened
    problem, dataset = team.desk.problem, team.desk.dataset
    config = configuration.read(finished, TrainConfig)
    labelled, _ = evaluation.read_gold(configuration.data_folder(config.data, finished), dataset, "valid")
    right = np.isin(labelled.label, ("1", "same"))
    left, partner = labelled.left[right], labelled.right[right]
    rows = np.flatnonzero(dataset.table_of[problem.anchor] < problem.table)
    order = np.full((len(rows), 1), -1)
    for anchor, record in zip(left[::2], partner[::2], strict=True):
        order[(problem.anchor[rows] == anchor) & (problem.table[rows] == dataset.table_of[record])] = record
    found = benchmark._recall(team, finished, tmp_path / "half", rows, order, "valid")
    assert found == pytest.approx(len(left[::2]) / len(left))
