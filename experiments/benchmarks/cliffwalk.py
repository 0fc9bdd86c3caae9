"""The Blind Cliffwalk: how many updates until the values are known, by how replay draws?

    python experiments/benchmarks/cliffwalk.py --out=runs/benchmarks [--most=13] [--seeds=10]

Schaul et al. 2016, Prioritized Experience Replay, figure 1 and appendix B.1: n states in a row, of two actions one
moves on and the other ends the walk; only the last right one pays 1. The replay holds every transition of 2^n random
walks, of which one in 2^(n + 1) - 2 is rewarded. Tabular Q-learning draws one transition an update: uniformly, the one
of the largest last TD error (greedy), in proportion to its priority (PER), or by the rank of its priority. Counted are
updates until the mean squared error of Q is at most 0.001; medians over the seeds.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import cells
import launch
from aco_jax import replay, report, svg
from aco_jax.ops import values
from aco_jax.types import Transition

METHODS = ("uniform", "greedy", "PER", "rank-based")
RATE = 0.25  # of Q-learning
SOLVED = 1e-3  # mean squared error of Q
LOOK = 8  # updates between two looks at the error


def main() -> None:
    out, seeds = Path(flags.FLAGS.out), flags.FLAGS.seeds
    sizes = range(2, flags.FLAGS.most + 1)
    print(f"{'n':<4}{'transitions':>12}" + "".join(f"{method:>12}" for method in METHODS))
    found: dict[str, list[list[int]]] = {method: [] for method in METHODS}
    for n in sizes:
        for method in METHODS:
            path = out / "cliffwalk" / f"{n}-{method}-{seeds}.json"
            found[method].append(cells.kept(path, functools.partial(updates, n, method, seeds)))
        medians = "".join(f"{np.median(found[method][-1]):>12.0f}" for method in METHODS)
        print(f"{n:<4}{2 ** (n + 1) - 2:>12}{medians}", flush=True)
    lines = [
        svg.Line(
            method,
            [(2 ** (n + 1) - 2, float(np.median(each))) for n, each in zip(sizes, counts, strict=True)],
            [(float(np.min(each)), float(np.max(each))) for each in counts],
        )
        for method, counts in found.items()
    ]
    picture = svg.lines(lines, "transitions in the replay", "updates to solve", log_x=True, log_y=True)
    words = f"Medians, least and most of {seeds} seeds: updates until the mean squared error of Q is {SOLVED}."
    report.write_study(out / "cliffwalk.html", "The Blind Cliffwalk", words, {"Updates to solve": picture})


def walks(n: int) -> Transition:
    """Every transition of 2^n random walks: in state s the wrong action 2^(n - 1 - s) times, the right one as often."""
    state = np.concatenate([np.full(2 ** (n - s), s) for s in range(n)])
    right = np.concatenate([np.arange(2 ** (n - s)) % 2 for s in range(n)])
    paid = (state == n - 1) & (right == 1)
    moves = (right == 1) & ~paid
    # Which of the two actions is the right one alternates: the walk is blind.
    action = right ^ (state % 2)
    whole = jnp.zeros(len(state), jnp.int32)
    return Transition(
        s_tm1=jnp.asarray(state, jnp.int32),
        a_tm1=jnp.asarray(action, jnp.int32),
        r_t=jnp.asarray(paid, jnp.float32),
        discount_t=jnp.asarray(np.where(moves, 1 - 1 / n, 0.0), jnp.float32),
        s_t=jnp.asarray(np.where(moves, state + 1, 0), jnp.int32),
        mu_tm1=jnp.full(len(state), 0.5, jnp.float32),
        anchor=whole,
        record=whole,
        query=whole,
    )


def best(n: int) -> np.ndarray:
    """Q* [n, 2]: the right action of state s is worth the reward discounted n - 1 - s times."""
    q, s = np.zeros((n, 2)), np.arange(n)
    q[s, 1 ^ (s % 2)] = (1 - 1 / n) ** (n - 1 - s)
    return q


def updates(n: int, method: str, seeds: int, most: int = 1 << 24) -> list[int]:
    """Updates to solve a walk of n states, one number a seed; `most` where that was not enough."""
    items = walks(n)
    count = items.s_tm1.shape[0]
    raw = jnp.zeros((count, 1), jnp.float32)
    exponent = {"uniform": 0.0, "rank-based": 0.7}.get(method, 1.0)
    memory = replay.init(count, 1, exponent, offset=1e-4, ranked=method == "rank-based")
    memory = jax.jit(replay.add, donate_argnums=0)(memory, items, raw, raw, jnp.ones(count, bool))
    run = jax.jit(functools.partial(_solve, greedy=method == "greedy", most=most))
    solution = jnp.asarray(best(n), jnp.float32)
    return [int(run(jax.random.key(seed), memory, solution)) for seed in range(seeds)]


def _solve(key: jax.Array, memory: replay.State, solution: jax.Array, greedy: bool, most: int) -> jax.Array:
    start, key = jax.random.split(key)
    # Small and random at first, so that greedy has something to choose by, and differs from seed to seed.
    q = 0.1 * jax.random.normal(start, solution.shape)
    shards = replay.exchange(memory)  # nothing is weighted by importance: of no consequence
    every, valid = jnp.ones(1, bool), jnp.ones(2, bool)

    def update(carry: tuple[jax.Array, replay.State], key: jax.Array) -> tuple[tuple[jax.Array, replay.State], None]:
        q, memory = carry
        if greedy:
            half = memory.tree.shape[0] // 2
            indices = jnp.argmax(memory.tree[half:])[None].astype(jnp.int32)
            item = jax.tree.map(lambda leaf: leaf[indices[0]], memory.items)
        else:
            drawn, indices, _ = replay.sample(memory, key, 1, 0.0, shards)
            item = jax.tree.map(lambda leaf: leaf[0], drawn)
        q_t = q[item.s_t]
        error = values.td_error(q[item.s_tm1], item.a_tm1, item.r_t, item.discount_t, q_t, q_t, valid)
        q = q.at[item.s_tm1, item.a_tm1].add(RATE * error)
        return (q, replay.set_priorities(memory, indices, error[None], every)), None

    def climb(carry: tuple[jax.Array, jax.Array, replay.State]) -> tuple[jax.Array, jax.Array, replay.State]:
        done, q, memory = carry
        keys = jax.random.split(jax.random.fold_in(key, done), LOOK)
        (q, memory), _ = jax.lax.scan(update, (q, memory), keys)
        return done + LOOK, q, memory

    def wanting(carry: tuple[jax.Array, jax.Array, replay.State]) -> jax.Array:
        done, q, _ = carry
        return (jnp.mean(jnp.square(q - solution)) > SOLVED) & (done < most)

    return jax.lax.while_loop(wanting, climb, (jnp.zeros((), jnp.int32), q, memory))[0]


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_integer("most", 13, "the longest walk, states", lower_bound=2, upper_bound=16)
    flags.DEFINE_integer("seeds", 10, "runs of each", lower_bound=1)
    launch.run(main)
