"""Descriptions: what a record says, by hand; rows that come later and records without a title."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import descriptions, records


@pytest.fixture(scope="module")
def index() -> descriptions.Index:
    names = ["sony turntable ps-lx350h", "canon ink cli8y", "finale 2007 upgrade"]
    left = pd.DataFrame({"id": ["1", "2", "3"], "name": names, "price": ["99.0", "10.5", ""]})
    right = pd.DataFrame({"id": ["1", "2", "3"], "label": names, "cost": ["99.0", "", "20.0"]})
    return descriptions.fit(records.from_frames({"a": left, "b": right}))


def test_what_a_record_says_by_hand(index: descriptions.Index) -> None:
    said = index.records
    assert said.words[0] == ("sony", "turntable", "ps", "lx350h")
    assert said.joined[0] == "sonyturntablepslx350h"
    assert said.starts[0] == {0, 4, 13, 15}
    assert [said.codes[record] for record in range(3)] == [("pslx350h",), ("cli8y",), ()]
    assert [said.numbers[record] for record in range(3)] == [set(), set(), {"2007"}]
    np.testing.assert_equal(said.amounts[:, 0], np.array([99, 10.5, np.nan, 99, np.nan, 20], np.float32))
    assert said.grams[1] == {"canoninkcli8y"[place : place + 3] for place in range(11)}


def test_a_word_is_as_rare_as_few_records_say_it(index: descriptions.Index) -> None:
    """Two of the six records have each word: log(7 / 2) / log 7."""
    assert index.rarity["sony"] == pytest.approx(np.log(7 / 2) / np.log(7))


def test_records_taken_are_those_of_the_rows(index: descriptions.Index) -> None:
    taken = index.records.take(np.array([4, 0]))
    assert len(taken) == 2
    assert taken.table.tolist() == [1, 0]
    assert taken.words == (index.records.words[4], index.records.words[0])
    assert (taken.text != index.records.text[[4, 0]]).nnz == 0


def test_a_record_without_a_title_is_named_by_all_it_says(index: descriptions.Index) -> None:
    bare = descriptions.describe(index, 0, [{"price": "10.5", "name": ""}, {"unheard": "canon ink cli221"}])
    assert bare.words == ((), ("canon", "ink", "cli221"))


def test_of_a_long_text_the_beginning_is_compared(index: descriptions.Index) -> None:
    """What a comparison costs does not grow with the text: a title of 3000 different words has 64."""
    text = " ".join(f"w{number}" for number in range(3000))
    long = descriptions.describe(index, 0, [{"name": text}])
    assert long.words[0] == tuple(f"w{number}" for number in range(64))
    assert len(long.joined[0]) <= 2000
    assert "w100" in long.tokens[0]
    assert "w2999" not in long.tokens[0]


@pytest.mark.parametrize(
    "cells",
    [
        {"lat": ["52.5200", "48.1371", "50.9375"], "lon": ["13.4050", "11.5754", "6.9603"]},
        {"day": ["2019-03-01", "2020-11-15", "2021-07-30"], "price": ["1.99", "20.50", "300.00"]},
        {"link": ["https://one.example/a", "https://two.example/b", "https://six.example/c"]},
    ],
)
def test_where_no_column_has_words_the_others_are_what_there_is_to_say(cells: dict[str, list[str]]) -> None:
    frame = pd.DataFrame({"id": ["1", "2", "3"], **cells})
    found = descriptions.fit(records.from_frames({"a": frame, "b": frame})).records
    alike = (found.text[:3] @ found.text[3:].T).toarray()
    np.testing.assert_allclose(np.diag(alike), 1, rtol=1e-5)
    assert (alike.argmax(axis=1) == np.arange(3)).all()
