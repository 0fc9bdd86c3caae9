"""From the nested mapping of a config to typed frozen dataclasses, and the config of a workdir.

Every wrong field is one line that names it with its place ("config.train.rounds") and what was expected.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from aco_jax import relations
from aco_jax.data import catalogue, records
from aco_jax.data.records import Dataset, InputError, Relation

T = TypeVar("T")
FILE = "config.json"


def bounded(default: Any, least: float, most: float | None = None) -> Any:
    """A dataclass field with a default whose values must lie in [least, most]; checked by `from_dict`."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """The built-in catalogues: `shops` tables of `size` records; `difficulty` in [0, 1]."""

    shops: int = bounded(3, 2, 8)
    size: int = bounded(300, 8, 5000)
    difficulty: float = bounded(0.5, 0, 1)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the records are and what relations to find.

    `path` is a folder of tables; where it is empty the generator's catalogues are written to W/data and
    read from there. `tables` names the tables to read, () means the reader's default. `relations` () means
    the generator's own or, for a folder, the one relation `same`.
    """

    path: str = ""
    tables: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    generator: GeneratorConfig | None = None


def from_dict(cls: type[T], mapping: Mapping[str, Any], place: str = "config") -> T:
    """The dataclass `cls` from a nested mapping; fields left out keep their defaults.

    A tuple of dataclasses with a field `name` is written as a mapping from name to the other fields.
    Raises InputError for an unknown or missing field, a wrong type, a value out of its bounds, and for
    whatever ValueError the dataclass itself raises.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    for name in mapping:
        if name not in fields:
            raise InputError(f"{place}.{name}: unknown field, expected one of {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _value(hints[name], mapping[name], f"{place}.{name}")
            _check_bounds(field.metadata, values[name], f"{place}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{place}.{name}: missing, expected {_described(hints[name])}")
    try:
        return cls(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


def to_dict(config: Any) -> Any:
    """What `from_dict` reads, out of JSON types only."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        if config and all(hasattr(item, "name") for item in config):
            return {item.name: {k: v for k, v in to_dict(item).items() if k != "name"} for item in config}
        return [to_dict(item) for item in config]
    return config


def open_run(config: Any, workdir: Path) -> Dataset:
    """The records that `config.data` names, and a workdir that is this config's own. Raises InputError.

    Nothing is written before the tables have been read, or into another config's workdir, or among the tables: what a
    run writes would be read as one.
    """
    if config.data.path and workdir.resolve() == Path(config.data.path).resolve():
        raise InputError(f"{workdir}: workdir and config.data.path are one folder, expected a workdir of its own")
    if (workdir / FILE).exists():
        claim(workdir, config)
    dataset = load(config.data, workdir, config.seed)
    claim(workdir, config)
    return dataset


def claim(workdir: Path, config: Any) -> None:
    """Writes the config into a new workdir; an old one must have been made with the same config.

    Raises InputError that names the first field that differs, with both values. Nothing is overwritten.
    """
    ours = to_dict(config)
    if not (workdir / FILE).exists():
        _writable(workdir)
        try:
            (workdir / FILE).write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{workdir / FILE}: {error.strerror}, expected a folder to write to") from None
        return
    theirs = _read_json(workdir)
    if difference := _first_difference(theirs, ours, "config"):
        where, old, new = difference
        raise InputError(f"{workdir / FILE}: {where} is {old} there, expected {new}; take a new workdir")


def read(workdir: Path, cls: type[T]) -> T:
    """The config that a workdir was made with. Raises InputError."""
    return from_dict(cls, _read_json(workdir), str(workdir / FILE))


def data_folder(data: DataConfig, workdir: Path) -> Path:
    """The folder that holds the tables."""
    return Path(data.path) if data.path else workdir / "data"


def load(data: DataConfig, workdir: Path, seed: int) -> Dataset:
    """The tables named by the config; the built-in ones are written to W/data first. Raises InputError."""
    if not data.path:
        if data.generator is None:
            raise InputError("config.data.path: empty, expected a folder of tables (--config.data.path=DIR)")
        folder = data_folder(data, workdir)
        if not folder.exists():
            _writable(workdir)
            catalogue.generate(seed, **dataclasses.asdict(data.generator)).write(folder)
    return load_folder(data, data_folder(data, workdir))


def load_folder(data: DataConfig, folder: Path) -> Dataset:
    """The tables of any folder, read with the relations and the names of tables of the config. Raises InputError."""
    sought = relations_of(data)
    relations.roles(sought)  # what they ask for must be plain
    return records.read_folder(folder, data.tables or None, sought)


def relations_of(data: DataConfig) -> tuple[Relation, ...]:
    """The relations to find."""
    return data.relations or (records.SAME if data.path else catalogue.RELATIONS)


def _writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir}: {error.strerror}, expected a folder to write to") from None


def _value(hint: Any, value: Any, place: str) -> Any:
    if get_origin(hint) in (typing.Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        return _value(next(option for option in options if option is not type(None)), value, place)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), value, place)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"{place}: {value!r}, expected fields")
        return from_dict(typing.cast(type, hint), value, place)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{place}: {value!r}, expected {_described(hint)}")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[0]):
        for name, item in value.items():
            if not isinstance(item, Mapping):
                raise InputError(f"{place}.{name}: {item!r}, expected fields")
        items = [({"name": name, **item}, f"{place}.{name}") for name, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(item, f"{place}[{number}]") for number, item in enumerate(value)]
    else:
        raise InputError(f"{place}: {value!r}, expected {_described(tuple)}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(items)
    if len(items) != len(hints):
        raise InputError(f"{place}: {len(items)} values, expected {len(hints)}")
    return tuple(_value(hint, item, where) for hint, (item, where) in zip(hints, items, strict=True))


def _described(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list"}
    return names.get(get_origin(hint) or hint, "fields" if dataclasses.is_dataclass(hint) else str(hint))


def _check_bounds(metadata: Mapping[str, Any], value: Any, place: str) -> None:
    least, most = metadata.get("least"), metadata.get("most")
    if value is None or least is None:
        return
    if not (least <= value and (most is None or value <= most)):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(f"{place}: {value!r}, expected {expected}")


def _read_json(workdir: Path) -> Any:
    if not (workdir / FILE).is_file():
        raise InputError(f"{workdir / FILE}: no such file, expected a workdir made by experiments/aco.py")
    try:
        return json.loads((workdir / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{workdir / FILE}: {error}, expected JSON") from None


def _first_difference(old: Any, new: Any, place: str) -> tuple[str, str, str] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*new, *old]):
            if found := _first_difference(old.get(name), new.get(name), f"{place}.{name}"):
                return found
        return None
    return None if old == new else (place, json.dumps(old), json.dumps(new))
