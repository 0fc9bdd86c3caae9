"""Several processes that learn one run, each on devices of its own, as the hosts of a TPU pod are.

All of them read the same tables, believe the same and draw the same random numbers; what a round's anchors are asked
and answered each does for a part of them (`by_parts`), and the replicas lie on the devices of all, so that a merge goes
over the network. The first process alone writes and is seen. Where one of them ends, the others do too, and the same
commands go on from the last checkpoint.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import chex
import jax
import numpy as np
from jax.experimental import multihost_utils

PATIENCE = 24 * 3600  # seconds that the others wait at the end, while the first relates

Found = TypeVar("Found", bound=chex.ArrayTree)


def join(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Makes this one of `count` processes, before jax has looked for devices; blocks until all are there.

    Raises RuntimeError where jax has, and where the others do not come within five minutes jax ends the process.

    Args:
        coordinator: HOST:PORT where process 0 listens. None where the cluster knows, `count` and `index` too.
    """
    jax.distributed.initialize(coordinator, count, index, shutdown_timeout_seconds=PATIENCE)


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Where one of several processes fails it ends at once, with its exit code.

    Else it would wait at its end for the others, who wait for it in a merge.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        code = error.code if isinstance(error, SystemExit) else traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def is_first() -> bool:
    """Whether this process writes and shows; a lone one does."""
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Waits until all processes are here. Raises AssertionError where they are at different places."""
    multihost_utils.sync_global_devices(place)


@contextmanager
def in_turn(place: str) -> Iterator[None]:
    """What the first process does before the others do the same, who then find what it wrote."""
    if not is_first():
        meet(place)
    yield
    if is_first():
        meet(place)


def whole(x: chex.Array) -> chex.Array:
    """An array whose shards lie with several processes as each of them can read it; all must ask."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return x


def by_parts(work: Callable[[np.ndarray], Found], count: int, together: bool = True) -> Found:
    """What `work` makes of rows 0 .. count - 1, leaves [count, ..], each process having done a part.

    Args:
        work: rows [n] int -> arrays, leaves [n, ..], the same whatever other rows it is asked about.
        together: whether all processes ask; else this one does all of it.
    """
    parts = jax.process_count() if together else 1
    if parts == 1:
        return work(np.arange(count))
    each = -(-count // parts)
    # The parts must be equally long: the last row is done again where they are not.
    mine = np.minimum(jax.process_index() * each + np.arange(each), count - 1)
    found = multihost_utils.process_allgather(work(mine), tiled=True)
    return jax.tree.map(lambda x: x[:count], found)
