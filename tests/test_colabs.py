"""Every notebook runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

COLABS = sorted((Path(__file__).parents[1] / "colabs").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", COLABS, ids=lambda path: path.stem)
def test_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(path.parents[1])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    assert not any(cell.get("outputs") for cell in cells), "outputs are not committed"
    with jax.numpy_rank_promotion("allow"):
        for cell in (cell for cell in cells if cell["cell_type"] == "code"):
            exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
    assert names["rows"] is not None
