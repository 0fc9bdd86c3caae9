"""Several processes that learn one run: the same as one that has as many devices."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest
import sharing

from aco_jax import checkpoints, progress, replicas
from aco_jax.data.records import InputError

ROOT = Path(__file__).parents[1]
SHARING = Path(sharing.__file__)
SOON = 500  # seconds
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "experiments", ROOT / "tests")))}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def started(command: Sequence[str | Path], devices: int, count: int) -> list[subprocess.Popen[str]]:
    """The processes of a command, which takes the flags of `launch.define_processes`."""
    coordinator = f"localhost:{free_port()}"
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return [
        subprocess.Popen(
            [sys.executable, *command, f"--coordinator={coordinator}", f"--processes={count}", f"--process={index}"],
            env=ENVIRONMENT | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def ended(running: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each."""
    try:
        said = [one.communicate(timeout=SOON) for one in running]
    finally:
        for one in running:
            one.kill()
    return [(one.returncode, *each) for one, each in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process learns."""
    folder = tmp_path_factory.mktemp("alone")
    sharing.learn(folder)
    return folder


def learned(folder: Path) -> chex.ArrayTree:
    """The last checkpoint, keys as their data."""
    zeros = jnp.zeros((sharing.REPLICAS, 3))
    like = {"mean": zeros, "own": zeros, "key": jax.random.split(jax.random.key(0), sharing.REPLICAS)}
    step, state, _ = checkpoints.restore(folder / "checkpoints", like)
    assert step == sharing.ROUNDS - 1
    return state | {"key": jax.random.key_data(state["key"])}


def test_two_processes_learn_what_one_does_where_one_fails_too(alone: Path, tmp_path: Path) -> None:
    """Both end, the same commands go on, and learn what one does, within rounding; one of them writes and is seen."""
    folder = tmp_path / "shared"
    command = [SHARING, f"--folder={folder}"]
    first, second = ended(started([*command, "--failing_after=0"], devices=2, count=2))
    assert second[0] == 1
    assert "failed after round 0" in second[2]
    assert first[0] != 0
    first, second = ended(started(command, devices=2, count=2))
    for (code, out, err), told in ((first, "written"), (second, "silent")):
        assert (code, out.splitlines()[-1]) == (0, told), err
    assert "sharing" in first[2]
    assert "sharing" not in second[2]
    chex.assert_trees_all_close(learned(folder), learned(alone), rtol=1e-6)
    ours, theirs = (progress.read_metrics(path) for path in (folder, alone))
    assert [row["step"] for row in ours] == list(range(sharing.ROUNDS))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)


def test_importing_a_launcher_starts_no_devices() -> None:
    """Else jax refuses to join."""
    program = f"import aco, adapt, jax; jax.distributed.initialize('localhost:{free_port()}', 1, 0)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=SOON
    )
    assert done.returncode == 0, done.stderr


def test_replicas_are_the_same_number_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(InputError, match=r"config.train.replicas: 4, expected a multiple of the 3 processes"):
        replicas.make_mesh(4)


@pytest.mark.slow
def test_two_processes_state_what_one_does(shops: Path, tmp_path: Path) -> None:
    """A whole run: the same pairs with the same probabilities, and metrics within rounding."""
    sizes = ["pretrain_steps=2", "rounds=2", "merge_every=1", "anchors_per_step=4", "candidates=3"]
    command = [
        ROOT / "experiments" / "aco.py",
        f"--config={ROOT / 'experiments' / 'configs' / 'smoke.py'}",
        f"--config.data.path={shops}",
        *(f"--config.train.{size}" for size in sizes),
        "--config.model.width=16",
        "--config.model.mlp_width=16",
        "--config.agents.judge_steps=100",
    ]
    folders = [tmp_path / name for name in ("two", "one")]
    for folder, count in zip(folders, (2, 1), strict=True):
        found = ended(started([*command, f"--workdir={folder}"], devices=2 // count, count=count))
        assert [code for code, *_ in found] == [0] * count, found
        assert ["report.html" in out for _, out, _ in found] == [True, False][:count]
    stated = [(folder / "relations.csv").read_text() for folder in folders]
    assert stated[0] == stated[1]
    assert len(stated[0].splitlines()) > 10
    ours, theirs = (progress.read_metrics(folder) for folder in folders)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-3, atol=1e-6)
