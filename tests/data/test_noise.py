"""Corruption keeps the identity of a record, masks keep the specials."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aco_jax.data import noise
from aco_jax.data.tokens import Special

ROW = {
    "title": "Orvan LCD television KDL-40V2500 40 inch black",
    "text": "full hd panel 40 inch, three sockets, model kdl40v2500 in black",
    "size": "40 inch",
    "price": "399.00",
    "empty": "",
}


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_no_strength_changes_nothing() -> None:
    assert noise.corrupt(np.random.default_rng(0), ROW, 0.0) == ROW


def test_corruption_is_a_function_of_the_generator_and_changes_most_rows() -> None:
    first = [noise.corrupt(np.random.default_rng(seed), ROW, 0.5) for seed in range(20)]
    again = [noise.corrupt(np.random.default_rng(seed), ROW, 0.5) for seed in range(20)]
    assert first == again
    assert sum(row != ROW for row in first) >= 19
    assert all(row.keys() == ROW.keys() for row in first)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_corruption_keeps_the_code_and_says_something(strength: float) -> None:
    kept = 0
    for seed in range(60):
        row = noise.corrupt(np.random.default_rng(seed), ROW, strength)
        said = " ".join(row[column] for column in ("title", "text", "size"))
        kept += "kdl40v2500" in _bare(said)
        assert _bare(said)
        assert set(re.findall(r"\d+(?:\.\d+)?", said)) <= {"40", "2500", "101.6"}
        assert not re.search(r"101\.6(?! ?cm)", said)
    assert kept >= 60 * (1.0 - 0.5 * strength)


def test_words_come_from_the_vocabulary_and_prices_stay_near() -> None:
    rows = [noise.corrupt(np.random.default_rng(seed), ROW, 0.9, ("zzyzx",)) for seed in range(40)]
    assert any("zzyzx" in row["title"] for row in rows)
    prices = np.array([float(row["price"]) for row in rows if row["price"]])
    assert 5 <= len(prices) < 40
    assert (np.abs(prices / 399.0 - 1.0) < 0.4).all()
    assert len(set(prices)) > 3


def test_units_are_spelt_or_converted_to_the_same_measure() -> None:
    sizes = {noise.corrupt(np.random.default_rng(seed), {"size": "40 inch"}, 0.6)["size"] for seed in range(80)}
    inches = {'40"', "40 in", "40in", "40inch", "40 inch", "40inches", "40 inches"}
    assert sizes & {'40"', "40 in"}
    for size in sizes:
        number = re.fullmatch(r"([\d.]+) ?(?:cm)", size.lower().replace("-", " "))
        assert number is None or float(number[1]) == pytest.approx(101.6)
    assert any("101.6" in size for size in sizes)
    assert len(sizes & inches) >= 4


def test_a_code_is_only_written_otherwise() -> None:
    codes = {noise.reformat_code(np.random.default_rng(seed), "KDL-40V2500") for seed in range(60)}
    assert {_bare(code) for code in codes} == {"kdl40v2500"}
    assert {"kdl40v2500", "KDL40V2500"} < codes
    assert noise.reformat_code(np.random.default_rng(0), "--") == "--"


def test_typos_are_one_slip_and_leave_short_words_and_codes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        word = noise.typo(rng, "television")
        assert abs(len(word) - len("television")) <= 1
        assert word[0] == "t"
        assert sum(a != b for a, b in zip(word, "television", strict=False)) <= 10
    assert [noise.typo(rng, word) for word in ("tv", "kdl40v", "")] == ["tv", "kdl40v", ""]


def test_withheld_attributes_and_the_rest_make_the_row() -> None:
    for seed in range(20):
        left, gone = noise.drop_attributes(np.random.default_rng(seed), ROW, 0.9)
        assert {**left, **gone} == ROW
        assert all(left[column] == "" for column in gone)
        assert any(left.values())
    assert noise.drop_attributes(np.random.default_rng(0), ROW, 0.0) == (ROW, {})


def test_spans_become_single_masks_and_specials_stay() -> None:
    special = Special.at(0)
    text = np.arange(200, 240, dtype=np.int32)
    row = np.concatenate([[special.table(0), special.column(0)], text[:20], [special.column(1)], text[20:], [0] * 5])
    tokens = np.tile(row, (200, 1)).astype(np.int32)
    found = noise.span_mask(np.random.default_rng(0), tokens, special, 0.3)
    assert found.shape == tokens.shape
    assert found.dtype == np.int32
    kept = ((found >= 200).sum() / (200 * 40)).item()
    assert kept == pytest.approx(0.7, abs=0.08)
    fixed = [special.table(0), special.column(0), special.column(1)]
    for line in found:
        assert [i for i in line.tolist() if i in fixed] == fixed
        texts = line[line >= 200]
        assert (np.diff(texts) > 0).all()
    assert (found == special.mask).any(1).mean() > 0.9
    np.testing.assert_array_equal(noise.span_mask(np.random.default_rng(0), tokens, special, 0.0), tokens)
