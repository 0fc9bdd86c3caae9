"""Scores by hand, on a set small enough to count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax import evaluation
from aco_jax.data import records
from aco_jax.data.records import InputError, Relation

RELATIONS = (Relation("same", "The same thing."), Relation("spare", "A part of it."))


def make_dataset(tables=("tableA", "tableB"), relations=records.SAME):
    frame = pd.DataFrame({"id": list("0123"), "name": ["red lamp", "blue chair", "green desk", "old clock"]})
    return records.from_frames(dict.fromkeys(tables, frame), relations)


def row(left, right, relation="same", probability=0.9, tables=("tableA", "tableB")):
    return (tables[0], left, tables[1], right, relation, probability)


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder


@pytest.fixture
def labelled_folder(tmp_path):
    """Five labelled pairs, two of them positive; three matches."""
    write(tmp_path, "valid.csv", "ltable_id,rtable_id,label\n0,0,1\n1,1,1\n2,0,0\n3,0,0\n3,1,0\n")
    return write(tmp_path, "matches.csv", "ltable_id,rtable_id\n0,0\n1,1\n2,2\n")


def scored(folder, dataset, rows, pair_rows, estimates=None, split="valid"):
    labelled, matches = evaluation.read_gold(folder, dataset, split)
    return evaluation.evaluate(dataset, labelled, matches, rows, pair_rows, estimates or {})


def test_pairs_and_catalogue(labelled_folder):
    # right: 0-0; wrong and labelled: 2-0; wrong, not labelled: 3-3; missed and labelled: 1-1
    rows = [row("0", "0"), row("2", "0"), row("3", "3"), row("1", "1", "unrelated")]
    pair_rows = [
        row("0", "0", probability=0.9),
        row("1", "1", "unrelated", 0.7),
        row("2", "0", probability=0.6),
        row("3", "0", "unrelated", 1.0),
        row("3", "1", "unrelated", 0.8),
    ]
    result = scored(labelled_folder, make_dataset(), rows, pair_rows, {"catalogue": {"f1": 0.5}})
    pairs = result["pairs"]
    assert (pairs["labelled"], pairs["positive"], pairs["predicted"], pairs["true_positive"]) == (5, 2, 2, 1)
    assert (pairs["precision"], pairs["recall"], pairs["f1"]) == (1 / 2, 1 / 2, 1 / 2)
    # of the no-class: 3 true, 3 said, 2 right
    assert result["weighted_f1"] == pytest.approx((2 * (1 / 2) + 3 * (2 / 3)) / 5)
    # saying no to all: 3 of 5 right, nothing of the other class
    assert result["all_negative_weighted_f1"] == pytest.approx((3 * (2 * 3 / (5 + 3)) + 2 * 0) / 5)
    catalogue = result["catalogue"]
    assert (catalogue["positive"], catalogue["predicted"], catalogue["true_positive"]) == (3, 3, 1)
    assert catalogue["f1"] == pytest.approx(1 / 3)
    p, y = np.array([0.9, 0.3, 0.6, 0.0, 0.2]), np.array([1, 1, 0, 0, 0])
    assert result["calibration"]["brier"] == pytest.approx(np.mean((p - y) ** 2))
    assert result["calibration"]["ece"] == pytest.approx((0.1 + 0.7 + 0.6 + 0.0 + 0.2) / 5)  # a bin each
    assert sum(count for _, _, count in result["calibration"]["bins"]) == 5
    # decisions: 0-0 and 2-0 are stated
    assert pairs["label_free_f1"] == pytest.approx(2 * (0.9 + 0.6) / (p.sum() + 2))
    low, high = pairs["label_free_f1_low"], pairs["label_free_f1_high"]
    assert low < pairs["label_free_f1"] < high
    assert f"{100 * pairs['label_free_f1']:.1f} ({100 * low:.1f} to {100 * high:.1f})" in evaluation.describe(result)
    assert result["relations"] is None
    found = {(line["method"], line["of"]): line for line in evaluation.lines(result)}
    assert found["ACO", "catalogue"]["label_free_f1"] == 0.5
    assert found["mutual best", "pairs"]["f1"] == 1.0  # equal texts match equal ids
    assert found["mutual best", "pairs"]["label_free_f1"] is None
    assert len(found) == 6


def test_where_it_is_known_that_nothing_matches_all_that_is_stated_is_wrong(tmp_path):
    write(tmp_path, "matches.csv", "ltable_id,rtable_id\n")
    catalogue = scored(tmp_path, make_dataset(), [row("0", "0")], [])["catalogue"]
    assert (catalogue["positive"], catalogue["predicted"], catalogue["f1"]) == (0, 1, 0.0)


def test_of_matches_what_is_labelled_as_none_is_none(tmp_path):
    write(tmp_path, "matches.csv", "ltable_id,rtable_id,label\n0,0,1\n1,1,0\n")
    catalogue = scored(tmp_path, make_dataset(), [row("0", "0"), row("1", "1")], [])["catalogue"]
    assert (catalogue["positive"], catalogue["true_positive"], catalogue["predicted"]) == (1, 1, 2)
    write(tmp_path, "matches.csv", "left,right\n")
    with pytest.raises(InputError, match=r"matches.csv: no column 'ltable_id', expected it among left, right"):
        scored(tmp_path, make_dataset(), [], [])


def test_named_relations(tmp_path):
    gold = "ltable_id,rtable_id,label\n0,0,Same\n1,1,same\n2,2,spare\n3,3,unrelated\n0,3,unrelated\n"
    write(tmp_path, "valid.csv", gold)
    write(tmp_path, "matches.csv", "ltable_id,rtable_id,relation\n0,0,same\n1,1,same\n")
    said = [("0", "0", "same"), ("1", "1", "spare"), ("2", "2", "spare"), ("3", "3", "fake")]
    rows = [row(left, right, relation) for left, right, relation in said]
    pair_rows = [*rows, row("0", "3", "unrelated", 0.8)]
    result = scored(tmp_path, make_dataset(relations=RELATIONS), rows, pair_rows, {"same": {"f1": 0.25}})
    relations = result["relations"]
    assert relations["confusion"] == {
        "same": {"same": 1, "spare": 1, "unrelated": 0, "fake": 0},
        "spare": {"same": 0, "spare": 1, "unrelated": 0, "fake": 0},
        "unrelated": {"same": 0, "spare": 0, "unrelated": 1, "fake": 1},
    }
    f1 = {"same": 2 * 1 / (1 + 2), "spare": 2 * 1 / (2 + 1), "unrelated": 2 * 1 / (1 + 2)}
    assert {name: scores["f1"] for name, scores in relations["labels"].items()} == pytest.approx(f1)
    assert relations["macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    assert relations["accuracy"] == pytest.approx(3 / 5)
    # matches that name `same` are compared with what is stated as `same` only
    assert result["catalogue"]["predicted"] == 1
    assert result["catalogue"]["f1"] == pytest.approx(2 * 1 / (1 + 2))
    # right with 0.9 twice, wrong with 0.9 twice, right with 0.8
    assert result["calibration"]["ece"] == pytest.approx((4 * abs(0.9 - 1 / 2) + abs(0.8 - 1)) / 5)
    found = {(line["method"], line["of"]): line for line in evaluation.lines(result)}
    assert found["ACO", "spare"]["f1"] == pytest.approx(f1["spare"])
    assert found["ACO", "same"]["label_free_f1"] == found["ACO", "catalogue"]["label_free_f1"] == 0.25
    assert ("mutual best", "spare") not in found  # a baseline knows one relation
    text = evaluation.describe(result)
    assert "macro F1 66.7" in text
    assert "fake" in text


def test_pairs_are_compared_whichever_stands_left(tmp_path):
    tables = ("shop", "list", "third")
    write(tmp_path, "valid.csv", "ltable,ltable_id,rtable,rtable_id,label\nthird,1,shop,1,1\nshop,2,list,2,0\n")
    rows = [row("1", "1", tables=("shop", "third"))]
    pair_rows = [*rows, row("2", "2", "unrelated", 0.75, tables=("list", "shop"))]
    result = scored(tmp_path, make_dataset(tables), rows, pair_rows)
    assert result["pairs"]["f1"] == 1.0
    assert result["catalogue"] is None


def test_nothing_stated_is_not_an_error(labelled_folder):
    pair_rows = [row(left, right, "unrelated", 0.6) for left, right in ("00", "11", "20", "30", "31")]
    result = scored(labelled_folder, make_dataset(), [], pair_rows)
    assert result["pairs"]["f1"] == result["catalogue"]["f1"] == 0.0
    assert result["weighted_f1"] == result["all_negative_weighted_f1"]
    assert "ACO" in evaluation.describe(result)


def test_no_split_but_matches(tmp_path):
    write(tmp_path, "matches.csv", "ltable_id,rtable_id\n0,0\n")
    result = scored(tmp_path, make_dataset(), [row("0", "0")], [])
    assert result["pairs"] is None
    assert result["catalogue"]["f1"] == 1.0
    assert {line["of"] for line in evaluation.lines(result)} == {"catalogue"}


def test_no_gold_is_an_error(tmp_path):
    write(tmp_path, "train.csv", "ltable_id,rtable_id,label\n0,0,1\n")
    with pytest.raises(InputError, match=r"valid.csv: no such file, expected .* \(there: train.csv\)"):
        evaluation.read_gold(tmp_path, make_dataset(), "valid")


def test_relations_are_read_strictly(tmp_path):
    head = "ltable,ltable_id,rtable,rtable_id,relation,probability\n"
    path = tmp_path / "relations.csv"
    path.write_text(head)
    assert evaluation.read_relations(path, make_dataset()) == []
    path.write_text(head + "tableA,0,tableB,1,same,0.25\n")
    assert evaluation.read_relations(path, make_dataset()) == [row("0", "1", probability=0.25)]
    for text, message in {
        "tableA,0,tableB,1,same,1.25\n": "line 2, column 'probability': '1.25', expected a number from 0",
        "tableA,0,tableB,1,same,nan\n": "column 'probability': 'nan'",
        "tableA,0,tableB,9,same,1\n": "column 'rtable_id'.*'9'.*tableB",
        "tableA,0,tableX,1,same,1\n": "no table 'tableX'",
    }.items():
        path.write_text(head + text)
        with pytest.raises(InputError, match=message):
            evaluation.read_relations(path, make_dataset())
    path.write_text("ltable_id,rtable_id,relation\n0,1,same\n")
    with pytest.raises(InputError, match="no column 'probability'"):
        evaluation.read_relations(path, make_dataset())


def test_a_relation_that_was_not_asked_for_counts_as_other(tmp_path):
    write(tmp_path, "valid.csv", "ltable_id,rtable_id,label\n0,0,same\n1,1,spare\n")
    pair_rows = [row("0", "0"), row("1", "1", "unrelated")]
    result = scored(tmp_path, make_dataset(), [row("0", "0")], pair_rows)
    assert (result["pairs"]["positive"], result["pairs"]["f1"]) == (1, 1.0)
    assert set(result["relations"]["labels"]) == {"same", "other"}
    asked = scored(tmp_path, make_dataset(relations=RELATIONS), [row("0", "0")], pair_rows)
    assert asked["pairs"]["positive"] == 2
