"""What a run says while it runs: metrics.jsonl, TensorBoard events, and bars with the time left.

All of it is on the host. A step is written once: a run that goes on from a checkpoint first takes back
what was written after that checkpoint.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from tensorboardX import SummaryWriter
from tqdm import tqdm

from aco_jax import processes

FILE = "metrics.jsonl"
SOON = 2.0  # seconds
T = TypeVar("T")
Row = dict[str, Any]  # "step": int, and "stage/name": float, or None where it was not finite


def peak_memory() -> int:
    """The most bytes of memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MetricsWriter:
    """Appends one row a step to W/metrics.jsonl and W/events.*. Use as a context manager.

    Args:
      workdir: an existing folder.
      step: the step of the checkpoint that the run goes on from; rows after it, and a last line cut short,
        are taken back. -1 starts anew.
    """

    def __init__(self, workdir: Path, step: int = -1) -> None:
        self._path = Path(workdir) / FILE
        kept = [row for row in read_metrics(workdir) if row["step"] <= step]
        unfinished = self._path.with_name(f"{FILE}.tmp")
        unfinished.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")
        unfinished.replace(self._path)
        self._last = kept[-1]["step"] if kept else -1
        self._file = self._path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(workdir), purge_step=step + 1, write_to_disk=True)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One row. `metrics` maps "stage/name" to a scalar (Python, NumPy or jax). Steps must increase."""
        if step <= self._last:
            raise ValueError(f"step {step} after step {self._last}, expected a later one")
        self._last = step
        values = {name: float(value) for name, value in metrics.items()}
        row = {"step": step} | {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._events.close()


def writer(workdir: Path, step: int = -1) -> AbstractContextManager[MetricsWriter | None]:
    """A `MetricsWriter`, of several processes for the first one only."""
    return MetricsWriter(workdir, step) if processes.is_first() else nullcontext()


def read_metrics(workdir: Path) -> list[Row]:
    """The rows of W/metrics.jsonl in order; [] where there is none. Reading ends at a line cut short."""
    path = Path(workdir) / FILE
    rows: list[Row] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def bar(total: int, stage: str, unit: str = "step", done: int = 0, *, stays: bool = True) -> tqdm:
    """A progress bar with the time left, on stderr. Use as a context manager and call `.update()`.

    Where stderr is no terminal it is written every ten seconds only. One that does not stay is gone when it is over,
    and is not seen at all where that is soon.
    """
    return tqdm(
        total=total,
        initial=done,
        desc=f"{stage:<12}",
        unit=unit,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        file=sys.stderr,
        leave=stays,
        delay=0.0 if stays else SOON,
        disable=not processes.is_first(),
    )


def through(items: Sequence[T], stage: str, unit: str = "step") -> Iterator[T]:
    """The items one by one, beside a bar that is gone when they are."""
    with bar(len(items), stage, unit, stays=False) as shown:
        for item in items:
            yield item
            shown.update()
