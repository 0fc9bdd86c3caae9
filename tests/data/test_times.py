"""Durations and dates: one value however it is written, and how near two values are."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aco_jax.data import descriptions, evidence, fields, records, times

DATES = st.dates(datetime.date(1969, 1, 1), datetime.date(2068, 12, 31))
NAMED = ("%d-%b-%y", "%B %d , %Y", "%b. %d, %Y", "%d %B %Y", "%Y-%m-%d", "%Y/%m/%d", "%Y-%m-%dT10:15:00", "%m/%d/%Y")


@given(DATES, st.sampled_from(NAMED))
def test_a_day_is_the_same_in_every_writing(date: datetime.date, form: str) -> None:
    assert times.day(date.strftime(form)) == date.toordinal()


@given(DATES, st.sampled_from(("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%Y-%m-%d", "%Y%m%d")))
def test_the_day_may_come_first_but_not_before_a_year_of_four_digits(date: datetime.date, form: str) -> None:
    assert times.day(date.strftime(form), day_first=True) == date.toordinal()


@given(st.integers(1, 35_999))
def test_a_length_of_time_is_the_same_in_every_writing(seconds: int) -> None:
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    writings = [f"{hours}:{minutes:02d}:{rest:02d}", f"{hours}h {minutes}m {rest}s", f"{seconds} sec"]
    writings += [f"{hours} hrs. {minutes} min. {rest} seconds", f"{seconds // 60}:{rest:02d}"]
    assert [times.duration(text) for text in writings] == [seconds] * len(writings)
    np.testing.assert_allclose([times.duration(f"{seconds / u:.9f}", u) for u in times.UNITS], seconds, rtol=1e-4)


@pytest.mark.parametrize("text", ["", "-", "219", "0:00", "3 m", "12:75", "3:39 pm", "2014", "h", "a 3:39"])
def test_what_is_no_length_of_time(text: str) -> None:
    assert math.isnan(times.duration(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2014",
        "1.2.3",
        "10.4.85",
        "20141321",
        "18800101",
        "2014092",
        "31/31/2001",
        "212-595-3139",
        "sept 1999",
        "3 blah 2001",
        "2014-09",
    ],
)
def test_what_is_no_day(text: str) -> None:
    assert math.isnan(times.day(text))


def test_the_unit_of_bare_numbers_is_that_of_what_the_other_tables_say() -> None:
    clocks, thousandths, minutes = ["3:20", "4:00", "2:51"], ["201500", "240100", "165000"], ["3.3", "4.1", ""]
    assert times.kind([clocks, thousandths, minutes]) == "duration"
    assert times.bare([clocks, thousandths, minutes]) == [1.0, 0.001, 60.0]
    assert times.kind([thousandths, minutes]) is None
    assert times.kind([clocks, ["red", "blue"]]) is None
    assert times.kind([["21-Sep-14", "3-May-99"], ["May 3 , 1999"]]) == "date"
    assert times.kind([["21-Sep-14", "3-May-99"], ["1999", "2014"]]) is None
    assert times.kind([[], [""]]) is None


def test_whether_the_day_comes_first_is_told_by_the_column() -> None:
    assert times.day_first(["3/4/2001", "13/4/2001"])
    assert not times.day_first(["3/4/2001", "4/13/2001"])
    assert not times.day_first(["3/4/2001"])
    assert times.day_first(["3.4.2001"])
    assert not times.day_first(["2001-04-13"])


@given(st.floats(-900, 90_000), st.floats(-4, 4))
def test_the_cosine_of_two_places_falls_with_their_distance(place: float, further: float) -> None:
    rows = times.rows([place, place + further, math.nan])
    near = (rows @ rows.T).toarray()
    np.testing.assert_allclose(near[0, 1], math.exp(-(further**2) / 4), atol=0.01)
    np.testing.assert_allclose(np.diag(near), [1, 1, 0], atol=1e-5)


def test_records_are_as_similar_as_their_times_are_near() -> None:
    """Songs in tables of different writing, a second and a year apart; what cannot be read is absent."""
    a = pd.DataFrame({"id": ["0", "1"], "title": ["fire", "rain"], "time": ["3:20", "4:05"], "out": ["3-May-99"] * 2})
    b = a.assign(time=["201000", "?"], out=["May 3 , 1999", "May 3 , 2000"])
    b = pd.concat([b, *[b[:1]] * 4]).assign(id=[str(i) for i in range(6)])
    dataset = records.from_frames({"a": a, "b": b})
    index = descriptions.fit(dataset)
    assert [field.kind for field in index.fields.compared] == ["text", "duration", "date"]
    assert index.fields.compared[1].bare == (1.0, 0.001)
    here = index.records
    facts, _ = evidence.compare(index, here, here, np.array([0, 1]), np.array([2, 3]))
    seen = {name: facts[:, evidence.FACTS.index(f"{name}")] for name in evidence.FACTS if name[-1] in "12"}
    np.testing.assert_allclose(seen["similar 1"], [math.exp(-(math.log(201 / 200) ** 2) / 4 / 0.02**2), 0], atol=0.01)
    np.testing.assert_array_equal(seen["absent 1"], [0, 1])
    np.testing.assert_array_equal(seen["equal 2"], [1, 0])
    np.testing.assert_allclose(seen["similar 2"], [1, 0], atol=1e-5)
    assert not {"20", "may", "1999", "201000"} & frozenset().union(*here.tokens)
    later = descriptions.describe(index, 1, [{"title": "fire", "time": "200000"}, {"title": "fire", "time": "soon"}])
    assert later.values[1].tolist() == [here.values[1][0], ""]
    assert fields.value(index.fields.compared[1], 1, {"time": "200000"}) == "200000"
