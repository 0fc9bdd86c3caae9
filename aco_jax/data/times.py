"""Lengths of time and dates, however a table writes them: 3:39, 3m 39sec and 219000 are one length, as are
21-Sep-14 and September 21, 2014 one day.

What tells two apart is how far they are from each other, which neither their signs nor their words say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import scipy.sparse as sp
from dateutil import parser

Kind = Literal["duration", "date"]
MOST = 0.8  # share of a column's cells that have a form before it is read so
RELATIVE = 0.02  # unit of the distance between two durations: of their natural logarithm, 4 seconds of 200
DAYS = 10.0  # the same between two dates
UNITS = (0.001, 1.0, 60.0)  # seconds of a bare number
SAMPLE = 1000  # cells of a column that are looked at
_REACH, _LOWEST, _HIGHEST = 4, 1000, 100_000  # bins on either side; the range, in units

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):([0-5]\d(?:\.\d+)?)")
_WORDED = re.compile(
    r"(?:(\d+)\s?(?:h|hrs?|hours?)\.?)?\s?(?:(\d+)\s?(?:m|mins?|minutes?)\.?)?\s?"
    r"(?:(\d+(?:\.\d+)?)\s?(?:s|secs?|seconds?)\.?)?"
)
_SPELLED = re.compile(r"min|sec|h|\d\D+\d")  # 3 m may be metres
_BARE = re.compile(r"\d+(?:\.\d+)?")
_ISO = re.compile(r"\d{4}([-/.])\d\d?\1\d\d?|(?:19|20)\d\d[01]\d[0-3]\d")
_NUMBERED = re.compile(r"(\d\d?)([-/.])(\d\d?)\2(\d{4}|(?<=[-/])\d\d)")
_NAMED = re.compile(
    r"(?:\d{1,2}(?:st|nd|rd|th)?[\s.,-]*[a-z]{3,9}[\s.,-]*\d{2,4}|[a-z]{3,9}[\s.,-]*\d{1,2}(?:st|nd|rd|th)?[\s,.-]+\d{4})"
)
_SHORT = re.compile(r"(?<!\d)\d\d$")  # of 1969 to 2068, as POSIX has it
_OF_DAY = re.compile(r"(?:t|\s)\d{1,2}:\d\d.*")


def duration(text: str, bare: float = math.nan) -> float:
    """Seconds of "3:39", "1:02:03" or "3m 39sec", and of a number alone, which counts `bare` seconds; NaN otherwise."""
    text = text.strip().lower()
    if _BARE.fullmatch(text):
        return float(text) * bare or math.nan
    found = _CLOCK.fullmatch(text) or (_WORDED.fullmatch(text) if _SPELLED.search(text) else None)
    if found is None:
        return math.nan
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds or math.nan


def day(text: str, day_first: bool = False) -> float:
    """The number of a day, the first of year 1 being 1; NaN where a text is none.

    Args:
      text: with a named month or a year of four digits, or of two behind slashes or hyphens; 20140921 too.
      day_first: what 3/4/2001 means: the third of April, not the fourth of March.
    """
    text = _OF_DAY.sub("", text.strip().lower())
    if not any(form.fullmatch(text) for form in (_ISO, _NUMBERED, _NAMED)):
        return math.nan
    whole = bool(_ISO.fullmatch(text))
    full = text if whole else _SHORT.sub(lambda year: ("19" if year[0] >= "69" else "20") + year[0], text)
    try:
        return float(parser.parse(full, dayfirst=day_first and not whole).toordinal())
    except (ValueError, OverflowError):
        return math.nan


def kind(columns: Sequence[Sequence[str]]) -> Kind | None:
    """What columns that are one attribute hold, one a table: dates, durations, or neither.

    They are durations where every table has these or bare numbers alone, and one has them as such: a number among
    them has the unit of `bare`.
    """
    told = [_some(column) for column in columns]
    told = [column for column in told if column]
    if not told:
        return None
    if all(_share(column, _is_day) >= MOST for column in told):
        return "date"
    timed = [_share(column, _is_timed) for column in told]
    either = all(_share(column, lambda text: bool(_BARE.fullmatch(text)) or _is_timed(text)) >= MOST for column in told)
    return "duration" if either and max(timed) >= MOST else None


def bare(columns: Sequence[Sequence[str]]) -> list[float]:
    """Seconds of a number alone in each table's column: of `UNITS`, what brings it nearest to the others' durations."""
    timed = [math.log(value) for column in columns for text in _some(column) if (value := duration(text)) > 0]
    found = []
    for column in columns:
        numbers = [math.log(float(text)) for text in _some(column) if _BARE.fullmatch(text) and float(text) > 0]
        apart = np.median(timed) - np.median(numbers) if numbers and timed else 0.0
        found.append(min(UNITS, key=lambda unit: abs(apart - math.log(unit))))
    return found


def day_first(column: Sequence[str]) -> bool:
    """Whether numbered dates of a column begin with the day: one begins with more than 12, or points part them."""
    found = [match for text in _some(column) if (match := _NUMBERED.fullmatch(_OF_DAY.sub("", text)))]
    if any(int(match[3]) > 12 for match in found):
        return False
    return any(int(match[1]) > 12 or match[2] == "." for match in found)


def rows(places: Sequence[float]) -> sp.csr_matrix:
    """Places [n] on a line, in units of what tells them apart -> sparse rows [n, L] of unit length.

    The cosine of two rows is exp(-d^2 / 4) at a distance of d; a place that is NaN has an empty row.
    """
    place = np.asarray(places, np.float64)
    known = np.flatnonzero(np.isfinite(place))
    near = np.arange(-_REACH, _REACH + 1)
    bins = np.clip(np.rint(place[known]), -_LOWEST, _HIGHEST)[:, None].astype(int) + near
    weights = np.exp(-((place[known, None] - bins) ** 2) / 2)
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    shape = (len(place), _LOWEST + _HIGHEST + 2 * _REACH + 1)
    index = (np.repeat(known, len(near)), (bins + _LOWEST + _REACH).ravel())
    return sp.csr_matrix((weights.ravel(), index), shape=shape, dtype=np.float32)


def _some(column: Sequence[str]) -> list[str]:
    filled = [text.strip().lower() for text in column if text.strip()]
    return filled[:: max(1, len(filled) // SAMPLE)]


def _share(column: Sequence[str], test: Callable[[str], bool]) -> float:
    return float(np.mean([test(text) for text in column]))


def _is_day(text: str) -> bool:
    return math.isfinite(day(text)) or math.isfinite(day(text, True))


def _is_timed(text: str) -> bool:
    return math.isfinite(duration(text))
