"""Crawls: who is said in them, and what strangers' titles are made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax.data.records import InputError
from benchmarks import crawls as benchmark

TABLE = pd.DataFrame(
    {
        "id": [f"p{n}" for n in range(40)],
        "title": [f"a study of w{n % 7} and x{n % 11} in y{n % 5} systems" for n in range(40)],
        "year": [str(1980 + n) for n in range(40)],
    }
)


def test_of_the_table_a_part_is_said_once_or_more_and_gold_points_to_it() -> None:
    folder = benchmark.made(TABLE, benchmark.Setting(300, 0.5), seed=0)
    matches, crawl = folder.gold["matches"], folder.right
    assert len(crawl) == 300
    assert crawl["id"].is_unique
    assert matches["ltable_id"].nunique() == round(benchmark.SAID * 40)
    assert matches["rtable_id"].is_unique
    assert 1 < matches.groupby("ltable_id").size().max() <= benchmark.MOST
    rows = crawl.set_index("id").loc[matches["rtable_id"]]
    left = folder.left.set_index("id").loc[matches["ltable_id"]]
    common = [len(set(a.split()) & set(b.split())) for a, b in zip(left["title"], rows["title"], strict=True)]
    assert np.mean(common) > 3.5  # said in other words, yet the same title
    assert (benchmark.made(TABLE, benchmark.Setting(300, 0.5), 0).right == crawl).all(axis=None)
    assert not crawl.equals(benchmark.made(TABLE, benchmark.Setting(300, 0.5), 1).right)


@pytest.mark.parametrize("pieces", [0.0, 1.0])
def test_every_word_of_a_stranger_follows_what_it_follows_in_a_real_title(pieces: float) -> None:
    order = 1 + int(pieces)
    folder = benchmark.made(TABLE, benchmark.Setting(400, pieces), seed=0)
    strangers = folder.right[~folder.right["id"].isin(folder.gold["matches"]["rtable_id"])]
    assert len(strangers) > 200

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(zip(*(words[start:] for start in range(order + 1)), strict=False))

    real = set().union(*map(runs, TABLE["title"]))
    assert all(runs(text) <= real for text in strangers["title"])
    assert (strangers["title"].str.split().str.len() <= benchmark.LONGEST).all()
    assert not strangers["title"].isin(TABLE["title"]).any()


@pytest.mark.parametrize("text", ["", "12", "12:", "x:0.1", "0:0.1", "12:2", "12:nan"])
def test_a_setting_is_a_size_and_a_share(text: str) -> None:
    with pytest.raises(InputError, match="expected SIZE:SHARE"):
        benchmark.Setting.parse(text)
    assert benchmark.Setting.parse("12:0.5") == benchmark.Setting(12, 0.5)


def test_a_crawl_too_small_for_what_is_said_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--crawls=30:0.5: expected [0-9]+ records or more"):
        benchmark.made(TABLE, benchmark.Setting(30, 0.5), seed=0)


def test_titles_that_share_no_words_make_no_strangers() -> None:
    table = TABLE.assign(title=[f"one{n} two{n}" for n in range(40)])
    with pytest.raises(InputError, match="expected titles that share more words"):
        benchmark.made(table, benchmark.Setting(300, 1.0), seed=0)
