"""Parameters as safetensors beside a config.json: readable anywhere, and never code (no pickle)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as tensors

from aco_jax.models import transformer
from aco_jax.types import Params

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(folder: str | Path, params: Params, config: transformer.Config) -> None:
    """Writes model.safetensors (names joined by dots) and config.json."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in _named(params).items()}
    tensors.save_file(flat, place / WEIGHTS)
    (place / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")


def load(folder: str | Path) -> tuple[Params, transformer.Config]:
    """Reads what `save` wrote.

    Raises:
      ValueError: a file is missing or unreadable, a setting is unknown, or a tensor is missing, not known to
        the config, or of another shape; names the tensor and both shapes.
    """
    place = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not (place / name).is_file():
            raise ValueError(f"{place}: {name} not found")
    config = _read_config(place / CONFIG)
    try:
        found = tensors.load_file(place / WEIGHTS)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{place / WEIGHTS}: not a safetensors file ({error})") from error
    expected = jax.eval_shape(lambda: transformer.init(jax.random.key(0), config))
    _check(place / WEIGHTS, found, _named(expected))
    order, structure = jax.tree.flatten(_names(expected))
    return jax.tree.unflatten(structure, [jnp.asarray(found[name]) for name in order]), config


def _read_config(path: Path) -> transformer.Config:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    known = {field.name for field in dataclasses.fields(transformer.Config)}
    if not isinstance(settings, dict) or "vocab_size" not in settings or not set(settings) <= known:
        raise ValueError(f"{path}: expected vocab_size and any of {sorted(known - {'vocab_size'})}")
    return transformer.Config(**settings)


def _check(path: Path, found: Mapping[str, np.ndarray], expected: Mapping[str, jax.Array]) -> None:
    for name, leaf in expected.items():
        if name not in found:
            raise ValueError(f"{path}: tensor {name} of shape {leaf.shape} is missing")
        if found[name].shape != leaf.shape:
            raise ValueError(f"{path}: tensor {name} has shape {found[name].shape}, expected {leaf.shape}")
        if found[name].dtype != leaf.dtype:
            raise ValueError(f"{path}: tensor {name} is {found[name].dtype}, expected {leaf.dtype}")
    for name in found.keys() - expected.keys():
        raise ValueError(f"{path}: tensor {name} of shape {found[name].shape} has no place in this network")


def _named(tree: Params) -> dict[str, jax.Array]:
    return dict(zip(jax.tree.leaves(_names(tree)), jax.tree.leaves(tree), strict=True))


def _names(tree: Params) -> Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: ".".join(part.key for part in path), tree)
