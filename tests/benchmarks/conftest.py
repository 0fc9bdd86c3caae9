"""A finished run, for what looks into such."""

from __future__ import annotations

from pathlib import Path

import pytest

from aco_jax import answer, configuration, train
from aco_jax.settings import TrainConfig


@pytest.fixture(scope="session")
def finished(tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a small run."""
    workdir = tmp_path_factory.mktemp("finished")
    _, desk = train.train(tiny, configuration.open_run(tiny, workdir), workdir)
    answer.finish(workdir, desk)
    return workdir
