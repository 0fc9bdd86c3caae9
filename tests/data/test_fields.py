"""Fields: amounts as they are written in different countries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import fields, records


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,299.00", 1299),
        ("1.299,00 €", 1299),
        ("12,50", 12.5),
        ("12,5 kr", 12.5),
        ("1,299", 1299),
        ("1.299", 1.299),
        ("1.299 €", 1299),
        ("1 299,00 kr", 1299),
        ("1'299.00 CHF", 1299),
        ("1,299,000", 1299000),
        ("1.299.000", 1299000),
        ("12,34,567.00", 1234567),
        ("3 500 \u0440\u0443\u0431.", 3500),
        ("10.50.1", np.nan),
        ("-", np.nan),
    ],
)
def test_an_amount_by_hand(text: str, value: float) -> None:
    np.testing.assert_equal(fields.amount(text), value)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["$399", "$20"], "amount"),
        (["399 USD", "EUR 20"], "amount"),
        (["12,5", "13"], "amount"),
        (["1 299,00 kr", "5 kr"], "amount"),
        (["¥1,200", "¥98"], "amount"),
        (["1999", "2001"], "text"),
        (["1,024", "2,048"], "text"),
        (["1.299.000,00", "1.000.000,00"], "amount"),
        (["91.927.116", "90.948.425"], "text"),  # numbers of parts
        (["10.4.1", "192.168.0.12"], "text"),
        (["456.225.1842", "231.555.0199"], "text"),
        (["48.864541", "2.431229"], "text"),  # coordinates
        (["48.8645,2.4312", "38.7436,9.1609"], "text"),
        (["12,34,567.00", "99.90"], "amount"),
        (["12 ft", "13 ft"], "text"),
        (["vol. 3", "vol. 4"], "text"),
        (["-", "$", "."], "text"),
    ],
)
def test_what_names_a_currency_or_has_decimals_is_an_amount(cells: list[str], kind: str) -> None:
    assert fields._kind([cells]) == kind


def test_a_title_names_records_only_where_it_tells_most_apart() -> None:
    people = pd.DataFrame({"id": [str(i) for i in range(20)], "given": ["ann", "bob"] * 10, "age": ["20"] * 20})
    fitted = fields.fit(records.from_frames({"a": people, "b": people}))
    assert fitted.fields[0].names == ("given", "given")
    assert not fitted.naming
    things = people.assign(given=[f"thing {i % 9}" for i in range(20)])
    named = fields.fit(records.from_frames({"a": things, "b": things}))
    assert named.naming == named.fields[:1]


def test_what_titles_say_beside_it_is_a_part_of_the_name() -> None:
    """A maker that the other table's titles say first; not a city that few say, nor notes of which one is said."""
    rng = np.random.default_rng(0)
    makers, cities = np.array(["acme", "stark tools", "umbra"]), np.array(["rome", "oslo"])
    rows = pd.DataFrame(
        {
            "id": [str(i) for i in range(40)],
            "title": [f"hammer {i} red" for i in range(40)],
            "maker": rng.choice(makers, 40),
            "city": rng.choice(cities, 40),
            "year": "1999",
            "notes": ["red", *(f"note {i} of this" for i in range(39))],
        }
    )
    said = rows.assign(title=rows["maker"] + " " + rows["title"] + " 1999", maker="")
    said.loc[:3, "title"] += " rome"
    fitted = fields.fit(records.from_frames({"a": rows, "b": said}))
    assert [field.names[0] for field in fitted.naming] == ["title", "maker"]
    assert [field.names[0] for field in fitted.compared] == ["title", "city", "year", "notes"]
    row = {"title": "hammer 7 red", "maker": "acme", "city": "rome"}
    assert fields.name(fitted, 0, row) == "hammer 7 red acme"
    assert fields.name(fitted, 1, row | {"maker": ""}) == "hammer 7 red"


def test_what_was_found_out_of_the_columns_is_told() -> None:
    left = pd.DataFrame({"id": ["1", "2"], "name": ["red lamp", "old sofa"], "cost": ["$5", "$7"]})
    right = pd.DataFrame({"id": ["1", "2"], "label": ["red lamp", "old sofa"], "year": ["1999", "2001"]})
    told = fields.told(fields.fit(records.from_frames({"a": left, "b": right})), ["a", "b"])
    assert told == [
        {"columns": {"a": "name", "b": "label"}, "kind": "text", "names records": True},
        {"columns": {"a": "cost"}, "kind": "amount", "names records": False},
        {"columns": {"b": "year"}, "kind": "text", "names records": False},
    ]


def two(left: dict[str, list[str]], right: dict[str, list[str]]) -> records.Dataset:
    """Two tables of these columns."""
    frames = (pd.DataFrame(columns) for columns in (left, right))
    return records.from_frames(
        {
            name: frame.assign(id=[str(row) for row in range(len(frame))])
            for name, frame in zip("ab", frames, strict=True)
        }
    )


def test_columns_of_single_words_are_not_one_attribute_for_the_spaces_around_them() -> None:
    names, units, middles = (
        [f"person {n}" for n in range(20)],
        ["FIN", "OPS", "DEV", "HR"] * 5,
        ["L", "J", "K", "M"] * 5,
    )
    aligned = fields.align(two({"name": names, "unit": units}, {"name": names, "middle": middles}))
    assert aligned == [("name", "name"), ("unit", None), (None, "middle")]


def test_numbers_are_one_attribute_where_the_same_stand_in_both_columns() -> None:
    """Digits alone would tell otherwise: but for a quarter a number is as one of the other column, but for its last."""
    pool = [str(number) for number in np.random.default_rng(0).permutation(900)[:80] + 100]
    heights, sheets = pool[:40], pool[40:]

    def near(numbers: list[str]) -> list[str]:
        return [number[:2] + str((int(number[2]) + 5) % 10) for number in numbers]

    right = {"elevation": heights[:10] + near(sheets[10:]), "number": sheets[:10] + near(heights[10:])}
    assert fields.align(two({"sheet": sheets, "height": heights}, right)) == [
        ("sheet", "number"),
        ("height", "elevation"),
    ]


def test_durations_are_one_attribute_however_they_are_written() -> None:
    minutes = [71 + 7 * number for number in range(20)]
    left = {"runtime": [f"{m // 60}h {m % 60:02}m" for m in minutes]}
    assert fields.align(two(left, {"length": [f"{m} min" for m in minutes]})) == [("runtime", "length")]
