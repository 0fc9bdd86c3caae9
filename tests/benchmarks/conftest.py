"""A finished run, for what looks into such."""

from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from aco_jax import answer, configuration, train
from aco_jax.settings import TrainConfig


@pytest.fixture(scope="session")
def finished(tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The workdir of a small run, which the first process that needs it makes for all."""
    own = tmp_path_factory.getbasetemp()
    workdir = (own if worker_id == "master" else own.parent) / "finished"
    with filelock.FileLock(f"{workdir}.lock"):
        if not (workdir / "summary.json").exists():
            _, desk = train.train(tiny, configuration.open_run(tiny, workdir), workdir)
            answer.finish(workdir, desk)
    return workdir
