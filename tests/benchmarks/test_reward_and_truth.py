"""The shared reward beside the truth: correlations by hand, and variants of a small run."""

from __future__ import annotations

from pathlib import Path

import pytest

from aco_jax import answer, configuration
from aco_jax.settings import TrainConfig
from benchmarks import reward_and_truth as benchmark


def test_correlations_are_of_ranks() -> None:
    truth = [0.1, 0.2, 0.9, 0.95]
    rising, falling = [1.0, 10.0, 11.0, 500.0], [4.0, 3.0, 2.0, 1.0]
    one_swapped = [1.0, 3.0, 2.0, 4.0]
    columns = dict(zip((*benchmark.PARTS, benchmark.ESTIMATE), [rising, falling, one_swapped] * 2, strict=True))
    variants = [{name: values[i] for name, values in columns.items()} | {"f1": truth[i]} for i in range(4)]
    found = list(benchmark.correlations(variants).values())
    assert found == pytest.approx([1.0, -1.0, 0.8] * 2)


def test_a_variant_has_its_own_judge_and_leaves_the_run_alone(finished: Path, tmp_path: Path) -> None:
    before = (finished / "relations.csv").read_bytes()
    config = configuration.read(finished, TrainConfig)
    _, agents, desk, run = answer.restore(finished, configuration.load(config.data, finished, config.seed))
    taught = benchmark.teach(config, agents, desk, run, rounds=1, steps=2)
    assert (taught.logits != run.logits).any()
    score = benchmark.reward(config, agents, desk, taught)
    assert set(score) == set(benchmark.PARTS)
    mean = (score["precision"] + score["recall"] + score["weighted_f1"]) / 3
    assert score["reward"] == pytest.approx(mean + config.agents.agreement_weight * score["agreement"], abs=1e-5)
    found = benchmark.variant(finished, tmp_path / "variant", 1, 2, "valid")
    assert 0 <= found["f1"] <= 1
    assert found["reward"] == pytest.approx(score["reward"])
    assert (finished / "relations.csv").read_bytes() == before
