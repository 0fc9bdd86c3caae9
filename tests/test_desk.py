"""The desk: what a round takes of the tables, and tables that have nothing in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import chex
import numpy as np
import pandas as pd
import pytest

from aco_jax import desk as desks
from aco_jax import self_training, supervision, train
from aco_jax.data import catalogue, records
from aco_jax.settings import TrainConfig


@pytest.fixture(name="opened")
def fixture_opened(tiny: TrainConfig, shops: Path, tmp_path: Path) -> desks.Desk:
    return train.open_desk(tiny, records.read_folder(shops, relations=records.SAME), tmp_path)


def test_a_planted_anchor_is_a_record_in_other_words_whose_partner_the_tables_tell(
    tiny: TrainConfig, opened: desks.Desk
) -> None:
    """Its partner is not what is believed by now, and what else is believed counts for nothing; hidden, all is gone."""
    problem, lists = opened.problem, np.arange(len(opened.problem.anchor))
    start = supervision.init(problem, 0)
    other = np.where(np.asarray(start.target) == 1, 0, 1)  # by now another slot is believed everywhere
    believed = dataclasses.replace(start, target=other.astype(np.int32), weight=np.full(len(lists), 0.5, np.float32))
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, planted=1.0, merge_every=8))
    anchors = desks.choose(opened, config, believed, np.random.default_rng(0), 0)
    assert anchors.planted.all()
    row, settled = anchors.row, np.asarray(start.target)[anchors.row]
    assert (settled >= 0).all()
    assert (np.asarray(start.target) < 0).any()  # others are not taken
    partner, since = problem.record[row, settled], problem.record[row, other[row]]
    hidden = (anchors.hidden >= 0).any(axis=1)
    assert 0.2 < hidden.mean() < 0.8
    assert (anchors.truth[hidden] == -1).all()
    assert {(a, b) for a, b in zip(*np.sort(anchors.hidden[hidden])[:, -2:].T, strict=True)} == {
        (min(a, b), max(a, b)) for a, b in zip(partner[hidden], since[hidden], strict=True)
    }
    np.testing.assert_array_equal(anchors.truth[~hidden].max(axis=1), partner[~hidden])
    np.testing.assert_array_equal(anchors.unsure[~hidden].max(axis=1), since[~hidden])
    own = [opened.dataset.row(int(record)) for record in problem.anchor[row]]
    assert all(words.keys() == row.keys() for words, row in zip(anchors.rows, own, strict=True))
    assert sum(words != row for words, row in zip(anchors.rows, own, strict=True)) > len(row) / 2


def test_other_anchors_are_records_as_they_stand_with_what_is_believed_by_now(
    tiny: TrainConfig, opened: desks.Desk
) -> None:
    start = supervision.init(opened.problem, 0)
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, planted=0.0, hidden=0.0))
    anchors = desks.choose(opened, config, start, np.random.default_rng(0), 0)
    assert not anchors.planted.any()
    assert (anchors.unsure == -1).all()
    assert (anchors.hidden == -1).all()
    slot = np.asarray(start.target)[anchors.row]
    expected = np.where(slot >= 0, opened.problem.record[anchors.row, np.maximum(slot, 0)], -1)
    np.testing.assert_array_equal(anchors.truth.max(axis=1), expected)
    assert anchors.rows == [opened.dataset.row(int(record)) for record in opened.problem.anchor[anchors.row]]


def test_where_the_tables_tell_no_partner_nothing_is_planted(tiny: TrainConfig, opened: desks.Desk) -> None:
    nobody = dataclasses.replace(opened, settled=np.full_like(opened.settled, -1))
    anchors = desks.choose(nobody, tiny, supervision.init(opened.problem, 0), np.random.default_rng(0), 0)
    assert not anchors.planted.any()


def test_tables_that_have_nothing_in_common_are_refused(tiny: TrainConfig) -> None:
    words = {"a": ["aba", "bab", "abba", "baab"], "b": ["xyx", "yxy", "xyyx", "yxxy"]}
    frames = {name: pd.DataFrame({"id": list("0123"), "title": titles}) for name, titles in words.items()}
    with pytest.raises(records.InputError, match="tables a, b: nothing in common, expected a word"):
        desks.open_desk(tiny, records.from_frames(frames))


def test_what_stands_in_wrong_columns_is_compared_in_its_own(tiny: TrainConfig, shops: Path, tmp_path: Path) -> None:
    """The run is of the tables as they were read."""
    whole = records.read_folder(shops, relations=records.SAME)
    rng, tables = np.random.default_rng(0), []
    for table in whole.tables:
        cells = np.full_like(table.cells, "")
        for row, column in np.ndindex(cells.shape):
            to = rng.integers(cells.shape[1]) if rng.random() < 0.5 else column
            cells[row, to] = f"{cells[row, to]} {table.cells[row, column]}".strip()
        tables.append(dataclasses.replace(table, cells=cells))
    mixed = dataclasses.replace(whole, tables=tuple(tables))
    desk = train.open_desk(tiny, mixed, tmp_path)
    assert desk.dataset.fingerprint == mixed.fingerprint

    def in_place(dataset: records.Dataset) -> float:
        return float(np.mean([dataset.row(r) == whole.row(r) for r in range(whole.size)]))

    assert in_place(desk.dataset) > 2 * in_place(mixed)
    assert [desk.setting.dataset.row(r) for r in range(3)] == [desk.dataset.row(r) for r in range(3)]


def test_words_of_another_language_are_compared_as_the_first_tables_and_shown_as_they_were(tiny: TrainConfig) -> None:
    rng = np.random.default_rng(0)
    words = {f"own{a}{b}": f"{b}{a}foreign" for a in "abcde" for b in "abcd"}
    said = [rng.choice(list(words), 4, replace=False).tolist() for _ in range(60)]
    frames = {
        name: pd.DataFrame({"id": range(60), "title": [f"{' '.join(text)} no {i}" for i, text in enumerate(rows)]})
        for name, rows in {"a": said, "b": [[words[word] for word in text] for text in said]}.items()
    }
    dataset = records.from_frames({name: frame.astype(str) for name, frame in frames.items()})
    opened = desks.open_desk(tiny, dataset)
    assert opened.original is dataset
    assert [opened.dataset.text(60 + i) for i in range(60)] == [dataset.text(i) for i in range(60)]
    assert opened.dataset.fingerprint == dataset.fingerprint
    (note,) = opened.notes
    assert note.startswith("20 words of b were read as words of a to be compared: ")


def test_where_words_had_to_be_learned_all_mutual_pairs_are_believed_first(tiny: TrainConfig) -> None:
    """They are few for want of words in common; else few of them say that partners are few."""
    dataset = catalogue.generate(0, shops=2, size=400, difficulty=0.8).dataset
    parts = zip(dataset.tables, (slice(80), slice(-200, None)), strict=True)
    tables = (dataclasses.replace(table, ids=table.ids[part], cells=table.cells[part]) for table, part in parts)
    desk = desks.open_desk(tiny, records.Dataset(tuple(tables), dataset.relations))
    learned = dataclasses.replace(desk, words=({}, {"word": "other"}))
    chex.assert_trees_all_equal(desk.beginning(0), supervision.init(desk.problem, 0))
    chex.assert_trees_all_equal(learned.beginning(0), supervision.init(desk.problem, 0, supervision.ALL_MUTUAL))
    assert self_training.seldom_mutual(desk.beginning(0))
    believed = [int((state.beginning(0).weight > 0).sum()) for state in (desk, learned)]
    assert believed[0] < believed[1]
