"""Changed copies of tables: what each change does, and that gold still names records that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import robustness
from aco_jax.data import records
from aco_jax.data.records import InputError


@pytest.fixture
def folder() -> robustness.Folder:
    """Twelve pairs; the title of right record 3 is missing."""
    numbers = [str(i) for i in range(12)]
    left = pd.DataFrame({"id": numbers, "title": [f"lamp model {i}" for i in numbers], "price": numbers})
    right = pd.DataFrame({"id": numbers, "title": [f"desk lamp {i}" for i in numbers], "price": numbers})
    right.loc[3, "title"] = ""
    gold = pd.DataFrame({"ltable_id": numbers, "rtable_id": numbers[::-1], "label": "1"})
    return robustness.Folder(left, right, {"valid": gold})


@pytest.mark.parametrize("name", robustness.CHANGES)
def test_what_is_changed_is_still_a_data_set(name: str, folder: robustness.Folder, tmp_path: Path) -> None:
    path = robustness.write(robustness.CHANGES[name](folder, np.random.default_rng(0)), tmp_path / name)
    dataset = records.read_folder(path)
    pairs = records.read_pairs(path / "valid.csv", dataset)
    assert len(pairs.left) > 0


def test_what_each_change_does(folder: robustness.Folder) -> None:
    def made(name: str) -> robustness.Folder:
        return robustness.CHANGES[name](folder, np.random.default_rng(0))

    assert made("same") is folder
    turned = made("swapped")
    assert turned.left is folder.right
    assert turned.gold["valid"]["ltable_id"].tolist() == folder.gold["valid"]["rtable_id"].tolist()
    again = made("repeated")
    assert len(again.right) == 12 + 2
    assert len(again.gold["valid"]) == 12 + 2
    copied = again.gold["valid"].iloc[-1]
    assert copied["rtable_id"] == f"again {11 - int(copied['ltable_id'])}"
    many = made("many")
    ids = [set(many.left["id"]), set(many.right["id"])]
    times = [
        {
            name: sum(key.strip("'").endswith(f"again {name}") or key == name for key in keys)
            for name in folder.left["id"]
        }
        for keys in ids
    ]
    assert set(times[0].values()) <= {1, 2, 3, 4} != {1}
    pairs = many.gold["valid"]
    assert (
        len(pairs) == len(pairs.drop_duplicates()) == sum(times[0][str(k)] * times[1][str(11 - k)] for k in range(12))
    )
    thinned = made("thinned")
    assert len(thinned.right) == 8
    assert len(thinned.gold["valid"]) == 8
    few = made("few")
    assert len(few.right) == len(few.gold["valid"]) == 2
    crowd = made("strangers")
    others = (crowd.gold["valid"]["label"] == "0").to_numpy()
    assert others.sum() == 6
    changed = crowd.right[crowd.right["id"].isin(crowd.gold["valid"]["rtable_id"][others])]
    kept = folder.right.loc[changed.index, "title"]
    assert all(ours.split()[:2] == theirs.split()[:2] for ours, theirs in zip(changed["title"], kept, strict=True))
    assert set(crowd.right["price"]) <= set(folder.right["price"])
    assert not changed["price"].equals(folder.right.loc[changed.index, "price"])
    pd.testing.assert_frame_equal(crowd.right.drop(changed.index), folder.right.drop(changed.index))
    moved = made("misplaced").right

    def words(table: pd.DataFrame) -> list[list[str]]:
        return [sorted(f"{row.title} {row.price}".split()) for row in table.itertuples()]

    assert words(moved) == words(folder.right)
    assert not moved["title"].equals(folder.right["title"])
    behind = made("gathered").right
    assert words(behind) == words(folder.right)
    assert 0 < (behind["price"] == "").sum() < len(behind)
    stays = behind["price"] != ""
    assert (behind["title"] == folder.right["title"])[stays].all()
    assert list(made("titles").left.columns) == ["id", "title"]
    spoken = made("foreign").right
    assert spoken["price"].equals(folder.right["price"])
    said = [text.split() for text in spoken["title"] if text]
    assert [words[-1] for words in said] == [str(i) for i in range(12) if i != 3]
    assert not {words[0] for words in said} & {"desk", "lamp"}
    assert made("foreign").left is folder.left


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tableA\.csv: no such file, expected tableA\.csv and tableB\.csv"):
        robustness.read(tmp_path)


def test_missing_gold_is_named(folder: robustness.Folder, tmp_path: Path) -> None:
    robustness.write(robustness.Folder(folder.left, folder.right, {}), tmp_path)
    with pytest.raises(InputError, match=r"none of train\.csv, valid\.csv, test\.csv, matches\.csv, expected gold"):
        robustness.read(tmp_path)
