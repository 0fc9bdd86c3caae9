"""Parameters as safetensors beside a config.json: readable anywhere, and never code (no pickle).

`save` and `load` keep any network of this project under its own names; `from_hugging_face` and `to_hugging_face`
read and write folders of published families (see `families`, `family_settings`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as tensors

from aco_jax.models import families, family_settings, transformer
from aco_jax.models.config import Architecture
from aco_jax.types import Params

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


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
    found = _read_tensors(place / WEIGHTS)
    expected = _expected(config)
    _check(place / WEIGHTS, found, _named(expected))
    return _tree(expected, found), config


def from_hugging_face(folder: str | Path) -> tuple[Params, transformer.Config]:
    """Reads a folder of a published family: config.json, and safetensors in one file or in several with an index.

    Raises:
      ValueError: a file is missing or unreadable, a setting is not supported, or a tensor is missing, not known to
        the family, or of another shape; names the tensor and both shapes.
    """
    config, found = _open(Path(folder))
    return arrange(Path(folder), config, found), config


def classifier_from_hugging_face(folder: str | Path) -> tuple[Params, transformer.Config, chex.Array]:
    """Reads a sequence classifier: the decoder's parameters, its config, and the heads [D, L] that score it.

    Raises:
      ValueError: as `from_hugging_face`, and where there are no heads.
    """
    config, found = _open(Path(folder))
    heads = _float32(found.pop(families.SCORE, np.zeros(0)))
    if heads.ndim != 2 or heads.shape[1] != config.width:
        shape = f"({{labels}}, {config.width})"
        raise ValueError(f"{folder}: tensor {families.SCORE} has shape {heads.shape}, expected {shape}")
    return arrange(Path(folder), config, found), config, jnp.asarray(heads.T)


def arrange(path: Path, config: transformer.Config, published: Mapping[str, np.ndarray]) -> Params:
    """Parameters of tensors under their family's names, of any float type; `path` is where errors say they are.

    Raises:
      ValueError: as `from_hugging_face`.
    """
    expected = _expected(config)
    names = {name: families.published_name(config, name) for name in _named(expected)}
    family = families.family_of(config)
    copies = families.copies_of_embedding(family, config.architecture.tied)
    table = published.get(names["embedding"], np.zeros(0))
    found = {
        name: _float32(array)
        for name, array in published.items()
        if not families.is_unused(family, name) and not (name in copies and np.array_equal(array, table))
    }
    shapes = jax.eval_shape(lambda tree: {name: _turned(name, leaf) for name, leaf in _named(tree).items()}, expected)
    _check(path, found, {names[name]: leaf for name, leaf in shapes.items()})
    return _tree(expected, {name: _turned(name, found[names[name]]) for name in names})


def to_hugging_face(
    folder: str | Path,
    params: Params,
    config: transformer.Config,
    settings: family_settings.Settings | None = None,
    heads: Mapping[str, chex.Array] | None = None,
) -> None:
    """Writes what `from_hugging_face` and torch's transformers read; `settings` are added to config.json.

    With heads, label -> [D], a decoder goes out as a sequence classifier, whose logits are hidden @ head at the last
    valid token. Heads whose neighbours are rotated together, as in GGUF files, are written with their halves apart.

    Raises:
      ValueError: no published family has this network, or heads were given for one with an encoder.
    """
    params, config = halves_apart(params, config)
    place, published = Path(folder), family_settings.settings_of(config) | {"torch_dtype": "float32"}
    flat = {
        families.published_name(config, name): np.ascontiguousarray(_turned(name, leaf))
        for name, leaf in _named(params).items()
    }
    if heads:
        flat[families.SCORE] = np.stack([np.asarray(head) for head in heads.values()])
        names = dict(enumerate(heads))
        published |= {"architectures": [family_settings.classifier_of(published)], "id2label": names}
        published["label2id"] = {name: number for number, name in names.items()}
    place.mkdir(parents=True, exist_ok=True)
    tensors.save_file(flat, place / WEIGHTS, metadata={"format": "pt"})
    (place / CONFIG).write_text(json.dumps(published | dict(settings or {}), indent=2) + "\n", encoding="utf-8")


def _open(place: Path) -> tuple[transformer.Config, dict[str, np.ndarray]]:
    """What a folder of a published family describes, and its tensors by their family's names."""
    if not (place / CONFIG).is_file():
        raise ValueError(f"{place}: {CONFIG} not found")
    settings = _read_json(place / CONFIG)
    family = settings.get("model_type", "")
    found = {families.canonical(family, name): array for name, array in _read_folder(place).items()}
    try:
        return family_settings.config_of(settings, _has_own_head(family, found)), found
    except ValueError as error:
        raise ValueError(f"{place / CONFIG}: {error}") from error


def halves_apart(params: Params, config: transformer.Config) -> tuple[Params, transformer.Config]:
    """The same network whose rotated pairs are an entry and the one half a head further, not neighbours."""
    if config.architecture.position != "interleaved":
        return params, config
    width = config.head_width

    def move(path: tuple[jax.tree_util.DictKey, ...], leaf: chex.Array) -> chex.Array:
        names = [part.key for part in path]
        if "own" not in names or names[-2] not in ("query", "key", "query_norm", "key_norm"):
            return leaf
        pairs = leaf.reshape(*leaf.shape[:-1], -1, width // 2, 2)
        return pairs.swapaxes(-1, -2).reshape(leaf.shape)

    form = dataclasses.replace(config.architecture, position="rotary")
    return jax.tree_util.tree_map_with_path(move, params), dataclasses.replace(config, architecture=form)


def _read_folder(place: Path) -> dict[str, np.ndarray]:
    if (place / WEIGHTS).is_file():
        return _read_tensors(place / WEIGHTS)
    if not (place / INDEX).is_file():
        pickles = sorted(path.name for path in place.glob("*.bin"))
        there = f"; {pickles[0]} is a pickle, which is never opened" if pickles else ""
        raise ValueError(f"{place}: neither {WEIGHTS} nor {INDEX} found{there}")
    where: dict[str, str] = _read_json(place / INDEX).get("weight_map", {})
    found: dict[str, np.ndarray] = {}
    for shard in sorted(set(where.values())):
        if Path(shard).name != shard or not (place / shard).is_file():
            raise ValueError(f"{place / INDEX}: {shard} not found beside it")
        found |= _read_tensors(place / shard)
    for name in where.keys() - found.keys():
        raise ValueError(f"{place / where[name]}: tensor {name} is missing, which {INDEX} says is there")
    return found


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return tensors.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return found


def _read_config(path: Path) -> transformer.Config:
    settings, known = _read_json(path), {field.name for field in dataclasses.fields(transformer.Config)}
    forms = {field.name for field in dataclasses.fields(Architecture)}
    form = settings.get("architecture", {})
    if "vocab_size" not in settings or not set(settings) <= known:
        raise ValueError(f"{path}: expected vocab_size and any of {sorted(known - {'vocab_size'})}")
    if not isinstance(form, dict) or not set(form) <= forms:
        raise ValueError(f"{path}: architecture, expected any of {sorted(forms)}")
    return transformer.Config(**settings | {"architecture": Architecture(**form)})


def _has_own_head(family: str, found: Mapping[str, np.ndarray]) -> bool:
    tied = family != "t5" or families.HEAD not in found
    return not tied and not np.array_equal(found[families.HEAD], found.get("shared.weight", np.zeros(0)))


def _float32(array: np.ndarray) -> np.ndarray:
    """Floats of any width as float32; other types as they are, for `_check` to name."""
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _turned(name: str, leaf: Any) -> Any:
    """A kernel's two axes the other way round: torch keeps [outputs, inputs]."""
    return leaf.T if name.endswith("kernel") else leaf


def _expected(config: transformer.Config) -> Params:
    return jax.eval_shape(lambda: transformer.init(jax.random.key(0), config))


def _tree(expected: Params, found: Mapping[str, np.ndarray]) -> Params:
    order, structure = jax.tree.flatten(_names(expected))
    return jax.tree.unflatten(structure, [jnp.asarray(found[name]) for name in order])


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
