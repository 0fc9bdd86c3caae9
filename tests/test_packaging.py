"""Really installs the package, plain and editable, and imports it from elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINT_FILES = "import aco_jax.kernels, aco_jax.data.records as r; print(aco_jax.kernels.__file__, r.__file__)"


@pytest.fixture
def checkout(tmp_path):
    """A copy, so that nothing is built in this one."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("aco_jax", "kernels"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(command, folder):
    command = [str(part) for part in command]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it would find this checkout
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(), ("--editable",)], ids=["plain", "editable"])
def test_installs(tmp_path, checkout, mode):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    # what this environment has besides aco_jax, behind what is installed in the new one
    (site / "zz_others.pth").write_text(sysconfig.get_path("purelib"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed")
    run([python, "-m", "pip", "install", *options, *mode, checkout], tmp_path)
    kernels, records = run([python, "-c", PRINT_FILES], tmp_path).split()
    home = checkout if mode else tmp_path / "env"
    for path in (kernels, records):
        assert Path(path).is_relative_to(home), path


@pytest.mark.slow
def test_runs_from_the_checkout(checkout):
    kernels, records = run([sys.executable, "-c", PRINT_FILES], checkout).split()
    for path in (kernels, records):
        assert Path(path).is_relative_to(checkout), path


def test_the_kernels_are_one_folder():
    link = ROOT / "aco_jax" / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../kernels")
    assert (ROOT / "kernels" / "__init__.py").is_file()
