"""The replay at its full size: are the draws right, does nothing get lost, and what does a step cost?

    python experiments/benchmarks/replay.py --out=runs/benchmarks [--slots=20] [--draws=10000000] [--repeats=300]

Shows, for 2^slots slots in float32: a chi-square of the draws against the priorities with a fifth of the slots empty;
how many slots can still be drawn after priorities of lognormal(0, 3) have all shrunk to 0.001, beside a sum tree that
adds differences; and the time of sampling and updating 256 items, interleaved with flashbax's prioritised buffer where
that is installed (`pip install --no-deps flashbax`). Schaul et al. 2016, Prioritized Experience Replay, appendix B.2.1.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import cells
import launch
from aco_jax import replay, report, svg

BATCH = 256
SEEDS = (0, 1, 2)


def main() -> None:
    out, slots = Path(flags.FLAGS.out), 1 << flags.FLAGS.slots
    draws, repeats = flags.FLAGS.draws, flags.FLAGS.repeats
    name = f"replay-{flags.FLAGS.slots}"
    print(f"{'seed':<6}{'draws':>12}{'of empty slots':>16}{'chi-square':>14}{'cells':>10}{'p':>10}")
    for seed in SEEDS:
        fit = cells.kept(out / f"{name}-draws-{draws}-{seed}.json", functools.partial(goodness, seed, slots, draws))
        print(
            f"{seed:<6}{fit['draws']:>12}{fit['empty']:>16}{fit['statistic']:>14.0f}{fit['cells']:>10}{fit['p']:>10.4f}"
        )
    lost = cells.kept(out / f"{name}-shrink.json", functools.partial(shrink, 0, slots))
    print(f"\n{'after shrinking':<34}{'root / true sum':>18}{'slots out of reach':>20}{'draws misplaced':>17}")
    for tree, row in lost.items():
        print(f"{tree:<34}{row['root']:>18.6f}{row['unreachable']:>20}{row['misplaced']:>17.6f}")
    spent = cells.kept(out / f"{name}-seconds-{repeats}.json", functools.partial(seconds, slots, repeats))
    print(f"\n{'sample and update, batch 256':<34}{'median, us':>12}{'5%':>10}{'95%':>10}{'to flashbax':>14}")
    theirs = spent.get("flashbax")
    for method, row in spent.items():
        ratio = f"{row['median'] / theirs['median']:.2f}" if theirs else "not installed"
        print(f"{method:<34}{row['median']:>12.1f}{row['low']:>10.1f}{row['high']:>10.1f}{ratio:>14}")
    report.write_study(
        out / f"{name}.html",
        "Prioritised replay",
        f"{slots} slots; microseconds of sampling and updating {BATCH} items, medians of {repeats} interleaved calls.",
        {"Time of a step": svg.bars({method: row["median"] for method, row in spent.items()}, "us")},
    )


def filled(slots: int, priority: np.ndarray, exponent: float = 1.0) -> replay.State:
    """A replay whose first items have the absolute TD errors `priority`; the slots after them are empty."""
    count = len(priority)
    items = dataclasses.replace(replay.init(count, 1).items, s_tm1=jnp.arange(count, dtype=jnp.int32))
    state = replay.init(slots, 1, exponent, offset=1e-9)
    raw = jnp.zeros((count, 1), jnp.float32)
    state = jax.jit(replay.add, donate_argnums=0)(state, items, raw, raw, jnp.ones(count, bool))
    return _update(state, jnp.arange(count), jnp.asarray(priority, jnp.float32), jnp.ones(count, bool))


def goodness(seed: int, slots: int, draws: int) -> dict[str, float]:
    """Chi-square of independent draws against lognormal(0, 3) priorities; slots pooled to at least 5 expected."""
    rng = np.random.default_rng(seed)
    state = filled(slots, rng.lognormal(0, 3, slots - slots // 5))
    mass = leaves(state).astype(np.float64)
    # Strata make draws more even than chance; independent ones are batches of one.
    draw = jax.jit(jax.vmap(_one_draw, (None, 0, None)))
    shards, observed, at_once = replay.exchange(state), np.zeros(slots, np.int64), 1 << 17
    for start in range(0, draws, at_once):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), start), at_once)[: draws - start]
        observed += np.bincount(np.asarray(draw(state, keys, shards)), minlength=slots)
    seen, expected = pooled(observed, mass / mass.sum() * draws)
    test = stats.chisquare(seen, expected)
    return {
        "draws": draws,
        "empty": int(observed[mass == 0].sum()),
        "statistic": float(test.statistic),
        "cells": len(seen),
        "p": float(test.pvalue),
    }


def pooled(observed: np.ndarray, expected: np.ndarray, least: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Slots in the order of their expected counts, joined until each cell expects at least `least`."""
    order = np.argsort(expected, kind="stable")
    order = order[expected[order] > 0]
    total = np.cumsum(expected[order])
    large = int(np.searchsorted(expected[order], least))  # from here on each slot is a cell of its own
    whole = max(int(total[large - 1] // (2 * least)), 1) if large else 0
    bounds = np.searchsorted(total[:large], np.arange(whole) * 2 * least) if large else np.zeros(0, int)
    starts = np.unique(np.concatenate([bounds, np.arange(large, len(order))])).astype(int)
    return np.add.reduceat(observed[order], starts), np.add.reduceat(expected[order], starts)


def shrink(seed: int, slots: int) -> dict[str, dict[str, float]]:
    """All priorities shrink to 0.001, some at a time: what each tree holds and can still draw."""
    rng = np.random.default_rng(seed)
    priority = rng.lognormal(0, 3, slots).astype(np.float32)
    state = filled(slots, priority)
    naive = jnp.copy(state.tree)
    small, ones = jnp.full(min(4096, slots), 1e-3), jnp.ones(min(4096, slots), bool)
    add_differences = jax.jit(_add_differences, donate_argnums=0)
    for part in jnp.asarray(rng.permutation(slots).reshape(-1, min(4096, slots))):
        naive = add_differences(naive, part, small)
        state = _update(state, part, small, ones)
    return {
        "each ancestor from its children": held(state.tree),
        "differences added to the ancestors": held(naive),
    }


def held(tree: jax.Array) -> dict[str, float]:
    """The root beside the leaves' true sum, and the slots that no draw below the root's mass falls on.

    A slot is out of reach where on its way down a left child's sum hides it: the sum below it as the tree has it,
    which draws are compared with, leaves no interval of its own.
    """
    tree64 = np.asarray(tree, np.float64)
    half = len(tree64) // 2
    low, high = np.zeros(1), np.array([tree64[1]])  # masses that enter each node of a level
    while len(low) < half:
        left = np.asarray(tree64[2 * len(low) : 4 * len(low) : 2])
        cut = np.clip(left, 0.0, None)
        low, high = (
            np.stack([low, np.maximum(low - cut, 0.0)], axis=1).ravel(),
            np.stack([np.minimum(high, cut), high - cut], axis=1).ravel(),
        )
    lost = (high <= low) & (tree64[half:] > 0)
    drawn, true = np.maximum(high - low, 0.0) / tree64[1], tree64[half:] / tree64[half:].sum()
    return {
        "root": float(tree64[1] / tree64[half:].sum()),
        "unreachable": int(lost.sum()),
        "misplaced": float(np.maximum(true - drawn, 0.0).sum()),
    }


def seconds(slots: int, repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds of one jitted, donated call that samples 256 items and sets their priorities; calls interleaved."""
    rng = np.random.default_rng(0)
    priority = rng.lognormal(0, 1, slots)
    state = filled(slots, priority, exponent=0.6)
    methods = {"aco_jax": _ours(state)}
    if importlib.util.find_spec("flashbax"):
        methods["flashbax"] = _flashbax(slots, priority)
    taken: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats + 20):
        key, error = jax.random.key(turn), jnp.asarray(rng.lognormal(0, 1, BATCH), jnp.float32)
        for name, call in methods.items():
            start = time.perf_counter()
            call(key, error)
            if turn >= 20:
                taken[name].append(1e6 * (time.perf_counter() - start))
    return {
        name: {
            "median": statistics.median(each),
            "low": float(np.quantile(each, 0.05)),
            "high": float(np.quantile(each, 0.95)),
        }
        for name, each in taken.items()
    }


def leaves(state: replay.State) -> np.ndarray:
    return np.asarray(state.tree[state.tree.shape[0] // 2 :][: state.capacity])


_update = jax.jit(replay.set_priorities, donate_argnums=0)


def _one_draw(state: replay.State, key: jax.Array, shards: replay.Shards) -> jax.Array:
    return replay.sample(state, key, 1, 0.5, shards)[1][0]


def _add_differences(tree: jax.Array, slot: jax.Array, value: jax.Array) -> jax.Array:
    """The usual sum tree: the change of a leaf is added to all of its ancestors."""
    node = tree.shape[0] // 2 + slot
    change = value - tree[node]
    for _ in range(tree.shape[0].bit_length() - 1):
        tree = tree.at[node].add(change)
        node = node // 2
    return tree


def _ours(state: replay.State) -> Any:
    held = {"state": jax.tree.map(jnp.copy, state), "shards": replay.exchange(state)}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: replay.State, key: jax.Array, error: jax.Array, shards: replay.Shards) -> Any:
        items, indices, weights = replay.sample(state, key, BATCH, 0.5, shards)
        return replay.set_priorities(state, indices, error, weights > 0), (items, weights)

    def call(key: jax.Array, error: jax.Array) -> None:
        held["state"], _ = jax.block_until_ready(step(held["state"], key, error, held["shards"]))

    return call


def _flashbax(slots: int, priority: np.ndarray) -> Any:
    """The same items, priorities and weights from flashbax, on the setting for this backend."""
    flashbax = importlib.import_module("flashbax")
    buffer = flashbax.make_prioritised_trajectory_buffer(
        add_batch_size=1,
        sample_batch_size=BATCH,
        sample_sequence_length=1,  # an item is a whole transition, as ours
        period=1,
        min_length_time_axis=1,
        max_length_time_axis=slots,
        priority_exponent=0.6,
        device=jax.default_backend(),
    )
    item = jax.tree.map(lambda leaf: leaf[0], replay.init(1, 1).items)
    held = {"state": _flashbax_filled(buffer.init(item), slots, priority)}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, key: jax.Array, error: jax.Array) -> Any:
        drawn = buffer.sample(state, key)
        weights = (jnp.min(drawn.probabilities) / drawn.probabilities) ** 0.5
        return buffer.set_priorities(state, drawn.indices, error), (drawn.experience, weights)

    def call(key: jax.Array, error: jax.Array) -> None:
        held["state"], _ = jax.block_until_ready(step(held["state"], key, error))

    return call


def _flashbax_filled(state: Any, slots: int, priority: np.ndarray) -> Any:
    """A full buffer with these priorities: its own sum tree, filled level by level."""
    depth = state.sum_tree_state.tree_depth
    levels = [np.asarray(priority**0.6, np.float32)]
    levels[0] = np.pad(levels[0], (0, 2**depth - slots))
    while len(levels[0]) > 1:
        levels.insert(0, levels[0][0::2] + levels[0][1::2])
    nodes = jnp.asarray(np.concatenate(levels))
    tree = state.sum_tree_state.replace(nodes=nodes, max_recorded_priority=jnp.max(nodes[-(2**depth) :]))
    return state.replace(sum_tree_state=tree, is_full=jnp.asarray(True))


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_integer("slots", 20, "log2 of the number of slots", lower_bound=3, upper_bound=24)
    flags.DEFINE_integer("draws", 10_000_000, "draws a seed", lower_bound=100)
    flags.DEFINE_integer("repeats", 300, "timed calls of each", lower_bound=10)
    launch.run(main)
