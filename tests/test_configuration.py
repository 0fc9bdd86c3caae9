"""Wrong fields are named with their place; a workdir belongs to one config."""

from __future__ import annotations

import dataclasses
import json

import pytest

from aco_jax import configuration
from aco_jax.configuration import DataConfig, GeneratorConfig, bounded
from aco_jax.data import catalogue, records
from aco_jax.data.records import InputError, Relation
from aco_jax.settings import AgentsConfig


@dataclasses.dataclass(frozen=True)
class Model:
    width: int = bounded(8, 1, 64)
    heads: int = 2
    rate: float = 0.5
    copy: bool = True
    sizes: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


@dataclasses.dataclass(frozen=True)
class Whole:
    seed: int
    name: str = ""
    most: int | None = None
    model: Model = dataclasses.field(default_factory=Model)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)


FULL = {
    "seed": 3,
    "name": "x",
    "most": 4,
    "model": {"width": 6, "heads": 3, "rate": 1, "copy": False, "sizes": [4], "span": (1, 2.5)},
    "data": {
        "path": "p",
        "tables": ["a", "b"],
        "relations": {"spare": {"definition": "A part.", "symmetric": False, "max_partners": None}},
        "generator": {"shops": 2, "size": 10, "difficulty": 0},
    },
}


def test_the_members_of_the_reward_are_combined_in_known_ways_only():
    agents = configuration.from_dict(AgentsConfig, {"reward_combination": "worst_case", "reward_spread": 1})
    assert (agents.reward_combination, agents.reward_spread) == ("worst_case", 1.0)
    with pytest.raises(InputError, match=r"reward_combination 'best', expected one of mean, worst_case, uncertainty"):
        configuration.from_dict(AgentsConfig, {"reward_combination": "best"})


def test_every_field_is_read():
    model = Model(width=6, heads=3, rate=1.0, copy=False, sizes=(4,), span=(1.0, 2.5))
    relations = (Relation("spare", "A part.", symmetric=False),)
    data = DataConfig("p", ("a", "b"), relations, GeneratorConfig(2, 10, 0.0))
    whole = configuration.from_dict(Whole, FULL)
    assert whole == Whole(3, "x", 4, model, data)
    assert isinstance(whole.model.rate, float)
    assert hash(whole) == hash(configuration.from_dict(Whole, FULL))


def test_what_is_written_is_what_is_read():
    for whole in (Whole(1), configuration.from_dict(Whole, FULL)):
        text = json.dumps(configuration.to_dict(whole))
        assert configuration.from_dict(Whole, json.loads(text)) == whole


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "config.seed: missing, expected a whole number"),
        ({"sead": 1}, "config.sead: unknown field, expected one of seed, name"),
        ({"seed": "x"}, "config.seed: 'x', expected a whole number"),
        ({"seed": True}, "config.seed: True, expected a whole number"),
        ({"seed": 1.5}, "config.seed: 1.5, expected a whole number"),
        ({"seed": None}, "config.seed: None, expected a whole number"),
        ({"seed": 1, "most": "many"}, "config.most: 'many', expected a whole number"),
        ({"seed": 1, "model": 5}, "config.model: 5, expected fields"),
        ({"seed": 1, "model": {"widht": 5}}, "config.model.widht: unknown field, expected one of width"),
        ({"seed": 1, "model": {"width": 0}}, "config.model.width: 0, expected 1 to 64"),
        ({"seed": 1, "model": {"width": 65}}, "config.model.width: 65, expected 1 to 64"),
        ({"seed": 1, "model": {"width": 7}}, "config.model: width 7 is not a multiple of heads 2"),
        ({"seed": 1, "model": {"copy": 1}}, "config.model.copy: 1, expected true or false"),
        ({"seed": 1, "model": {"rate": "fast"}}, "config.model.rate: 'fast', expected a number"),
        ({"seed": 1, "model": {"sizes": 3}}, "config.model.sizes: 3, expected a list"),
        ({"seed": 1, "model": {"sizes": [1, "b"]}}, r"config.model.sizes\[1\]: 'b', expected a whole number"),
        ({"seed": 1, "model": {"span": [1.0]}}, "config.model.span: 1 values, expected 2"),
        ({"seed": 1, "data": {"generator": {"size": -3}}}, "generator.size: -3, expected 8 to 5000"),
        (
            {"seed": 1, "data": {"generator": {"difficulty": float("nan")}}},
            "difficulty: nan, expected 0 to 1",
        ),
        ({"seed": 1, "data": {"relations": {"spare": {}}}}, "relations.spare.definition: missing"),
        ({"seed": 1, "data": {"relations": {"spare": 1}}}, "relations.spare: 1, expected fields"),
    ],
)
def test_a_wrong_field_is_named(mapping, message):
    with pytest.raises(InputError, match=message) as error:
        configuration.from_dict(Whole, mapping)
    assert "\n" not in str(error.value)


def test_a_workdir_belongs_to_one_config(tmp_path):
    workdir = tmp_path / "deep" / "run"
    whole = configuration.from_dict(Whole, FULL)
    configuration.claim(workdir, whole)
    configuration.claim(workdir, whole)
    assert configuration.read(workdir, Whole) == whole
    before = (workdir / configuration.FILE).read_bytes()
    other = dataclasses.replace(whole, model=dataclasses.replace(whole.model, rate=2.0))
    with pytest.raises(InputError, match=r"config.model.rate is 1.0 there, expected 2.0; take a new workdir"):
        configuration.claim(workdir, other)
    assert (workdir / configuration.FILE).read_bytes() == before


def test_a_workdir_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no such file, expected a workdir made by"):
        configuration.read(tmp_path, Whole)
    (tmp_path / configuration.FILE).write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        configuration.read(tmp_path, Whole)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder to write to"):
        configuration.claim(tmp_path / "file" / "run", Whole(1))


def test_the_built_in_catalogues(tmp_path):
    whole = Whole(1, data=DataConfig(generator=GeneratorConfig(shops=2, size=10)))
    dataset = configuration.open_run(whole, tmp_path)
    generated = catalogue.generate(1, 2, 10, 0.5)
    assert dataset.fingerprint == generated.dataset.fingerprint
    assert dataset.relations == catalogue.RELATIONS
    folder = configuration.data_folder(whole.data, tmp_path)
    assert configuration.load_folder(whole.data, folder).fingerprint == dataset.fingerprint
    assert configuration.open_run(whole, tmp_path).fingerprint == dataset.fingerprint
    with pytest.raises(InputError, match=r"config.seed is 1 there, expected 2"):
        configuration.open_run(dataclasses.replace(whole, seed=2), tmp_path)


def test_a_folder(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("tableA", "tableB"):
        (folder / f"{name}.csv").write_text("id,name\n0,lamp\n")
    whole = Whole(1, data=DataConfig(path=str(folder)))
    dataset = configuration.open_run(whole, tmp_path / "run")
    assert dataset.size == 2
    assert dataset.relations == records.SAME
    assert not (tmp_path / "run" / "data").exists()


def test_nothing_is_written_before_the_tables_are_read(tmp_path):
    for data in (DataConfig(), DataConfig(path=str(tmp_path / "absent"))):
        with pytest.raises(InputError):
            configuration.open_run(Whole(1, data=data), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    configuration.claim(tmp_path / "run", Whole(1))
    with pytest.raises(InputError, match="take a new workdir"):
        configuration.open_run(Whole(2, data=DataConfig(generator=GeneratorConfig(2, 10))), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [configuration.FILE]
