"""Tables in two languages: what words go together, beside scipy, and made tables whose words are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from aco_jax.data import records, translation

SIZE = 300


def languages(share: float = 1.0, forms: int = 1) -> tuple[records.Dataset, dict[str, str]]:
    """Two tables of the same things, the second in words of its own, some of several `forms`; and what these mean.

    Every thing has five words of forty and, for a `share` of them, a number of its own.
    """
    rng = np.random.default_rng(0)
    words = [f"own{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
    foreign = {word: [f"x{n}{word[3:]}".translate(str.maketrans("012", "abc")) for n in range(forms)] for word in words}
    frames: dict[str, list[dict[str, str]]] = {"a": [], "b": []}
    for i in range(SIZE):
        said = rng.choice(words, 5, replace=False).tolist()
        number = f"no-{1000 + i}" if rng.random() < share else ""
        spoken = [str(rng.choice(foreign[word])) for word in said]
        frames["a"].append({"id": f"a{i}", "title": " ".join(said).title(), "code": number})
        frames["b"].append({"id": f"b{i}", "title": " ".join(spoken), "code": number})
    meaning = {form: word for word, some in foreign.items() for form in some}
    return records.from_frames({name: pd.DataFrame(rows) for name, rows in frames.items()}), meaning


@pytest.mark.parametrize(("share", "forms"), [(1.0, 1), (0.4, 1), (1.0, 2)])
def test_words_of_another_language_are_found(share: float, forms: int) -> None:
    """Also where few records have a number in common at first."""
    dataset, meaning = languages(share, forms)
    first, second = translation.learn(dataset)
    assert not first
    assert second == meaning


def test_a_word_stands_for_one_word_and_a_word_has_few_forms() -> None:
    dataset, _ = languages(forms=3)
    found = translation.learn(dataset)[1]
    assert max(pd.Series(list(found.values())).value_counts()) == translation.FORMS


def test_the_second_table_is_read_in_words_of_the_first() -> None:
    dataset, meaning = languages()
    read = translation.read(dataset, ({}, meaning))
    assert read.tables[0] is dataset.tables[0]
    assert read.fingerprint == dataset.fingerprint
    assert read.tables[1].cells.tolist() == [[title.lower(), code] for title, code in dataset.tables[0].cells]


@pytest.mark.parametrize("text", ["", "no-1000", "1.299,00 kg"])
def test_nothing_else_of_a_text_is_touched(text: str) -> None:
    assert translation.put(text, {"owe": "x", "k": "y"}) == text


def test_tables_of_one_language_stay_as_they_are() -> None:
    """Among them a table in the language of the first, where another is in another."""
    dataset, meaning = languages()
    one = dataclasses.replace(dataset.tables[0], name="c")
    alike = records.Dataset((dataset.tables[0], one))
    assert translation.learn(alike) == ({}, {})
    assert translation.read(alike, ({}, {})) is alike
    three = records.Dataset((dataset.tables[0], one, dataset.tables[1]))
    assert translation.learn(three) == ({}, {}, meaning)


@pytest.mark.parametrize("said", ["", "1 2 3", "w"])
def test_where_nothing_tells_nothing_is_found(said: str) -> None:
    frames = {name: pd.DataFrame({"id": ["1", "2"], "t": [said and said + name * 3, ""]}) for name in ("a", "b")}
    assert translation.learn(records.from_frames(frames)) == ({}, {})


def test_the_likelihood_ratio_is_scipys() -> None:
    rng = np.random.default_rng(0)
    total, left, right = 50, rng.integers(1, 50, 60), rng.integers(1, 50, 60)
    both = rng.integers(np.maximum(0, left + right - total), np.minimum(left, right) + 1)
    found = translation.likelihood_ratio(both, left, right, total)
    for n, a, b, value in zip(both, left, right, found, strict=True):
        table = np.array([[n, a - n], [b - n, total - a - b + n]])
        expected = scipy.stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        np.testing.assert_allclose(value, expected if n * total > a * b else 0.0, atol=1e-9)
    assert (found > 0).any()
    np.testing.assert_allclose(scipy.stats.chi2.sf(translation.CHANCE, 1), 1e-4, rtol=0.02)
