"""Readers: what is read, and every refusal with its place and what was expected."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aco_jax.data import records
from aco_jax.data.records import Dataset, InputError, Relation, Table

A = "id,name,price\na1,Drill 18 V,99.0\na2,Saw,\n"
B = "id,title\n1,drill 18v\n2,kettle\n3,\n"


def _write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path, tableA__csv=A, tableB__csv=B)


def test_two_tables_become_one_row_of_records(folder: Path) -> None:
    data = records.read_folder(folder)
    assert data.size == 5
    np.testing.assert_array_equal(data.offsets, [0, 2, 5])
    np.testing.assert_array_equal(data.table_of, [0, 0, 1, 1, 1])
    assert data.table_of.dtype == np.int32
    assert data.columns == ("name", "price", "title")
    assert data.row(1) == {"name": "Saw", "price": ""}
    assert data.text(0) == "Drill 18 V 99.0"
    assert data.text(4) == ""
    assert data.key(2) == ("tableB", "1")
    assert [data.index[data.key(record)] for record in range(5)] == list(range(5))
    assert data.pairs_of_tables() == [(0, 1)]


def test_one_content_in_four_formats_has_one_fingerprint(tmp_path: Path) -> None:
    tsv = A.replace(",", "\t")
    lines = '{"id":"a1","name":"Drill 18 V","price":99.0}\n{"id":"a2","name":"Saw","price":null}\n\n'
    prints = set()
    for number, (name, text) in enumerate(
        [("x.csv", A), ("x.tsv", tsv), ("x.jsonl", lines), ("x.csv", "\ufeff" + A.replace("\n", "\r\n"))]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_text(text, encoding="utf-8", newline="")
        (folder / "y.csv").write_text(B, encoding="utf-8")
        prints.add(records.read_folder(folder).fingerprint)
    frames = {
        "x": pd.DataFrame({"id": ["a1", "a2"], "name": ["Drill 18 V", "Saw"], "price": ["99.0", None]}),
        "y": pd.DataFrame({"id": [1, 2, 3], "title": ["drill 18v", "kettle", float("nan")]}),
    }
    prints.add(records.from_frames(frames).fingerprint)
    assert len(prints) == 1
    assert re.fullmatch(r"[0-9a-f]{64}", prints.pop())


def test_a_list_in_json_is_its_items_with_commas_between(folder: Path) -> None:
    items = '["Lee, A.", null, 3.50, true, ""]'
    (folder / "tableC.jsonl").write_text(f'{{"id": 1, "by": {items}, "of": []}}\n', encoding="utf-8")
    assert records.read_folder(folder).row(5) == {"by": "Lee, A., 3.50, true", "of": ""}


def test_fingerprint_changes_with_any_cell_and_any_boundary(folder: Path) -> None:
    before = records.read_folder(folder).fingerprint
    _write(folder, tableA__csv=A.replace("Saw,", "Sa,w"))
    assert records.read_folder(folder).fingerprint != before


def test_gold_is_never_a_table_and_pairs_files_are_passed_over(tmp_path: Path) -> None:
    gold = "id,label\n1,1\n"
    _write(tmp_path, shop1__csv=A, shop2__csv=B, train__csv=gold, valid__csv=gold, test__csv=gold)
    _write(tmp_path, matches__csv=gold, hidden_x__csv=gold, relations__csv="ltable_id,rtable_id\na1,1\n")
    assert [table.name for table in records.read_folder(tmp_path).tables] == ["shop1", "shop2"]
    for name in ("train", "hidden_x", "matches.csv"):
        with pytest.raises(InputError, match="is a file of gold, expected a table of records"):
            records.read_folder(tmp_path, ["shop1", name])


def test_a_third_table_is_read_beside_the_first_two_and_clusters_are_none(tmp_path: Path) -> None:
    _write(tmp_path, tableA__csv=A, tableB__csv=B, tableC__csv=B, other__csv=B, tableD__csv="cluster,table,id\n0,x,1\n")
    assert [table.name for table in records.read_folder(tmp_path).tables] == ["tableA", "tableB", "tableC"]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    _write(tmp_path, tableA__csv=A, tableB__csv=f"id,x\n1,{'long ' * 100_000}\n")
    assert len(records.read_folder(tmp_path).text(2)) == 499_999


def test_named_tables_keep_their_order_and_other_id_columns_work(tmp_path: Path) -> None:
    _write(tmp_path, a__csv="sku,x\n1,p\n", b__tsv="sku\tid\n1\tq\n", c__csv="no,number\n1,2\n")
    data = records.read_folder(tmp_path, ["b.tsv", "a"], id_column="sku")
    assert [table.name for table in data.tables] == ["b", "a"]
    assert data.columns == ("id", "x")


def test_folders_of_text_are_tables_of_passages(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "a.md").write_text(
        "# Tools\n\nA drill\nof steel.\n\n```\nx = 1\n\ny = 2\n```\n## Saws #\nA saw.\n"
    )
    (tmp_path / "new" / "b.txt").write_text("# no heading\n\n\nsecond\n")
    data = records.read_folder(tmp_path)
    assert [table.name for table in data.tables] == ["new", "old"]
    rows = [(*data.key(record), *data.row(record).values()) for record in range(data.size)]
    assert rows == [
        ("new", "b.txt#1", "", "# no heading"),
        ("new", "b.txt#2", "", "second"),
        ("old", "a.md#1", "Tools", "A drill\nof steel."),
        ("old", "a.md#2", "Tools", "```\nx = 1\n\ny = 2\n```"),
        ("old", "a.md#3", "Saws", "A saw."),
    ]
    assert data.text(2) == "Tools A drill of steel."


def test_frames_drop_missing_and_write_whole_floats_as_ints() -> None:
    frame = pd.DataFrame({"id": [1.0, 2.0], "n": [4.0, np.nan], "p": [9.5, 1e20], "d": [pd.NaT, pd.NA]})
    data = records.from_frames({"x": frame, "y": frame})
    assert data.tables[0].ids == ("1", "2")
    assert data.tables[0].cells.tolist() == [["4", "9.5", ""], ["", "1e+20", ""]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tableB.csv", "key,x\n1,2\n", r"tableB.csv: no column 'id', expected it among key, x"),
        (
            "tableB.csv",
            "id,x\n1,2\n2,3\n1,4\n",
            r"line 4, column 'id': id '1' again \(first on line 2\), expected it once",
        ),
        ("tableB.csv", "id,x\n", r"tableB.csv: no record, expected at least one"),
        ("tableB.csv", "", r"line 1: the file is empty, expected a line of column names"),
        ("tableB.csv", "id\n1\n", r"only column 'id', expected attributes beside it"),
        ("tableB.csv", "id,x,y\n1,2,3\n2,3\n", r"line 3: 2 cells, expected 3 \(id, x, y\)"),
        ("tableB.csv", 'id,x\n1,"a\nb"\n2,3,4\n', r"line 4: 3 cells, expected 2 \(id, x\)"),
        (
            "tableB.csv",
            'id,x\n1,"open\n',
            r"line 2: a quoted cell is never closed, expected quotes around whole cells",
        ),
        ("tableB.csv", 'id,x\n1,"a"b\n', r"line 2: .* expected quotes around whole cells, and doubled within them"),
        ("tableB.csv", "id;x\n1;2\n", r"line 1: one column 'id;x', expected commas between columns"),
        ("tableB.tsv", "id,x\n1,2\n", r"line 1: one column 'id,x', expected tabs between columns"),
        ("tableB.csv", "id,x,y\n1,,\n2, ,\n", r"tableB.csv: nothing but ids, expected text in some cell"),
        ("tableB.csv", "id,x,x\n1,2,3\n", r"line 1, column 3: 'x' stands twice, expected each name once"),
        ("tableB.csv", ",id\n0,1\n", r"line 1, column 1: no name, expected each column to have one"),
        ("tableB.csv", "id,x\n ,2\n", r"line 2, column 'id': empty, expected an id"),
        ("tableB.csv", b"id,x\n1,a\n2,caf\xe9\n", r"line 3: byte 14 is 0xe9, expected text in UTF-8"),
        ("tableB.csv", b"\xef\xbb\xbfid,x\n1,\xff\n", r"line 2: byte 10 is 0xff, expected text in UTF-8"),
        ("tableB.csv", "id,x\n1,2\n".encode("utf-16"), r"line 1: byte 0 is 0xff, expected text in UTF-8"),
        ("tableB.csv", "id,x\n1,2\n".encode("utf-16-le"), r"line 1: byte 1 is 0x00, expected text in UTF-8"),
        ("tableB.jsonl", "", r"line 1: the file is empty, expected one JSON object a line"),
        ("tableB.jsonl", '{"id": 1, "x": 2}\n[1]\n', r"line 2: a JSON list, expected one JSON object"),
        (
            "tableB.jsonl",
            '{"id": 1, "x": 2}\n{"id": 2,}\n',
            r"line 2, column 1?\d: .*, expected one JSON object",
        ),
        (
            "tableB.jsonl",
            '{"id": 1, "x": {"y": 2}}\n',
            r"line 1, column 'x': a JSON dict, expected text, a number",
        ),
        (
            "tableB.jsonl",
            '{"id": 1, "x": ["a", ["b"]]}\n',
            r"line 1, column 'x': a JSON list, expected text, a number, null or a list of these",
        ),
        (
            "tableB.jsonl",
            '{"id": 1, "x": NaN}\n',
            r"line 1: NaN is no JSON number, expected a number or null",
        ),
        (
            "tableB.jsonl",
            '{"id": 1, "id": 2}\n',
            r"line 1, column 2: 'id' stands twice, expected each name once",
        ),
        ("tableB.jsonl", '{"id": null, "x": 2}\n', r"line 1, column 'id': empty, expected an id"),
        (
            "tableB.jsonl",
            '{"id": 1, "x": "a \\ud83d"}\n',
            r"line 1, column 'x': half a character \(\\ud83d\), expected",
        ),
        ("tableB.jsonl", '{"id": 1, "\\udc00": 2}\n', r"line 1, column 2: half a character"),
        ("tableB.jsonl", '{"x": 2}\n', r"tableB.jsonl: no column 'id', expected it among x"),
        ("tableB.jsonl", "[" * 100_000, r"line 1: nested too deep, expected one flat JSON object"),
    ],
)
def test_each_refusal_is_one_line_that_names_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    _write(tmp_path, **{"tableA__csv": A, name: content})
    with pytest.raises(InputError, match=message) as caught:
        records.read_folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_missing_folder_file_and_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        records.read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"0 tables \(none\), expected two at least, of .csv, .tsv, .jsonl"):
        records.read_folder(tmp_path)
    _write(tmp_path, tableA__csv=A)
    with pytest.raises(InputError, match=r"1 tables \(tableA\), expected two at least"):
        records.read_folder(tmp_path)
    with pytest.raises(InputError, match=r"no table 'tableB', expected one of tableA"):
        records.read_folder(tmp_path, ["tableA", "tableB"])
    _write(tmp_path, tableA__tsv=A)
    with pytest.raises(InputError, match=r"tableA.tsv: tableA.csv has the same name, expected one of them"):
        records.read_folder(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        records.read_text_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no passage, expected text in files .txt, .md"):
        records.read_text_folder(tmp_path)
    with pytest.raises(InputError, match=r"absent.csv: no such file"):
        records.read_pairs(tmp_path / "absent.csv", _dataset())


def test_a_frame_is_refused_by_its_name_and_row() -> None:
    good = pd.DataFrame({"id": [1], "x": [2]})
    with pytest.raises(InputError, match=r"frame 'y', row 2, column 'id': id '1' again \(first on row 1\)"):
        records.from_frames({"x": good, "y": pd.DataFrame({"id": [1, 1], "x": [2, 3]})})
    with pytest.raises(InputError, match=r"frame 'y', column 2: 'id' stands twice"):
        records.from_frames({"x": good, "y": pd.DataFrame([[1, 2]], columns=["id", "id"])})
    with pytest.raises(InputError, match=r"1 tables \(x\), expected 2 to 8"):
        records.from_frames({"x": good})


def test_relations_are_checked() -> None:
    tables = _dataset().tables
    with pytest.raises(InputError, match="0 relations"):
        Dataset(tables, ())
    with pytest.raises(InputError, match="8 relations"):
        Dataset(tables, tuple(Relation(str(i), "") for i in range(8)))
    for names in (("a", "a"), ("unrelated",), ("",)):
        with pytest.raises(InputError, match="expected different names"):
            Dataset(tables, tuple(Relation(name, "") for name in names))


def _dataset(count: int = 2) -> Dataset:
    cells = np.array([["p"], ["q"]], dtype=object)
    return Dataset(tuple(Table(f"t{i}", ("1", "2"), ("x",), cells) for i in range(count)))


def test_pairs_are_read_with_and_without_table_names(tmp_path: Path) -> None:
    _write(tmp_path, p__csv="rtable_id,ltable_id,label\n2,1, same \n1,1,0\n")
    pairs = records.read_pairs(tmp_path / "p.csv", _dataset(), "required")
    np.testing.assert_array_equal(pairs.left, [0, 0])
    np.testing.assert_array_equal(pairs.right, [3, 2])
    assert pairs.label == ("same", "0")
    _write(tmp_path, q__csv="ltable,ltable_id,rtable,rtable_id\nt2,1,t0,2\n")
    pairs = records.read_pairs(tmp_path / "q.csv", _dataset(3), "forbidden")
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.label) == ([4], [1], None)


def test_labels_are_read_as_other_programs_write_them(tmp_path: Path) -> None:
    _write(tmp_path, p__csv="ltable_id,rtable_id,label\n1,1,1.0\n1,2,FALSE\n2,1,yes\n2,2,0.0\n")
    assert records.read_pairs(tmp_path / "p.csv", _dataset(), "required").label == ("1", "0", "1", "0")


@pytest.mark.parametrize(
    ("count", "label", "content", "message"),
    [
        (
            2,
            "optional",
            "ltable_id,x\n1,1\n",
            r"p.csv: no column 'rtable_id', expected it among ltable_id, x",
        ),
        (3, "optional", "ltable_id,rtable_id\n1,1\n", r"p.csv: no column 'ltable'"),
        (2, "required", "ltable_id,rtable_id\n1,1\n", r"p.csv: no column 'label'"),
        (
            2,
            "forbidden",
            "ltable_id,rtable_id,label\n1,1,1\n",
            r"column 'label': refused here, expected pairs without",
        ),
        (2, "optional", "ltable_id,rtable_id\n", r"p.csv: no pair, expected at least one"),
        (2, "optional", "ltable_id,rtable_id\n1,1\n1,7\n", r"line 3, column 'rtable_id': no id '7' in t1"),
        (
            3,
            "optional",
            "ltable,ltable_id,rtable,rtable_id\nt0,1,t9,1\n",
            r"column 'rtable': no table 't9', expected t0, t1",
        ),
        (
            3,
            "optional",
            "ltable,ltable_id,rtable,rtable_id\nt1,1,t1,2\n",
            r"line 2: both records are of one table",
        ),
        (
            2,
            "optional",
            "ltable_id,rtable_id\n1,2\n1,1\n1,2\n",
            r"line 4: the same pair again \(first on line 2\)",
        ),
        (
            2,
            "required",
            "ltable_id,rtable_id,label\n1,2,\n",
            r"line 2, column 'label': empty, expected 0, 1 or a relation",
        ),
        (2, "required", "ltable_id,rtable_id,label\n1,2,0.5\n", r"column 'label': '0.5', expected 0, 1 or a relation"),
    ],
)
def test_each_refusal_of_pairs(tmp_path: Path, count: int, label: str, content: str, message: str) -> None:
    _write(tmp_path, p__csv=content)
    with pytest.raises(InputError, match=message):
        records.read_pairs(tmp_path / "p.csv", _dataset(count), label)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(
    lambda text: not text or text.strip()
)
_ROWS = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=5).filter(lambda rows: any(map(any, rows)))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(rows=_ROWS, suffix=st.sampled_from([".csv", ".tsv", ".jsonl", "table"]))
def test_any_text_survives_a_round_trip(rows: list[tuple[str, str]], suffix: str) -> None:
    table = Table("y", tuple(map(str, range(len(rows)))), ("p", 'q "1"'), np.array(rows, dtype=object))
    with tempfile.TemporaryDirectory() as name:
        folder = _write(Path(name), x__csv=A)
        if suffix == "table":
            records.write_table(table, folder / "y.csv")
        else:
            (folder / f"y{suffix}").write_bytes(_written(table, suffix).encode())
        found = records.read_folder(folder).tables[1]
    assert (found.ids, found.columns) == (table.ids, table.columns)
    assert found.cells.tolist() == table.cells.tolist()


def _written(table: Table, suffix: str) -> str:
    full = [["id", *table.columns], *([i, *cells] for i, cells in zip(table.ids, table.cells, strict=True))]
    if suffix == ".jsonl":
        return "\n".join(json.dumps(dict(zip(full[0], row, strict=True)), ensure_ascii=False) for row in full[1:])
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t" if suffix == ".tsv" else ",").writerows(full)
    return buffer.getvalue()
