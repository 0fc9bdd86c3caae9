"""Files of parameters: round trip, and errors that name the tensor and both shapes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors import numpy as tensors

from aco_jax.models import pretrained, transformer
from aco_jax.models.config import Architecture

CONFIG = transformer.Config(vocab_size=24, width=16, heads=2, mlp_width=32, max_length=8, bos=7)
NAME = "encoder_0.mlp.up.kernel"


@pytest.fixture
def folder(tmp_path):
    pretrained.save(tmp_path, transformer.init(jax.random.key(0), CONFIG), CONFIG)
    return tmp_path


def change(folder, edit):
    path = folder / "model.safetensors"
    found = tensors.load_file(path)
    edit(found)
    tensors.save_file(found, path)


def test_round_trip_is_exact(folder):
    params, config = pretrained.load(folder)
    assert config == CONFIG
    expected = transformer.init(jax.random.key(0), CONFIG)
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_another_architecture_is_kept(tmp_path):
    form = Architecture(position="rotary", kv_heads=1, norm="layer", tied=False)
    config = transformer.Config(**{**vars(CONFIG), "architecture": form})
    params = transformer.init(jax.random.key(0), config)
    pretrained.save(tmp_path, params, config)
    again, same = pretrained.load(tmp_path)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_a_wrong_shape_names_the_tensor_and_both_shapes(folder):
    change(folder, lambda found: found.update({NAME: np.zeros((16, 31), np.float32)}))
    with pytest.raises(ValueError, match=rf"{NAME} has shape \(16, 31\), expected \(16, 32\)"):
        pretrained.load(folder)


def test_a_missing_tensor_is_named(folder):
    change(folder, lambda found: found.pop(NAME))
    with pytest.raises(ValueError, match=rf"{NAME} of shape \(16, 32\) is missing"):
        pretrained.load(folder)


def test_a_tensor_too_many_is_named(folder):
    change(folder, lambda found: found.update(extra=np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match=r"extra of shape \(3,\) has no place"):
        pretrained.load(folder)


def test_another_type_is_named(folder):
    change(folder, lambda found: found.update({NAME: np.zeros((16, 32), np.int8)}))
    with pytest.raises(ValueError, match=f"{NAME} is int8, expected float32"):
        pretrained.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_and_broken_files(folder, name):
    (folder / name).write_bytes(b"{")
    with pytest.raises(ValueError, match=r"not a safetensors file|not JSON"):
        pretrained.load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} not found"):
        pretrained.load(folder)


def test_unknown_settings_are_refused(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"depth": 3}))
    with pytest.raises(ValueError, match="expected vocab_size and any of"):
        pretrained.load(folder)
    (folder / "config.json").write_text(json.dumps(settings | {"architecture": {"depth": 3}}))
    with pytest.raises(ValueError, match="architecture, expected any of"):
        pretrained.load(folder)
