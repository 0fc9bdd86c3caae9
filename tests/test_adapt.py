"""What counts as new, who plays it, and a run that goes on from a finished one."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from aco_jax import adapt, answer, checkpoints, configuration, learner_state, replicas, supervision, train
from aco_jax import desk as desks
from aco_jax.data import catalogue, listing, records, tokens
from aco_jax.data.records import Dataset, InputError
from aco_jax.settings import TrainConfig

ROOT = Path(__file__).parents[1]
NAMES = ["red apple a100", "green pear b200", "blue plum c300", "grey fig d400", "pink date e500"]


def smoke(**changes: object) -> TrainConfig:
    config = importlib.import_module("configs.smoke").get_config()
    config.train.update(**changes)
    return configuration.from_dict(TrainConfig, config.to_dict())


def frame(ids: str, names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids), "name": names, **columns})


def fruits(left: str = "0123", right: str = "0123") -> Dataset:
    """Two tables; record k of either speaks of fruit k."""
    sides = {"a": left, "b": right}
    return records.from_frames({table: frame(ids, [NAMES[int(i)] for i in ids]) for table, ids in sides.items()})


def problem_of(anchor: list[int], record: list[list[int]], like: listing.Problem) -> listing.Problem:
    return dataclasses.replace(like, anchor=np.array(anchor), record=np.array(record))


@pytest.fixture(scope="module")
def desk() -> desks.Desk:
    return desks.open_desk(smoke(), fruits())


def test_records_are_known_by_table_and_id_and_changed_by_what_they_say() -> None:
    before = records.from_frames({"a": frame("012", NAMES[:3]), "b": frame("01", NAMES[:2])})
    after = records.from_frames(
        {
            "a": frame("3021", [NAMES[3], NAMES[0], "blue plum c301", NAMES[1]]),
            "b": frame("12", NAMES[1:3], weight=["5 g", ""], colour=["", ""]),
        }
    )
    news = adapt.compare(before, after)
    assert [after.key(i) for i in np.flatnonzero(news.new)] == [("a", "3"), ("b", "2")]
    assert [after.key(i) for i in np.flatnonzero(news.changed)] == [("a", "2"), ("b", "1")]
    assert news.gone == 1
    assert news.attributes == ("b.weight", "b.colour")
    nothing = adapt.compare(before, before)
    assert nothing.counts() == dict.fromkeys(news.counts(), 0)


def test_an_empty_attribute_changes_no_record() -> None:
    before = records.from_frames({"a": frame("01", NAMES[:2]), "b": frame("01", NAMES[:2])})
    after = records.from_frames({"a": frame("01", NAMES[:2], size=["", ""]), "b": frame("01", NAMES[:2])})
    news = adapt.compare(before, after)
    assert not news.told.any()
    assert news.attributes == ("a.size",)


def test_a_list_is_new_by_its_anchor_or_by_a_candidate(desk: desks.Desk) -> None:
    """Record 0 is new. An empty slot is -1 and no record."""
    problem = problem_of([0, 1, 2, 3], [[4, 5], [4, 0], [5, -1], [-1, -1]], desk.problem)
    told = np.zeros(desk.dataset.size, bool)
    told[0] = True
    assert adapt.new_lists(problem, told).tolist() == [0, 1]
    told[[0, -1]] = False, True
    assert adapt.new_lists(problem, told).tolist() == []


def test_old_lists_keep_their_fold_whatever_their_number_is_now(desk: desks.Desk) -> None:
    """One record has come at the head of the first table and one has gone, so that every number is another."""
    after = desks.open_desk(smoke(), fruits("40123", "123"), desk.tokenizer)
    fold = np.arange(len(desk.problem.anchor))  # a fold of its own for each list
    old = {desk.dataset.key(int(anchor)): int(f) for anchor, f in zip(desk.problem.anchor, fold, strict=True)}
    found = train.carry_folds(desk, fold, after)
    keys = [after.dataset.key(int(anchor)) for anchor in after.problem.anchor]
    assert found.tolist() == [old.get(key, train.EVERYBODY) for key in keys]
    assert found[keys.index(("a", "4"))] == train.EVERYBODY


def test_folds_are_those_of_the_table_that_is_searched() -> None:
    """With three tables a record has two lists."""
    three = records.from_frames({name: frame("012", NAMES[:3]) for name in "abc"})
    desk = desks.open_desk(smoke(), three)
    fold = np.arange(len(desk.problem.anchor))
    assert len(fold) == 2 * three.size
    assert train.carry_folds(desk, fold, desk).tolist() == fold.tolist()


def test_a_known_column_keeps_its_token_when_an_attribute_comes(desk: desks.Desk, tmp_path: Path) -> None:
    """A new first column of the first table stands last: nothing that was learned of the others moves."""
    left, right = frame("0123", NAMES[:4]), frame("0123", NAMES[:4])
    left.insert(1, "maker", "orchard")
    desk.tokenizer.save(tmp_path)
    after = desks.open_desk(smoke(), records.from_frames({"a": left, "b": right}), tokens.load(tmp_path))
    assert after.tokenizer.columns == (*desk.tokenizer.columns, "maker")
    assert after.dataset.columns[0] == "maker"
    old, new = (one.asks[one.dataset.index["b", "1"]] for one in (desk, after))
    np.testing.assert_array_equal(old, new)


@pytest.fixture(scope="module")
def shops() -> desks.Desk:
    return desks.open_desk(smoke(), catalogue.generate(0, shops=2, size=24, difficulty=0.2).dataset)


def drawn(desk: desks.Desk, config: TrainConfig, number: int, lists: np.ndarray | None = None) -> np.ndarray:
    """The lists that every replica takes in a round, [R, n]."""
    believed, rng = supervision.init(desk.problem, 0), np.random.default_rng(0)
    return desks.choose(desk, config, believed, rng, number, lists).row.reshape(config.train.replicas, -1)


def test_anchors_come_from_the_lists_given_and_replicas_stay_disjoint(shops: desks.Desk) -> None:
    config, lists = smoke(replicas=4, merge_every=1, anchors_per_step=2, planted=0.0), np.arange(1, 48, 3)
    rounds = [drawn(shops, config, number, lists) for number in range(2)]
    taken = [set(part.ravel().tolist()) for part in np.stack(rounds, axis=1)]
    assert not any(taken[i] & taken[j] for i in range(4) for j in range(i))
    assert set().union(*taken) == set(lists.tolist())  # 2 rounds of 8 go through 16 lists once


def test_all_lists_are_the_default(shops: desks.Desk) -> None:
    everything = np.arange(len(shops.problem.anchor))
    np.testing.assert_array_equal(drawn(shops, smoke(), 1), drawn(shops, smoke(), 1, everything))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_few_lists_are_taken_again(shops: desks.Desk, count: int) -> None:
    """Four replicas want four lists each: what is there goes round, and every replica has something."""
    config, lists = smoke(replicas=4, merge_every=1, anchors_per_step=4), np.arange(count) + 5
    rows = drawn(shops, config, 0, lists)
    assert set(rows.ravel().tolist()) == set(lists.tolist())
    owners = [{replica for replica in range(4) if row in rows[replica]} for row in lists]
    assert all(len(owner) == 1 for owner in owners) == (count >= 4)


def write(folder: Path, dataset: Dataset) -> None:
    folder.mkdir()
    for table in dataset.tables:
        records.write_table(table, folder / f"{table.name}.csv")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run that says it was finished, on tables `old`, and later tables `new`."""
    write(tmp_path / "old", fruits())
    write(tmp_path / "new", fruits("01234"))
    config = smoke()
    data = dataclasses.replace(config.data, path=str(tmp_path / "old"), relations=(), generator=None)
    configuration.claim(tmp_path / "W", dataclasses.replace(config, data=data))
    (tmp_path / "W" / "summary.json").write_text(json.dumps({"fingerprint": fruits().fingerprint}))
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("fault", ["no folder", "no table", "no run", "unfinished", "moved on", "adapted elsewhere"])
def test_wrong_input_is_one_line_and_leaves_everything(place: Path, fault: str) -> None:
    workdir, said = place / "W", []
    if fault == "no folder":
        (place / "new").rename(place / "gone")
        said = [str(place / "new"), "no such folder"]
    elif fault == "no table":
        (place / "new" / "b.csv").rename(place / "new" / "c.csv")
        said = [str(place / "new"), "no table 'b'", "a, c"]
    elif fault == "no run":
        workdir, said = place / "none", [str(place / "none" / "config.json"), "no such file"]
    elif fault == "unfinished":
        (workdir / "summary.json").unlink()
        said = [str(workdir / "summary.json"), "finished"]
    elif fault == "moved on":
        (place / "old" / "a.csv").write_text("id,name\n0,red apple\n")
        said = [str(place / "old"), f"not those that {workdir} learned from"]
    else:
        (workdir / "adapted").mkdir()
        (workdir / "adapted" / adapt.NEWS).write_text(json.dumps({"to": "others"}))
        said = [str(workdir / "adapted"), "other tables", str(place / "new")]
    before = contents(place)
    with pytest.raises(InputError) as error:
        adapt.adapt(workdir, place / "new")
    assert "\n" not in str(error.value)
    for word in said:
        assert word in str(error.value)
    assert contents(place) == before


def test_the_launcher_says_it_in_one_line(place: Path) -> None:
    (place / "W" / "summary.json").unlink()
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "adapt.py", "--workdir=W", "--data=new", "--rounds=1"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("adapt.py: W/summary.json: no such file")
    assert done.stderr.count("\n") == 1


def restored(workdir: Path) -> tuple[learner_state.Config, desks.Desk, train.Run]:
    config = configuration.read(workdir, TrainConfig)
    dataset = configuration.load(config.data, workdir, config.seed)
    return answer.restore(workdir, dataset)[1:]


def host(run: train.Run) -> learner_state.State:
    state = dataclasses.replace(run.state, key=jax.random.key_data(run.state.key))
    return jax.tree.map(np.asarray, state)


@pytest.mark.slow
def test_a_later_delivery_is_learned_and_related(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke run, its later delivery, a stop after the first step, and an adaptation where nothing is new."""
    config, workdir, data = smoke(), tmp_path / "W", tmp_path / "new"
    dataset = configuration.open_run(config, workdir)
    _, desk = train.train(config, dataset, workdir)
    answer.finish(workdir, desk)
    assert config.data.generator is not None
    delivery = catalogue.later(config.seed, **dataclasses.asdict(config.data.generator))
    delivery.write(data)
    before, save = contents(workdir), checkpoints.save

    def save_and_stop(*args: object) -> None:
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        adapt.adapt(workdir, data, rounds=2)
    monkeypatch.setattr(checkpoints, "save", save)
    found = adapt.adapt(workdir, data, rounds=2)
    folder = workdir / "adapted"

    # The run is as it was, and the adapted one complete.
    after = contents(workdir)
    assert {name: after[name] for name in before} == before
    files = {"config.json", "metrics.jsonl", "relations.csv", "clusters.csv", "summary.json", "report.html"}
    files |= {"tokenizer", "checkpoints"}
    assert files <= {path.name for path in folder.iterdir()}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["counts"]["records new"] == len(delivery.added) == 16
    assert summary["counts"]["attributes new"] == 4
    # Ids stay, and known columns keep their tokens: only the names of new ones follow.
    assert contents(folder / "tokenizer")["tokenizer.json"] == before["tokenizer/tokenizer.json"]
    own, grown = (json.loads((run / "tokenizer" / "layout.json").read_text()) for run in (workdir, folder))
    columns = own.pop("columns"), grown.pop("columns")
    assert grown == own
    assert columns[1][: len(columns[0])] == columns[0]
    assert set(delivery.dataset.columns) - set(dataset.columns) == set(columns[1][len(columns[0]) :])
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]

    # What was learned goes on, beliefs are of the new lists.
    _, old_desk, old = restored(workdir)
    agents, desk, new = restored(folder)
    # The judge is as it was, and with it what is known of it.
    assert np.isfinite(old.believed.checked.hidden).all()
    jax.tree.map(np.testing.assert_array_equal, new.believed.checked, old.believed.checked)
    np.testing.assert_array_equal(desk.problem.mean, old_desk.problem.mean)  # and what it sees is by the same standard
    assert desk.dataset.fingerprint == summary["fingerprint"] != dataset.fingerprint
    assert int(new.state.merges[0]) == int(old.state.merges[0]) + 2
    assert int(new.state.step[0]) == int(old.state.step[0]) + 2 * config.train.merge_every
    assert (np.asarray(new.state.memory.size) >= np.asarray(old.state.memory.size)).all()
    ours, theirs = (train.parameters(run, agents)["ranker"]["judge"] for run in (new, old))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    np.testing.assert_array_equal(new.believed.fold, train.carry_folds(old_desk, old.believed.fold, desk))
    assert (new.believed.fold == train.EVERYBODY).sum() == len(delivery.added)

    # Never stopped, it would have come to the same.
    (tmp_path / "again").mkdir()
    for name in ("config.json", "summary.json", "data", "tokenizer", train.STANDARD, "checkpoints"):
        (tmp_path / "again" / name).symlink_to(workdir / name)
    adapt.adapt(tmp_path / "again", data, rounds=2)
    whole = restored(tmp_path / "again" / "adapted")[2]
    jax.tree.map(np.testing.assert_array_equal, host(whole), host(new))

    # It is a workdir like any other: it relates its tables, and is adapted, here to what is not new.
    assert answer.relate(folder, configuration.load_folder(config.data, data)) == found.rows
    assert adapt.adapt(workdir, data).rows is None
    idle = adapt.adapt(folder, data)
    assert idle.summary["counts"]["lists new"] == idle.summary["counts"]["rounds of adapting"] == 0
    assert (folder / "adapted" / "relations.csv").read_bytes() == (folder / "relations.csv").read_bytes()
    other = tmp_path / "other"
    catalogue.later(1, **dataclasses.asdict(config.data.generator)).write(other)
    with pytest.raises(InputError, match="adapted to other tables"):
        adapt.adapt(workdir, other)
    assert replicas.first(new.state.averaged.epsilon) == replicas.first(old.state.averaged.epsilon)
