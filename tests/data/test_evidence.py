"""Evidence: hand-sized records, orientation, new rows, aligned columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import descriptions, evidence, fields, records

ROWS = [
    ("sony turntable pslx350h", "sony ps-lx350h belt drive", "99.0", "100.00"),
    ("canon ink cli8y yellow", "canon ink cli221 yellow", "10.5", ""),
    ("finale 2007 upgrade", "finale 2006 upgrade", "", "20.0"),
]


@pytest.fixture(scope="module")
def dataset() -> records.Dataset:
    left = pd.DataFrame({"id": ["1", "2", "3"], "name": [r[0] for r in ROWS], "price": [r[2] for r in ROWS]})
    right = pd.DataFrame({"id": ["1", "2", "3"], "label": [r[1] for r in ROWS], "cost": [r[3] for r in ROWS]})
    return records.from_frames({"a": left, "b": right})


@pytest.fixture(scope="module")
def index(dataset):
    return descriptions.fit(dataset)


def item(facts: np.ndarray, name: str) -> np.ndarray:
    return facts[:, evidence.FACTS.index(name)]


def test_columns_of_other_names_align_by_values(dataset):
    found = fields.fit(dataset)
    assert [field.names for field in found.fields if field.kind == "text"] == [("name", "label")]
    assert [field.names for field in found.amounts] == [("price", "cost")]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("garmin 49.99 nuvi", 49.99),
        ("$1,299.00", 1299.0),
        ("twice 5.00 and 5.00", 5.0),
        ("either 5.00 or 6.00", np.nan),
        ("version 2.0, 10.50.1, 3.999 or 12", np.nan),
    ],
)
def test_a_price_within_a_text_stands_alone_and_has_two_decimals(text, price):
    np.testing.assert_equal(fields.price_within(text), price)


def test_prices_in_columns_of_other_things_are_found_where_no_column_has_amounts():
    def table(names, makers):
        return pd.DataFrame({"id": [str(i) for i in range(len(names))], "name": names, "maker": makers})

    left = table(["sony turntable", "canon ink 10.50", "finale"], ["99.00 sony", "canon", "makemusic 20.00"])
    right = table(["sony 100.00", "canon ink", "finale upgrade"], ["sony", "21.00 canon", "makemusic"])
    found = descriptions.fit(records.from_frames({"a": left, "b": right}))
    assert found.fields.stray
    facts, _ = evidence.compare(found, found.records, found.records, np.arange(3), np.arange(3, 6))
    np.testing.assert_allclose(item(facts, "price ratio"), [abs(np.log(0.99)), np.log(2), 0], atol=1e-5)
    np.testing.assert_allclose(item(facts, "price missing"), [0, 0, 1])
    priced = {name: frame.assign(price=["1.00", "2.00", "3.00"]) for name, frame in {"a": left, "b": right}.items()}
    assert not fields.fit(records.from_frames(priced)).stray


def test_words_and_grams_are_told_apart_and_a_word_that_nobody_says_is_the_rarest(index):
    new = descriptions.describe(index, 0, [{"name": "cannon inks yellows"}, {"name": "canon ink zzyzx"}])
    facts, _ = evidence.compare(index, new, index.records, np.array([0, 1]), np.array([4, 4]))
    assert item(facts, "words")[0] == item(facts, "title words")[0] == 0
    assert item(facts, "grams")[0] > 0.2
    assert item(facts, "title grams")[0] > 0.2
    np.testing.assert_allclose(item(facts, "rarest missing")[1], 1.0)


def test_codes_numbers_and_prices(index):
    facts, validity = evidence.compare(index, index.records, index.records, np.arange(3), np.arange(3, 6))
    assert facts.shape == (3, len(evidence.FACTS))
    assert facts.dtype == np.float32
    np.testing.assert_array_equal(item(facts, "code") > 0, [True, False, False])
    assert item(facts, "code conflict")[1] > 0.5
    np.testing.assert_allclose(item(facts, "number conflict"), [0, 0, 1])
    np.testing.assert_allclose(item(facts, "price ratio"), [abs(np.log(0.99)), 0, 0], atol=1e-5)
    np.testing.assert_allclose(item(facts, "price missing"), [0, 1, 1])
    assert validity[0] == 1
    assert validity[1] < 0.5
    assert validity[2] == 0


def test_swap_is_the_comparison_from_the_other_side(index):
    left, right = np.array([0, 1, 2]), np.array([4, 5, 3])
    facts, _ = evidence.compare(index, index.records, index.records, left, right)
    turned, _ = evidence.compare(index, index.records, index.records, right, left)
    swapped = evidence.swap(facts)
    np.testing.assert_allclose(swapped, turned, rtol=1e-5, atol=1e-6)


def test_a_new_row_equals_the_old_one_and_may_miss_columns(dataset, index):
    copy = descriptions.describe(index, 0, [dataset.row(0), {}, {"unheard": "sony"}])
    facts, _ = evidence.compare(index, copy, index.records, np.array([0, 1, 2]), np.array([3, 3, 3]))
    old, _ = evidence.compare(index, index.records, index.records, np.array([0]), np.array([3]))
    np.testing.assert_allclose(facts[:1], old, rtol=1e-6)
    assert np.isfinite(facts).all()
    assert item(facts, "words")[2] > 0


def test_view_by_hand_and_hidden_candidates_are_as_if_not_there():
    record, score = np.array([[5, 6, -1]]), np.array([[0.8, 0.5, -1.0]])
    back, back_score = np.array([[[0, 1], [0, 2], [0, 1]]]), np.array([[[0.8, 0.3], [0.5, 0.9], [0, 0]]])
    others = (np.array([0]), np.zeros(1), np.zeros((1, 3)), np.ones(1))
    seen = evidence.view(record, score, back, back_score, np.zeros_like(back_score), *others)
    part = {name: seen[0, :, i] for i, name in enumerate(evidence.VIEW)}
    np.testing.assert_allclose(part["rank"], [1, 0.5, 0])
    np.testing.assert_allclose(part["margin"], [0.3, -0.3, 0], atol=1e-6)
    np.testing.assert_allclose(part["reverse margin"], [0.5, -0.4, 0], atol=1e-6)
    np.testing.assert_allclose(part["mutual"], [1, 0, 0])
    hidden = evidence.view(np.array([[-1, 6, -1]]), score, back, back_score, np.zeros_like(back_score), *others)
    assert hidden[0, 1, evidence.VIEW.index("rank")] == 1
    assert (hidden[0, 0] == 0).all()


def test_an_amount_beyond_all_numbers_is_not_known():
    left, right = (np.array([[each]], np.float32) for each in (np.inf, np.inf))
    np.testing.assert_array_equal(evidence._amounts(left, right), [[0, 0, 1]])
