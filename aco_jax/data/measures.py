"""Quantities that a text states, in base units, so that 24 cm and 240 mm are one.

A wording that may mean two things gives both readings ("250 G" is grams or gigabytes): which one is meant is told by
what other records of the kind state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

TOLERANCE = 0.03  # of the natural logarithm: two values nearer than this are the same, rounding and conversion included

Quantity = tuple[str, float]  # dimension, natural logarithm of the value in base units

_UNITS = """
length: mm 0.001; cm 0.01; m metre metres meter meters 1; km 1000; inch inches in " 0.0254; ft foot feet 0.3048
volume: ml 0.001; cl 0.01; l litre litres liter liters ltr 1; gal gallon gallons 3.7854; floz 0.029574
mass: g gr gram grams 0.001; kg kilogram kilograms 1; lb lbs pound pounds 0.45359; oz ounce ounces 0.02835
data: kb 1e-6; mb 0.001; gb gigabyte gigabytes g 1; tb terabyte terabytes 1000
voltage: v volt volts vdc 1; mv 0.001; kv 1000
power: w watt watts 1; kw kilowatt kilowatts 1000; hp 745.7
charge: mah 0.001; ah 1
time: s sec second seconds 1; min minute minutes 60; h hr hrs hour hours 3600; day days 86400; year years 3.156e7
frequency: hz 1; khz 1e3; mhz 1e6; ghz 1e9
persons: person persons people man men 1
sheets: sheet sheets page pages leaf leaves 1
pieces: piece pieces pc pcs pack packs 1
"""


def _readings() -> dict[str, list[tuple[str, float]]]:
    """unit as written -> (dimension, factor to the base unit) of each thing it may mean."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in _UNITS.strip().split("\n"):
        dimension, _, units = line.partition(":")
        for group in units.split(";"):
            *names, factor = group.split()
            for name in names:
                found.setdefault(name, []).append((dimension, float(factor)))
    return found


_READINGS = _readings()
_QUANTITY = re.compile(r'(?<![\w./-])(\d+(?:[.,]\d+)*)[ -]?(fl oz|v dc|[a-z]+\b|")')


def quantities(text: str) -> frozenset[Quantity]:
    """Everything of the form "32 cm", "2-person" or "19V" in a lower-case text, in all its readings."""
    found = set()
    for number, unit in _QUANTITY.findall(text):
        value = _number(number)
        for dimension, factor in _READINGS.get(unit.replace(" ", ""), ()):
            if value > 0:
                found.add((dimension, math.log(value * factor)))
    return frozenset(found)


def stated(row: Mapping[str, str]) -> str:
    """All that a row (column -> text) says, lower case; a bare number has the unit that its column's name ends with."""
    said = []
    for name, cell in row.items():
        unit = re.split(r"[\W_]+", name.lower())[-1]
        bare = unit in _READINGS and re.fullmatch(r"[\d.,]+", cell) is not None
        said.append(f"{cell} {unit}" if bare else cell)
    return " ; ".join(said).lower()


def _number(text: str) -> float:
    """1,500 and 1.5 and 1,5; a comma before three digits parts thousands."""
    plain = re.sub(r",(?=\d{3}(\D|$))", "", text).replace(",", ".")
    return float(plain) if plain.count(".") <= 1 else 0.0
