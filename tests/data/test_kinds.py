"""Kinds, sizes and what goes together, on tables small enough to see through."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import catalogue, kinds, measures, records

WORDS = {
    "pan": ("frying pan with riveted handle", 40),
    "lid": ("glass cover with steam vent", 12),
    "tent": ("dome shelter with mosquito net", 150),
}
SIZES = {"pan": ("20 cm", "24 cm", "28 cm"), "lid": ("20 cm", "24 cm", "28 cm"), "tent": ("2 person", "3 person")}


def table(names):
    rows = [
        (f"{name} {SIZES[name][n % len(SIZES[name])]} {WORDS[name][0]}", WORDS[name][1] + 0.37 + n % 3)
        for name, n in product(names, range(6))
    ]
    frame = pd.DataFrame(rows, columns=["title", "price"]).astype(str)
    frame.insert(0, "id", [str(n) for n in range(len(frame))])
    return frame


@pytest.fixture(scope="module")
def shop():
    """Two shops of six pans, six lids and six tents each; kinds as they are."""
    names = list(WORDS)
    dataset = records.from_frames({"a": table(names), "b": table(names)})
    return dataset, np.array([name for _ in range(2) for name in names for _ in range(6)])


def fitted(dataset):
    return kinds.fit(dataset, np.zeros((0, 2), int))


def test_kinds_sizes_and_what_goes_together(shop):
    dataset, names = shop
    found = fitted(dataset)
    assert all((found.kind[i] == found.kind[j]) == (names[i] == names[j]) for i, j in product(range(36), repeat=2))
    number = {name: int(found.kind[np.flatnonzero(names == name)[0]]) for name in WORDS}
    assert {(a, b) for a, b in product(WORDS, repeat=2) if found.fits[number[a], number[b]]} == {
        ("pan", "lid"),
        ("lid", "pan"),
    }
    np.testing.assert_allclose(found.share, 1 / 3)
    for name, count in (("pan", 3), ("lid", 3), ("tent", 2)):
        np.testing.assert_allclose(np.sort(found.sizes[number[name]])[-count:], 1 / count)
        assert np.count_nonzero(found.sizes[number[name]]) == count
    np.testing.assert_allclose(np.exp(found.size[:2]), [0.20, 0.24], rtol=1e-6)


def test_agreement_of_pairs(shop):
    dataset, _ = shop
    left, right = np.array([0, 0, 0, 0]), np.array([18, 19, 24, 30])  # a pan with pans 20, 24, a lid 20, a tent
    found = np.array(kinds.agreement(fitted(dataset), left, right))
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0]])


def test_partners_are_those_of_one_size_in_other_tables(shop):
    dataset, _ = shop
    found = fitted(dataset)
    pairs = {tuple(pair) for pair in kinds.partners(dataset, found, 10).tolist()}
    assert pairs == {(a, b) for a, b in product(range(18), range(18, 36)) if found.level[a] == found.level[b]}
    few = kinds.partners(dataset, found, 1)
    assert len(few) < len(pairs)
    assert set(few.ravel().tolist()) == set(range(36))  # nobody is left out


def test_without_words_or_sizes_nothing_is_known():
    frame = pd.DataFrame({"id": list("012"), "n": ["1", "2", "3"]})
    dataset = records.from_frames({"a": frame, "b": frame})
    found = fitted(dataset)
    assert (found.kind == kinds.NOBODY).all()
    assert len(kinds.partners(dataset, found, 4)) == 0
    assert not np.array(kinds.agreement(found, np.array([0]), np.array([3]))).any()


def test_near_sizes_do_not_make_a_row_of_sizes_one():
    """Weights a hundredth apart, from 1 to 7 kg: what is called one size differs by no more than rounding does."""
    weight = np.exp(np.linspace(0, 2, 200))
    frame = pd.DataFrame({"t": [f"iron dumbbell {kilo:.3f} kg" for kilo in weight] + ["wool blanket"] * 200})
    frame.insert(0, "id", [str(n) for n in range(400)])
    found = fitted(records.from_frames({"a": frame[::2], "b": frame[1::2]}))
    for level in range(found.level.max() + 1):
        assert np.ptp(found.size[found.level == level]) <= measures.TOLERANCE
    assert found.level.max() + 1 == pytest.approx(2 / measures.TOLERANCE, rel=0.2)


def test_same_records_bring_the_words_of_two_tables_together():
    """One shop's word for a kind is another's for nothing: only the same records tell that they are one."""
    ours = pd.DataFrame({"id": [str(n) for n in range(8)], "t": ["sofa seat"] * 4 + ["bulb light"] * 4})
    theirs = pd.DataFrame({"id": [str(n) for n in range(8)], "t": ["couch settee"] * 4 + ["lamp lantern"] * 4})
    dataset = records.from_frames({"a": ours, "b": theirs})
    apart, same = fitted(dataset), np.array([[n, n + 8] for n in range(8)])
    assert len(set(apart.kind.tolist())) == 4
    joined = kinds.fit(dataset, same)
    assert len(set(joined.kind.tolist())) == 2
    assert (joined.kind[:8] == joined.kind[8:]).all()


def test_made_up_shops_are_parted_by_kind():
    generated = catalogue.generate(0, shops=2, size=200, difficulty=0.2)
    found = fitted(generated.dataset)
    related = [match for match in generated.matches if match[2] == "substitute"]
    left, right = np.array([match[:2] for match in related]).T
    one, _, sized, equal = kinds.agreement(found, left, right)
    assert (one & sized & equal).mean() > 0.9


def test_partners_are_counted_without_being_looked_for(shop):
    """As many as there are pairs, of pans, lids and tents, and of pans with lids."""
    dataset, names = shop
    found = fitted(dataset)
    pairs = kinds.partners(dataset, found, 100)
    same = sum(names[a] == names[b] for a, b in pairs.tolist())
    assert kinds.count_partners(found, dataset.table_of) == (same, len(pairs) - same)
    thirds = np.arange(36) % 3  # tables are another matter than kinds
    apart = [(a, b) for a, b in product(range(36), repeat=2) if a < b and thirds[a] != thirds[b]]
    left, right = np.array(apart).T
    one, together, _, equal = kinds.agreement(found, left, right)
    assert kinds.count_partners(found, thirds) == ((one & equal).sum(), (together & equal).sum())
