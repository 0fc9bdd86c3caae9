"""No step twice, whatever was interrupted; time left on stderr."""

from __future__ import annotations

import json
import math
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from aco_jax import progress


def read_events(workdir):
    """(step, tag, value) of every scalar, and the steps at which earlier events were purged."""
    scalars, purged = [], []
    for path in sorted(workdir.glob("events.*")):
        content, start = path.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack("<Q", content[start : start + 8])
            event = Event.FromString(content[start + 12 : start + 12 + length])
            start += 16 + length
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            if event.HasField("session_log"):
                purged.append(event.step)
    return scalars, purged


def test_rows_and_events(tmp_path):
    with progress.MetricsWriter(tmp_path) as writer:
        writer.write(0, {"base/loss": jnp.array(2.5), "critic/td_error": np.float32(0.5)})
        writer.write(3, {"base/loss": 1})
    rows = [{"step": 0, "base/loss": 2.5, "critic/td_error": 0.5}, {"step": 3, "base/loss": 1.0}]
    assert progress.read_metrics(tmp_path) == rows
    scalars, _ = read_events(tmp_path)
    assert scalars == [(0, "base/loss", 2.5), (0, "critic/td_error", 0.5), (3, "base/loss", 1.0)]


def test_going_on_takes_back_what_came_after_the_checkpoint(tmp_path):
    with progress.MetricsWriter(tmp_path) as writer:
        for step in range(6):
            writer.write(step, {"base/loss": step})
    with progress.MetricsWriter(tmp_path, step=3) as writer:
        for step in range(4, 8):
            writer.write(step, {"base/loss": 10 * step})
    losses = {row["step"]: row["base/loss"] for row in progress.read_metrics(tmp_path)}
    assert losses == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60, 7: 70}
    assert len(progress.read_metrics(tmp_path)) == 8
    assert read_events(tmp_path)[1][-1] == 4


def test_a_line_cut_short_is_taken_back(tmp_path):
    with progress.MetricsWriter(tmp_path) as writer:
        writer.write(0, {"base/loss": 1})
    with (tmp_path / progress.FILE).open("a") as file:
        file.write('{"step": 1, "base/lo')
    with progress.MetricsWriter(tmp_path, step=1) as writer:
        writer.write(2, {"base/loss": 3})
    assert [row["step"] for row in progress.read_metrics(tmp_path)] == [0, 2]


def test_a_new_run_starts_anew(tmp_path):
    for _ in range(2):
        with progress.MetricsWriter(tmp_path) as writer:
            writer.write(0, {"base/loss": 1})
    assert len(progress.read_metrics(tmp_path)) == 1


def test_what_is_not_finite_is_still_json(tmp_path):
    with progress.MetricsWriter(tmp_path) as writer:
        writer.write(0, {"base/loss": math.nan, "base/norm": jnp.inf})
    (line,) = (tmp_path / progress.FILE).read_text().splitlines()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 0,
        "base/loss": None,
        "base/norm": None,
    }


def test_a_step_twice_is_an_error(tmp_path):
    with progress.MetricsWriter(tmp_path) as writer:
        writer.write(5, {"base/loss": 1})
        with pytest.raises(ValueError, match="step 5 after step 5"):
            writer.write(5, {"base/loss": 1})


def test_the_bar_tells_the_time_left(capsys):
    with progress.bar(4, "learn", "round", done=1) as bar:
        bar.update()
        bar.refresh()
    err = capsys.readouterr().err
    assert "learn" in err
    assert "2/4" in err
    assert "<" in err  # elapsed<left


def test_items_are_counted_as_they_go_by(capsys, monkeypatch):
    assert list(progress.through(range(3), "read")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # it was soon over
    monkeypatch.setattr(progress, "SOON", 0.0)
    for item in progress.through(["a", "b", "c"], "read", "letter"):
        if item == "c":
            break
    err = capsys.readouterr().err
    assert "read" in err
    assert "letter" in err
