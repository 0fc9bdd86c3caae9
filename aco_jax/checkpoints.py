"""Checkpoints that notice damage: the one door to orbax.

A step is a folder: the leaves of the state as arrays, written by orbax, and `record.json`, written last,
with the caller's own JSON, what the leaves are called, their shapes and types, and the SHA-256 of every
file. All of it is checked before orbax reads an array, since orbax takes flipped bytes for the truth; a step
that is not what was saved is passed over, with a warning, for the step before. Typed PRNG keys are stored
as key data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from aco_jax import processes
from aco_jax.data.records import InputError

logger = logging.getLogger(__name__)
Leaves = dict[str, Any]

_RECORD = "record.json"


class DamageError(Exception):
    """A step does not hold what was saved."""


def save(folder: Path, step: int, state: Any, meta: Any = None, keep: int = 3) -> None:
    """Writes step `step`, deletes all but the newest `keep`, and any later steps (of an abandoned run).

    `state` is any pytree of arrays (jax or NumPy), numbers and typed keys; `meta` is anything JSON can hold. Of several
    processes all must call, and the first one writes: how many there were leaves no trace.
    """
    leaves = {name: processes.whole(leaf) for name, leaf in _leaves(state).items()}
    if not processes.is_first():
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with _manager(folder, keep=None) as manager:
        for old in manager.all_steps():
            if old >= step:
                manager.delete(old)
        arrays = ocp.args.StandardSave(_numbered(leaves))
        manager.save(step, args=ocp.args.Composite(state=arrays), force=True)
    shapes = {name: _shape_and_type(leaf) for name, leaf in leaves.items()}
    _write_record(Path(folder) / str(step), {"meta": meta, "leaves": shapes})
    for old in steps(folder)[:-keep]:  # only now is the newest whole
        shutil.rmtree(Path(folder) / str(old))


def restore(folder: Path, template: Any) -> tuple[int, Any, Any] | None:
    """(step, state, meta) of the newest undamaged step, bit for bit what was saved; None where there is none.

    `template` is a state of the same structure: its shardings are those of the result, and where it holds
    NumPy arrays so does the result. Raises InputError where a checkpoint was made with another structure,
    or where all steps are damaged.
    """
    found = steps(folder)
    for step in reversed(found):
        try:
            record = _read_record(Path(folder) / str(step))
        except DamageError as error:
            logger.warning("warning: %s: step %d is damaged (%s), going back", folder, step, error)
        else:
            return step, _restore(folder, step, record["leaves"], template), record["meta"]
    if found:
        damaged = ", ".join(map(str, found))
        raise InputError(f"{folder}: all steps ({damaged}) are damaged, expected one whole")
    return None


def steps(folder: Path) -> list[int]:
    """The steps in the folder, oldest first; whether they are damaged is not looked at."""
    if not Path(folder).is_dir():
        return []
    with _manager(folder, keep=None) as manager:
        return sorted(manager.all_steps())


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    content = json.dumps({**record, "files": _digests(folder)}, sort_keys=True)
    unfinished = folder / f"{_RECORD}.tmp"
    unfinished.write_text(_digest(content.encode()) + "\n" + content, encoding="utf-8")
    unfinished.replace(folder / _RECORD)


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / _RECORD).is_file():
        raise DamageError(f"no {_RECORD}: it was not written to the end")
    digest, _, content = (folder / _RECORD).read_bytes().partition(b"\n")
    if digest != _digest(content).encode():
        raise DamageError(f"{_RECORD} has changed")
    record = json.loads(content)
    found = _digests(folder)
    for name, expected in record["files"].items():
        if found.get(name) != expected:
            raise DamageError(f"{name} {'has changed' if name in found else 'is missing'}")
    return record


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(_RECORD))
    return {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in files}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _restore(folder: Path, step: int, saved: dict[str, str], template: Any) -> Any:
    wanted = _leaves(template)
    _check_structure(folder, step, saved, wanted)
    arrays = ocp.args.StandardRestore({name: _abstract(leaf) for name, leaf in _numbered(wanted).items()})
    with _manager(folder, keep=None) as manager:
        read = manager.restore(step, args=ocp.args.Composite(state=arrays)).state
    olds, structure = jax.tree.flatten(template)
    found = [read.get(str(number), leaf) for number, leaf in enumerate(wanted.values())]
    return jax.tree.unflatten(structure, [_like(leaf, old) for leaf, old in zip(found, olds, strict=True)])


def _check_structure(folder: Path, step: int, saved: dict[str, str], wanted: Leaves) -> None:
    for name in dict.fromkeys([*wanted, *saved]):
        here = _shape_and_type(wanted[name]) if name in wanted else "nothing"
        there = saved.get(name, "nothing")
        if here != there:
            raise InputError(f"{folder}, step {step}: {name} is {there}, expected {here}")


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


def _numbered(leaves: Leaves) -> Leaves:
    """Names are free text, so arrays are saved by number; one without elements is not saved at all."""
    return {str(number): leaf for number, leaf in enumerate(leaves.values()) if leaf.size}


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _shape_and_type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _alone() -> ocp.options.MultiprocessingOptions:
    """Every process reads for itself, and only the first one writes: none waits for another."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))


@contextmanager
def _manager(folder: Path, keep: int | None) -> Iterator[ocp.CheckpointManager]:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=False, enable_async_checkpointing=False, multiprocessing_options=_alone()
    )
    with ocp.CheckpointManager(Path(folder).absolute(), options=options) as manager:
        yield manager
