"""Few partners: how many are left, and what a line says."""

from __future__ import annotations

from typing import Any

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


def test_a_line_has_the_spread_of_the_runs() -> None:
    def scores(f1: float) -> dict[str, Any]:
        other = {method: {"catalogue": {"f1": f1 / 2}} for method in ("mutual best", "one-to-one")}
        found = {"precision": 0.8, "recall": 0.9, "f1": f1}
        return {"catalogue": found, "label_free": {"catalogue": {"f1": f1 + 0.02}}, "baselines": other}

    said = benchmark.line(benchmark.Setting(120, 0.25, 0.5), [scores(0.84), scores(0.86)])
    assert said.split() == ["120-25%-0.5", "80.0", "90.0", "85.0", "±", "1.4", "87.0", "42.5", "42.5"]
