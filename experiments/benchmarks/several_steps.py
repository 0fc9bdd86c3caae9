"""Targets of several steps where the answer is known: how soon a table of Q has learned from walks in a replay.

    python experiments/benchmarks/several_steps.py --out=runs/benchmarks [--seeds=10]

Walks under the even policy lie in a prioritised replay; a table learns from them by the critic's errors, its targets
of 1, 2, 4 or 8 steps corrected as the critic's are: from the items drawn alone, and with the smoothed model's target as
the other half, which is the default. Shows the regret of the greedy policy and the greatest error of Q, in percent of
the range of Q*, by updates. All parts use the program's own functions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cells
import launch
from aco_jax import replay, report, svg, transitions
from aco_jax.agents import critic
from aco_jax.ops import values
from aco_jax.types import Transition
from benchmarks import known_mdps, mdps

STEPS = (1, 2, 4, 8)  # of a target
MODEL_WEIGHTS = (0.0, 0.5)  # of the smoothed model's target
UPDATES = (25, 50, 100, 200, 400, 800, 1600)
WALKS, LENGTH = 256, 16
BATCH = 128  # transitions an update
RATE = 0.03  # of Adam
TEMPERATURE = 0.1  # of the policy that further steps of a target are weighed by


def main() -> None:
    out, seeds = Path(flags.FLAGS.out), flags.FLAGS.seeds
    pictures = {}
    print(f"{'regret, error %':<18}{'model':>7}{'steps':>7}" + "".join(f"{count:>16}" for count in UPDATES))
    for mdp, weight in itertools.product((mdps.chain(), mdps.grid(), mdps.garnet()), MODEL_WEIGHTS):
        lines = []
        for steps in STEPS:
            name = f"{mdp.name}-{steps}-{weight:g}-{seeds}".replace(", ", "-").replace(" ", "_")
            compute = functools.partial(learning, mdp, steps, weight, seeds)
            found = cells.kept(out / "several_steps" / f"{name}.json", compute)
            shown = zip(found["regret"], found["error"], strict=True)
            row = "".join(f"{np.mean(regret):>9.4f}{np.mean(error):>7.1f}" for regret, error in shown)
            print(f"{mdp.name:<18}{weight:>7.1f}{steps:>7}{row}", flush=True)
            lines.append(cells.mean_line(f"{steps} steps", UPDATES, found["regret"]))
        title = f"{mdp.name}, {'with' if weight else 'without'} the model's target"
        pictures[title] = svg.lines(lines, "updates", "regret", log_x=True)
    words = f"Means over {seeds} seeds, 95% intervals; regret is what the greedy policy gives away, mean over states."
    report.write_study(
        out / "several_steps.html", "Targets of several steps where the answer is known", words, pictures
    )


def learning(mdp: mdps.Mdp, steps: int, weight: float, seeds: int) -> dict[str, list[list[float]]]:
    """Regret of the greedy policy, and greatest error of Q in percent of the range of Q*, [UPDATES][seeds]."""
    run = jax.jit(jax.vmap(functools.partial(_tables, mdp=mdp, steps=steps, weight=weight)))
    tables = np.asarray(run(jax.random.split(jax.random.key(11), seeds)), np.float64)
    found: dict[str, list[list[float]]] = {"regret": [], "error": []}
    for count in UPDATES:
        now = tables[:, count - 1]
        found["regret"].append([known_mdps.loss_of_greedy(mdp, q) for q in now])
        found["error"].append([float(100 * np.abs(q - mdp.best)[:-1].max() / mdp.value_range) for q in now])
    return found


def walks(mdp: mdps.Mdp, key: jax.Array) -> tuple[Transition, jax.Array]:
    """WALKS walks under the even policy from anywhere, one after the other, leaves [WALKS * LENGTH], and which steps
    there are."""
    first, key = jax.random.split(key)

    def one(s: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        chosen, moved = jax.random.split(key)
        a = jax.random.randint(chosen, s.shape, 0, mdp.actions)
        s_t = mdps.step(mdp, moved, s, a)
        return s_t, (s, a, s_t)

    start = jax.random.randint(first, (WALKS,), 0, mdp.terminal)
    _, seen = jax.lax.scan(one, start, jax.random.split(key, LENGTH))
    s, a, s_t = (x.T.reshape(-1) for x in seen)
    items = mdps.transitions(mdp, s, a, s_t)
    query = jnp.repeat(jnp.arange(WALKS), LENGTH)
    return dataclasses.replace(items, query=query), s != mdp.terminal


def _tables(key: jax.Array, mdp: mdps.Mdp, steps: int, weight: float) -> jax.Array:
    """Q after each update, [UPDATES[-1], S, A]."""
    seen, key = jax.random.split(key)
    items, there = walks(mdp, seen)
    raw, valid = jnp.zeros((WALKS * LENGTH, 1)), jnp.ones((mdp.states, mdp.actions), bool)
    memory = replay.add(replay.init(WALKS * LENGTH, 1), items, raw, raw, there)
    counts = transitions.init(mdp.states, mdp.actions)
    counts = transitions.observe(counts, items.s_tm1, items.a_tm1, items.s_t, there)
    optimiser, q = optax.adam(RATE), jnp.zeros((mdp.states, mdp.actions))

    def one(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        q, moments, memory = carry
        items, indices, weights = replay.sample(memory, key, BATCH, 1.0)
        error = _errors(q, items, replay.following(memory, indices, steps), counts, valid, mdp, weight)
        slope = jnp.zeros_like(q).at[items.s_tm1, items.a_tm1].add(-weights * error / BATCH)
        change, moments = optimiser.update(slope, moments)
        memory = replay.set_priorities(memory, indices, error, weights > 0)
        q = optax.apply_updates(q, change)
        return (q, moments, memory), q

    return jax.lax.scan(one, (q, optimiser.init(q), memory), jax.random.split(key, UPDATES[-1]))[1]


def _errors(
    q: jax.Array,
    items: Transition,
    following: tuple[Transition, jax.Array],
    counts: transitions.State,
    valid: jax.Array,
    mdp: mdps.Mdp,
    weight: float,
) -> jax.Array:
    """The critic's errors of a table: to the target of several steps, and by `weight` to that of the smoothed model."""
    ended = q.at[mdp.terminal].set(0.0)
    # As an actor would: even at first, as the behaviour is, and the greedier the more is known.
    whole = critic.n_step(*following, ended, ended, valid, jax.nn.log_softmax(ended / TEMPERATURE))
    q_t = ended[whole.s_t]
    drawn = jax.vmap(values.td_error)(
        q[items.s_tm1], items.a_tm1, whole.r_t, whole.discount_t, q_t, q_t, valid[items.s_tm1]
    )
    p_next = transitions.probabilities(counts, items.s_tm1, items.a_tm1)
    v = critic.state_values(q, valid, mdp.terminal)
    expected = jax.vmap(values.expected_target, (0, None, 0, None))(items.r_t, mdps.DISCOUNT, p_next, v)
    return (1 - weight) * drawn + weight * (expected - q[items.s_tm1, items.a_tm1])


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_integer("seeds", 10, "runs of each", lower_bound=2)
    launch.run(main)
