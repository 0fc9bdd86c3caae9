"""What is read by each policy, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import reading_frontier as benchmark


@pytest.mark.slow
def test_who_reads_further_reads_more(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "THRESHOLDS", (0.0, 1.0))  # all and nothing
    found = benchmark.frontier(finished, tmp_path, "valid")
    reaches = [f"fixed, {reach} bins" for reach in (1, 2, 3)]
    assert list(found) == ["actor", "fixed", *reaches, "fixed, everything", "best threshold"]
    assert found["best threshold"]["f1"] > 0  # all, for nothing is never right
    read = [found[name]["tokens"] for name in list(found)[1:-1]]
    assert read == sorted(read)
    assert read[0] == 0 < read[-1]
    assert all((point["candidates"] > 0) == (point["tokens"] > 0) for point in found.values())
    assert all(0 <= point["f1"] <= 1 for point in found.values())


def test_a_line_has_the_spread_of_the_runs() -> None:
    points = [{"f1": f1, "tokens": tokens, "candidates": 2.0} for f1, tokens in ((0.9, 10.0), (0.92, 30.0))]
    said = benchmark.line("shops", "actor", points)
    assert said.split() == ["shops", "actor", "91.0", "±", "1.4", "20", "2"]
