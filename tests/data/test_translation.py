"""Tables in two languages: made ones, whose words are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from aco_jax.data import records, translation

SIZE, WORDS = 300, 60


def languages(
    share: float = 1.0, forms: int = 1, size: int = SIZE, once: bool = False
) -> tuple[records.Dataset, dict[str, str]]:
    """Two tables of the same things, the second in words of its own, some of several `forms`; and what these mean.

    Every thing has a maker, whose name both say, the second with a word beside it, five words of sixty and, for a
    `share` of them, a number of its own. The first two words go together always, the third and fourth mostly. `once`
    adds to each a word that is said once.
    """
    rng = np.random.default_rng(0)
    words = [f"own{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(WORDS)]
    foreign = {word: [f"{'xyz'[n]}{word[3:]}" for n in range(forms)] for word in words}
    frames: dict[str, list[dict[str, str]]] = {"a": [], "b": []}
    for i in range(size):
        said = rng.choice(words[4:], 5, replace=False).tolist()
        maker = f"maker{'pqrs'[i % 4]}"
        called = "nick" if i % 8 == 3 else maker  # which is no other language
        firm = "" if i % 8 == 3 else f"firm{maker[-1]}"
        said += (
            words[:2] * (rng.random() < 0.3) + words[2:4] * (rng.random() < 0.3) + words[2:3] * (rng.random() < 0.05)
        )
        number = f"no-{1000 + i}" if rng.random() < share else ""
        spoken = [str(rng.choice(foreign[word])) for word in dict.fromkeys(said)]
        rare = "".join(chr(97 + int(digit)) for digit in str(i)) if once else ""
        frames["a"].append(
            {"id": f"a{i}", "title": f"{called} {' '.join(dict.fromkeys(said))} {rare}".title(), "code": number}
        )
        frames["b"].append(
            {
                "id": f"b{i}",
                "title": f"{' '.join(spoken)} {maker} {firm} {rare and rare + 'z'}",
                "code": number,
            }
        )
    meaning = {form: word for word, some in foreign.items() for form in some}
    return records.from_frames({name: pd.DataFrame(rows) for name, rows in frames.items()}), meaning


def right(found: translation.Words, meaning: translation.Words) -> float:
    """Share of the words that are rightly found, less those that are wrongly; two are always together and count not."""
    twins = ("ownaa", "ownab")
    known = {word: meant for word, meant in found.items() if meaning.get(word) not in twins}
    count = sum(meant not in twins for meant in meaning.values())
    return sum(1 if meaning.get(word) == meant else -1 for word, meant in known.items()) / count


@pytest.mark.parametrize(("share", "forms"), [(1.0, 1), (0.3, 1), (1.0, 2)])
def test_words_of_another_language_are_found(share: float, forms: int) -> None:
    """Also where few records have a number in common at first."""
    dataset, meaning = languages(share, forms)
    first, second = translation.learn(dataset)
    assert not first
    assert right(second, meaning) > 0.95


def test_what_is_found_finds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, meaning = languages(0.05)
    found = translation.learn(dataset)[1]
    monkeypatch.setattr(translation, "ROUNDS", 1)
    assert right(found, meaning) > right(translation.learn(dataset)[1], meaning) + 0.1


def test_a_word_that_is_said_once_stands_for_nothing() -> None:
    dataset, meaning = languages(size=1500, once=True)
    assert right(translation.learn(dataset)[1], meaning) == 1


def test_the_surest_are_linked_first_and_none_twice() -> None:
    """Of two groups; a word may have two forms where that is asked for."""
    group, word, other = np.array([0, 0, 0, 0, 1]), np.array([5, 5, 6, 6, 5]), np.array([1, 2, 1, 2, 1])
    score = np.array([3.0, 2.0, 9.0, 1.0, 0.5])
    assert sorted(translation._surest_first(group, word, other, score, 1)) == [1, 2, 4]
    assert sorted(translation._surest_first(group, word, other, -score, 1)) == [0, 3, 4]
    assert sorted(translation._surest_first(group, word, other, np.array([9.0, 8, 1, 1, 1]), 2)) == [0, 1, 4]


def test_a_word_stands_for_one_word_and_a_word_has_few_forms() -> None:
    dataset, _ = languages(forms=3)
    found = translation.learn(dataset)[1]
    assert max(pd.Series(list(found.values())).value_counts()) == translation.FORMS


def test_the_second_table_is_read_in_words_of_the_first() -> None:
    dataset, meaning = languages()
    read = translation.read(dataset, ({}, meaning))
    assert read.tables[0] is dataset.tables[0]
    assert read.fingerprint == dataset.fingerprint
    for (title, code), (own, same) in zip(read.tables[1].cells, dataset.tables[0].cells, strict=True):
        assert code == same
        assert {word for word in title.split() if word[:3] == "own"} == {
            word for word in own.lower().split() if word[:3] == "own"
        }


@pytest.mark.parametrize("text", ["", "no-1000", "1.299,00 kg"])
def test_nothing_else_of_a_text_is_touched(text: str) -> None:
    assert translation.put(text, {"owe": "x", "k": "y"}) == text


def test_tables_of_one_language_stay_as_they_are() -> None:
    """Among them a table in the language of the first, where another is in another."""
    dataset, _ = languages()
    one = dataclasses.replace(dataset.tables[0], name="c")
    alike = records.Dataset((dataset.tables[0], one))
    assert translation.learn(alike) == ({}, {})
    assert translation.read(alike, ({}, {})) is alike
    three = records.Dataset((dataset.tables[0], one, dataset.tables[1]))
    assert translation.learn(three) == ({}, {}, translation.learn(dataset)[1])


def test_a_table_that_says_more_is_no_other_language() -> None:
    """Of its words most are its own, but it has all of the other's."""
    dataset, _ = languages()
    first, second = dataset.tables
    cells = first.cells.copy()
    cells[:, 0] = [f"{mine} {theirs}" for mine, theirs in zip(first.cells[:, 0], second.cells[:, 0], strict=True)]
    more = [
        f"{' '.join(f'{word}{n}x' for word in text.split() for n in 'abc')} {' '.join(text.split()[::2])}"
        for text in cells[:, 0]
    ]
    cells[:, 0] = more
    longer = dataclasses.replace(second, cells=cells)
    assert translation.learn(records.Dataset((first, longer))) == ({}, {})


@pytest.mark.parametrize("said", ["", "1 2 3", "w"])
def test_where_nothing_tells_nothing_is_found(said: str) -> None:
    cells = {name: np.array([[said and said + name * 3], [""]], dtype=object) for name in ("a", "b")}
    tables = tuple(records.Table(name, ("1", "2"), ("t",), content) for name, content in cells.items())
    assert translation.learn(records.Dataset(tables)) == ({}, {})


def test_chance_is_one_in_ten_thousand() -> None:
    np.testing.assert_allclose(scipy.stats.chi2.sf(translation.CHANCE, 1), 1e-4, rtol=0.02)
