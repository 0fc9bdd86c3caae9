"""Quantities: units, conversions, what is none."""

from __future__ import annotations

import math

import pytest

from aco_jax.data import measures


def near(text, dimension, value):
    found = [math.exp(size) for of, size in measures.quantities(text) if of == dimension]
    return any(math.isclose(size, value, rel_tol=measures.TOLERANCE) for size in found)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("pan 24 cm, non-stick", "length", 0.24),
        ("pan 240mm", "length", 0.24),
        ('tv 32" led', "length", 0.8128),
        ("hose 49.2 feet", "length", 15),
        ("drive 0.25 tb", "data", 250),
        ("drive 250 g", "data", 250),
        ("flour 250 g", "mass", 0.25),
        ("2-man tent", "persons", 2),
        ("kettle 51 fl oz", "volume", 1.5),
        ("14.4v dc drill", "voltage", 14.4),
        ("1,500 ml jug", "volume", 1.5),
        ("0,75 l jug", "volume", 0.75),
    ],
)
def test_wordings_of_a_quantity(text, dimension, value):
    assert near(text, dimension, value)


@pytest.mark.parametrize("text", ["dav-98222bf", "1/2 in", "series 7 tent", "a100 cm", "0 cm", "1.2.3 cm", ""])
def test_what_is_no_quantity(text):
    assert not measures.quantities(text)


def test_a_bare_number_has_the_unit_of_its_column():
    said = measures.stated(
        {"max_memory_gb": "128", "weight (kg)": "2.5", "name": "X 3", "price": "9.99", "note": "5 cm"}
    )
    assert near(said, "data", 128)
    assert near(said, "length", 0.05)
    assert near(measures.stated({"weight_kg": "2.5"}), "mass", 2.5)
    assert len(measures.quantities(said)) <= 4
