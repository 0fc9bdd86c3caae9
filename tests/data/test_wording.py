"""Wording: one form of words in any script, and records of scripts without spaces that are found and compared."""

from __future__ import annotations

import pandas as pd
import pytest

from aco_jax.data import descriptions, evidence, listing, records, retrieval, wording


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Sony KDL-40V2500, 40''", "sony kdl-40v2500, 40''"),
        ("Größe Čapek Łódź ÆØ", "grosse capek lodz aeo"),
        ("Ёлка ΣΊΣΥΦΟΣ", "елка σισυφοσ"),
        ("\uff21\uff22\uff0d\uff11\uff12 ﾃﾚﾋﾞ", "ab-12 テレ レビ"),
        ("索尼电视KDL40液晶", "索尼 尼电 电视 kdl40 液晶"),
        ("电 64位", "电 64 位"),
        ("한국어 가격", "한국어 가격"),
        ("½ inch™ 5°", "½ inch™ 5°"),
    ],
)
def test_words_have_one_form_in_every_script(text: str, words: str) -> None:
    assert wording.plain(text).split() == words.split()


def test_what_is_plain_stays_so() -> None:
    once = wording.plain("Crème brûlée Straße 12")
    assert wording.plain(once) == once


def test_records_without_spaces_are_found_by_their_words_and_codes() -> None:
    """Each right record says two things of its partner in another order, in one run of signs."""
    left = ["索尼液晶电视KDL40V2500黑色", "佳能打印机墨盒CLI8Y黄色", "松下微波炉NNSD277白色"]
    right = ["黄色墨盒佳能CLI8Y", "白色NNSD277松下", "黑色电视索尼KDL40V2500"]
    frames = {name: pd.DataFrame({"id": ["1", "2", "3"], "名称": texts}) for name, texts in (("a", left), ("b", right))}
    dataset = records.from_frames(frames)
    index = descriptions.fit(dataset)
    assert [codes[0] for codes in index.records.codes[:3]] == ["kdl40v2500", "cli8y", "nnsd277"]
    lexical = retrieval.fit_lexical(dataset)
    assert retrieval.search(lexical, left, 1, 1)[0][:, 0].tolist() == [5, 3, 4]
    lists = retrieval.candidates(dataset, [index.records.text, index.records.title], k=3, depth=3)
    problem = listing.prepare(dataset, index, lists)
    best = problem.record[range(3), problem.score[:3].argmax(axis=1)]
    assert best.tolist() == [5, 3, 4]
    within = problem.facts[:, evidence.FACTS.index("title within other")]
    same = {(0, 5), (1, 3), (2, 4)}
    assert {tuple(pair) for pair in problem.pair[within > 0].tolist()} == same
