"""A run of a few numbers that any number of processes learn, each round saved: what tests/test_processes.py starts."""

from __future__ import annotations

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import launch
from aco_jax import checkpoints, processes, progress, replicas

REPLICAS, ROUNDS, STEPS = 4, 3, 2


def step(state: chex.ArrayTree, batch: chex.Array, tables: chex.Array) -> tuple[chex.ArrayTree, chex.ArrayTree]:
    key, draw = jax.random.split(state["key"])
    moved = state["mean"] + batch * tables + jax.random.normal(draw, tables.shape)
    return {"mean": moved, "own": state["own"] + moved, "key": key}, {"toy/moved": moved.mean()}


def merge(state: chex.ArrayTree) -> chex.ArrayTree:
    return state | {"mean": jax.lax.pmean(state["mean"], replicas.EVERY)}


def drawn(number: int) -> np.ndarray:
    """The numbers of a round, each process having drawn a part of them, and of one more row than parts evenly."""
    rows, parts = REPLICAS * STEPS + 1, jax.process_count()

    def part(index: np.ndarray) -> np.ndarray:
        assert len(index) == -(-rows // parts)
        return np.stack([np.random.default_rng([number, i]).random(3, np.float32) for i in index.tolist()])

    return processes.by_parts(part, rows)[:-1].reshape(REPLICAS, STEPS, 3)


def learn(folder: Path, failing_after: int | None = None) -> None:
    """All rounds that `folder` does not hold yet; process 1 fails after one of them, if it is said."""
    mesh = replicas.make_mesh(REPLICAS)
    zeros = jnp.zeros((REPLICAS, 3))
    state = {"mean": zeros, "own": zeros, "key": jax.random.split(jax.random.key(0), REPLICAS)}
    found = checkpoints.restore(folder / "checkpoints", state)
    done, state, _ = found if found else (-1, state, None)
    state, advance = replicas.place(state, mesh), replicas.make_round(step, merge, mesh)
    tables = replicas.place(jnp.arange(3.0), mesh, None)
    with progress.writer(folder, done) as writer, progress.bar(ROUNDS, "sharing", done=done + 1) as bar:
        for number in range(done + 1, ROUNDS):
            state, metrics = advance(state, replicas.place(drawn(number), mesh), tables)
            checkpoints.save(folder / "checkpoints", number, state)
            if writer is not None:
                writer.write(number, metrics)
            bar.update()
            if number == failing_after and not processes.is_first():
                raise RuntimeError(f"failed after round {number}")
    print("silent" if writer is None else "written")


def main() -> None:
    launch.join()
    folder = Path(flags.FLAGS.folder)
    with processes.in_turn("folder"):
        if not folder.is_dir():
            assert processes.is_first(), "the first process has not made it yet"
            folder.mkdir()
    learn(folder, flags.FLAGS.failing_after)


if __name__ == "__main__":
    flags.DEFINE_string("folder", None, "where all of it is written", required=True)
    flags.DEFINE_integer("failing_after", None, "round after which the second process fails")
    launch.define_processes()
    launch.run(main)
