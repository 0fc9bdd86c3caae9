"""Proof without the chip: every kernel lowered for TPU and CUDA, and compiled, as is a whole round, for TPU v5e."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ahead_of_time
import pytest

ROOT = Path(__file__).parents[2]
HBM = 15.75 * 2**30  # bytes a v5e chip has for a program
NAMES = sorted(ahead_of_time.programs("tpu"))

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="NOTHING IS COMPILED FOR TPU: libtpu is not installed; `make test-aot` installs it",
)


def told(mode: str, seconds: int) -> dict[str, dict[str, Any]]:
    """What the program says of each thing it lowered or compiled; ended after `seconds`, for good 10 s later."""
    places = [str(ROOT), str(ROOT / "experiments"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(places),
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # no metadata server tells what chip this is
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken
    }
    program = Path(__file__).with_name("ahead_of_time.py")
    command = ["timeout", "-k", "10", str(seconds), sys.executable, str(program), mode]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["name"]: row for row in rows}


def test_every_kernel_lowers_for_tpu_and_cuda() -> None:
    found = told("lower", seconds=300)
    assert sorted(found) == sorted(f"{platform} {name}" for platform in ("tpu", "cuda") for name in NAMES)
    assert {name for name, row in found.items() if row["calls"] != 1} == set()


@pytest.mark.slow
@needs_libtpu
def test_every_kernel_compiles_for_tpu() -> None:
    found = told("kernels", seconds=900)
    assert sorted(found) == NAMES
    assert {name for name, row in found.items() if row["calls"] == 0} == set()


@pytest.mark.slow
@needs_libtpu
def test_a_round_compiles_for_eight_chips_and_talks_at_the_merge_only() -> None:
    found = told("round", seconds=1800)["round"]
    assert found["calls"] > 0
    assert set(found["communication"]) == {"all-reduce"}
    assert found["argument"] + found["output"] - found["alias"] + found["temp"] + found["generated_code"] < HBM
