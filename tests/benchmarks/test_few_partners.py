"""Few partners: how many are left."""

from __future__ import annotations

from benchmarks import few_partners as benchmark


def test_of_the_small_shop_a_share_keeps_its_partners() -> None:
    setting = benchmark.Setting(120, 0.25, 0.5)
    folder = benchmark.made(setting, seed=0, large=400)
    matches = folder.gold["matches"]
    assert len(folder.left) == 120
    assert set(matches["ltable_id"]) <= set(folder.left["id"])
    assert set(matches["rtable_id"]) <= set(folder.right["id"])
    assert 0.2 < matches["ltable_id"].nunique() / 120 < 0.3
    assert len(folder.right) > 250  # strangers stay
    assert (benchmark.made(setting, 0, 400).right == folder.right).all(axis=None)
    assert len(benchmark.made(benchmark.Setting(120, 1.0, 0.5), 0, 400).right) == 400
