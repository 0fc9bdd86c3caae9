"""The words of records: how telling they are, and which are chosen."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import records, telling, tokens

TABLE = pd.DataFrame(
    {"id": ["a", "b", "c"], "name": ["red mug", "red jug (large)", "blue mug kx-200"], "price": ["1", "2", "3"]}
)


@pytest.fixture(scope="module")
def dataset():
    return records.from_frames({"left": TABLE, "right": TABLE})


@pytest.fixture(scope="module")
def words(dataset):
    """Of the records of the first table, their prices left out."""
    texts = [dataset.text(record) for record in range(dataset.size)]
    tokenizer = tokens.train(texts * 3, 460).knowing(dataset.columns)
    rows = [dataset.row(record) for record in range(3)]
    return telling.words(tokenizer, {"price"}, [telling.rarity(dataset, 0)] * 3, rows, [None] * 3)


def test_rarity_is_the_inverse_document_frequency(dataset):
    found = telling.rarity(dataset, 0)
    assert found["red"] == pytest.approx(math.log(1 + 3 / 2))
    assert found["jug"] == found["200"] == pytest.approx(math.log(1 + 3))


def test_words_are_without_marks_and_amounts_and_score_by_rarity(words):
    assert [[word.text for word in row] for row in words] == [
        ["red", "mug"],
        ["red", "jug", "large"],
        ["blue", "mug", "kx-200"],
    ]
    assert {word.column for row in words for word in row} == {"name"}
    assert words[0][0].score == pytest.approx(math.log(2.5))
    assert words[2][2].score == pytest.approx(telling.CODE + math.log(4))


def test_the_most_telling_words_that_fit_are_chosen_in_their_order(words):
    blue, mug, code = words[2]
    assert telling.choose(words[2], len(blue.ids) + len(code.ids)) == [blue, code]
    assert telling.choose(words[2], 0) == []
    assert telling.ids([blue, mug]) == [*blue.ids, *mug.ids]


def test_only_words_that_stand_whole_in_a_text_are_seen(words):
    blue, mug, code = words[2]
    assert telling.seen(words[2], np.array([*code.ids, 0, *blue.ids, 0, 0])) == [blue, code]
    assert telling.seen(words[2], np.array([*code.ids[:-1], 0, *mug.ids])) == [mug]


def test_a_bag_holds_a_word_in_parts_or_written_together(dataset):
    bag = telling.bag(dataset.row(2))
    assert all(telling.holds(bag, word) for word in ("kx-200", "kx200", "200-kx", "mug"))
    assert not telling.holds(bag, "kx-201")


def test_no_token_is_used_more_often_than_it_is_in_stock(words):
    blue, mug, code = words[2]
    assert telling.choose(words[2], 99, Counter([*blue.ids, *code.ids])) == [blue, code]
    assert telling.choose([mug, mug], 99, Counter([*mug.ids])) == [mug]


def test_only_whole_words_of_both_are_said_and_each_once():
    said = telling.said_by_both("red mugs 12 Red jug 12", "a red jug, 12 cm", "(red) JUG 12 mug")
    assert said == "red 12 jug"
    assert telling.said_by_both("", "red", "red") == ""
