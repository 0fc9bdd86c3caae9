"""Checkpoints that notice damage: the one door to orbax.

A step holds the leaves of the state as arrays, in order, and beside them what they are called, their
shapes, types and SHA-256, and the caller's own JSON. Everything is checked on restore; a step that does not
hold what was saved is passed over, with a warning, for the step before. Typed PRNG keys are stored as
their key data. Replicated or sharded arrays must be addressable by the saving process.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from aco_jax.data.records import InputError

logger = logging.getLogger(__name__)
Leaves = dict[str, Any]


class DamageError(Exception):
    """A step does not hold what was saved."""


def save(folder: Path, step: int, state: Any, meta: Any = None, keep: int = 3) -> None:
    """Writes step `step`, deletes all but the newest `keep`, and any later steps (of an abandoned run).

    `state` is any pytree of arrays (jax or NumPy) and typed keys; `meta` is anything JSON can hold.
    """
    leaves = _leaves(state)
    record = {"meta": meta, "leaves": {name: _describe(leaf) for name, leaf in leaves.items()}}
    record["sha256"] = _digest(json.dumps(record, sort_keys=True).encode())
    with _manager(folder, keep) as manager:
        for old in manager.all_steps():
            if old >= step:
                manager.delete(old)
        arrays = ocp.args.StandardSave(_numbered(leaves))
        manager.save(
            step, args=ocp.args.Composite(state=arrays, record=ocp.args.JsonSave(record)), force=True
        )


def restore(folder: Path, template: Any) -> tuple[int, Any, Any] | None:
    """(step, state, meta) of the newest undamaged step, bit for bit what was saved; None where there is none.

    `template` is a state of the same structure: its shardings are those of the result, and where it holds
    NumPy arrays so does the result. Raises InputError where a checkpoint was made with another structure,
    or where all steps are damaged.
    """
    found = steps(folder)
    for step in reversed(found):
        try:
            state, meta = _restore(folder, step, template)
        except DamageError as error:
            logger.warning("warning: %s: step %d is damaged (%s), going back", folder, step, error)
        else:
            return step, state, meta
    if found:
        raise InputError(
            f"{folder}: all steps ({', '.join(map(str, found))}) are damaged, expected one whole"
        )
    return None


def steps(folder: Path) -> list[int]:
    """The steps that were written to the end, oldest first; whether they are damaged is not looked at."""
    if not Path(folder).is_dir():
        return []
    with _manager(folder, keep=None) as manager:
        return sorted(manager.all_steps())


def _restore(folder: Path, step: int, template: Any) -> tuple[Any, Any]:
    record = _read_record(folder, step)
    wanted = _leaves(template)
    _check_structure(folder, step, record["leaves"], wanted)
    with _manager(folder, keep=None) as manager:
        arrays = ocp.args.StandardRestore(_numbered(wanted, as_template=True))
        try:
            read = manager.restore(step, args=ocp.args.Composite(state=arrays))["state"]
        except Exception as error:  # what a broken file raises depends on where it is broken
            raise DamageError(_one_line(error)) from None
    found = {name: read.get(str(number), leaf) for number, (name, leaf) in enumerate(wanted.items())}
    for name, leaf in found.items():
        if _describe(leaf) != record["leaves"][name]:
            raise DamageError(f"{name} has changed since it was saved")
    leaves = [_like(leaf, old) for leaf, old in zip(found.values(), jax.tree.leaves(template), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), record["meta"]


def _read_record(folder: Path, step: int) -> dict[str, Any]:
    with _manager(folder, keep=None) as manager:
        try:
            record = dict(
                manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            )
            digest = record.pop("sha256")
        except Exception as error:  # as above
            raise DamageError(_one_line(error)) from None
    if digest != _digest(json.dumps(record, sort_keys=True).encode()):
        raise DamageError("its record has changed since it was saved")
    return record


def _check_structure(folder: Path, step: int, saved: dict[str, Any], wanted: Leaves) -> None:
    for name in dict.fromkeys([*wanted, *saved]):
        here = _shape_and_type(wanted[name]) if name in wanted else "nothing"
        there = f"{saved[name]['dtype']}{saved[name]['shape']}" if name in saved else "nothing"
        if here != there:
            raise InputError(
                f"{folder}, step {step}: {name} is {there}, expected {here}; another config made it"
            )


def _leaves(tree: Any) -> Leaves:
    """Name -> array, keys as key data."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path) or "state": _plain(leaf) for path, leaf in flat}


def _plain(leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array):
        return leaf
    return np.asarray(leaf)


def _like(leaf: Any, template: Any) -> Any:
    if _is_key(template):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(template))
    if isinstance(template, jax.Array | np.ndarray):
        return leaf
    return np.asarray(leaf).item() if isinstance(template, bool | int | float) else np.asarray(leaf)[()]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbered(leaves: Leaves, as_template: bool = False) -> dict[str, Any]:
    """Names are free text, so files are numbered; an array without elements has no file."""
    numbered = {str(number): leaf for number, leaf in enumerate(leaves.values()) if leaf.size}
    return {k: _abstract(leaf) for k, leaf in numbered.items()} if as_template else numbered


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _describe(leaf: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(leaf)
    return {"dtype": str(array.dtype), "shape": list(np.shape(leaf)), "sha256": _digest(array.tobytes())}


def _shape_and_type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:200] + "..."


@contextmanager
def _manager(folder: Path, keep: int | None) -> Iterator[ocp.CheckpointManager]:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
    with ocp.CheckpointManager(Path(folder).absolute(), options=options) as manager:
        yield manager
