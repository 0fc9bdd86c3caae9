"""The trained actor beside the optimum of its own decision process, found by exhaustive search on small lists.

    python experiments/benchmarks/optimum.py --workdir=W[,W2,..] [--data=DIR] [--out=runs/benchmarks]

Each W is a finished run of experiments/aco.py. Its next round is prepared with lists of 2, 3 and 4 candidates a row,
and walked by the actor, greedily, by the fixed policy that asks for nothing, and by the best policy of the states:
improved state by state where all rewards are known, on half of the lists, and tried on the other half. The optimum
knows all rewards and readings of a list beforehand, which no policy does.

A return is what the reward model gives for the relations stated, less the costs, discounted; the shared reward at the
end of a training walk is left out, for it depends on the other walks. Intervals are over the runs where there are
several, else over the anchors.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import cells
import launch
from aco_jax import answer, configuration, environment, learner_state, play, prepare, replicas, report, svg, waves
from aco_jax import train as training
from aco_jax.ops import states
from aco_jax.settings import TrainConfig
from aco_jax.types import UNKNOWN

SIZES = (2, 3, 4)  # candidates a row
WHO = ("actor", "fixed policy", "best of the states", "optimum")
TURNS = 200  # states whose action is changed, at most
Returns = dict[str, dict[str, list[float]]]  # candidates a row -> who -> of each anchor


class Level(NamedTuple):
    """n places that walks may be at after equally many steps, and what each of A actions does there."""

    owner: np.ndarray  # [n], the list
    state: environment.EnvState  # [n]
    reward: np.ndarray  # [n, A] float64, -inf of an action that changes nothing, for it costs a step
    discount: np.ndarray  # [n, A] float64
    then: np.ndarray  # [n, A] place at the next level, -1 where the walk is over


def main() -> None:
    out, data = Path(flags.FLAGS.out), flags.FLAGS.data
    runs = [Path(name) for name in flags.FLAGS.workdir]
    found = [
        cells.kept(out / "optimum" / f"{'-'.join(run.parts[-2:])}.json", functools.partial(study, run, data))
        for run in runs
    ]
    print(f"{'candidates a row':<18}{'lists':>7}" + "".join(f"{who:>20}" for who in WHO) + f"{'optimum - actor':>20}")
    for size in map(str, SIZES):
        gap = [np.subtract(run[size]["optimum"], run[size]["actor"]).tolist() for run in found]
        parts = [_sample([run[size][who] for run in found]) for who in WHO] + [_sample(gap)]
        row = "".join(f"{np.mean(part):>12.3f} ±{cells.half_interval(part):>6.3f}" for part in parts)
        print(f"{size:<18}{sum(map(len, gap)):>7}{row}")
    lines = [
        cells.mean_line(who, SIZES, [_sample([run[str(size)][who] for run in found]) for size in SIZES]) for who in WHO
    ]
    words = f"{len(runs)} runs; 95% intervals over {'runs' if len(runs) > 1 else 'lists'}."
    picture = svg.lines(lines, "candidates a row", "return")
    report.write_study(out / "optimum.html", "The actor beside the optimum", words, {"return of a walk": picture})


def study(workdir: Path, data: str | None) -> Returns:
    """The returns of the lists of a round that the run has not played."""
    config = configuration.read(workdir, TrainConfig)
    tables = configuration.load_folder(config.data, Path(data)) if data else None
    dataset = tables or configuration.load(config.data, workdir, config.seed)
    config, agents, desk, run = answer.restore(workdir, dataset)
    params, number = training.parameters(run, agents, desk.trunk), int(replicas.first(run.state.merges))
    scale, edges = replicas.first((run.state.averaged.scale, run.state.edges))
    taught = jnp.argmax(learner_state.policy_table(params["actor"], agents), axis=1)
    fixed = jnp.argmax(jnp.asarray(states.fixed_policy(agents.environment.bins)), axis=1)
    found: Returns = {}
    for size in SIZES:
        small = dataclasses.replace(config, train=dataclasses.replace(config.train, candidates=size))
        material, _ = prepare.round_material(desk, small, agents, params, run.believed, number)
        batch = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[3:])), material)
        ready, count = jnp.ones(batch.candidates.record.shape, bool), len(batch.anchor)
        pending, even = jnp.zeros(count, bool), jnp.zeros(count)
        value, spread = waves.rewards(params, scale, agents, jnp.asarray(desk.texts), batch, even)
        problem, _ = waves.pose(params, agents, batch, value, spread, even, ready, pending)
        shifted = problem
        if agents.null_shift is not None:
            given = params["null_shift"], agents.null_shift, agents.environment, edges, problem
            shifted = jax.vmap(environment.shift_null)(problem, play.mean_shift(*given)[1])
        found[str(size)] = {
            "actor": _returns(agents.environment, edges, shifted, taught).tolist(),
            "fixed policy": _returns(agents.environment, edges, problem, fixed).tolist(),
            "best of the states": _crossed(agents.environment, edges, problem, fixed).tolist(),
            "optimum": optimum(agents.environment, problem).tolist(),
        }
    return found


def _crossed(
    config: environment.Config, edges: states.Edges, problem: environment.Problem, choice: jax.Array
) -> np.ndarray:
    """Returns [B] of each half of the lists under the policy that is best on the other half."""
    found = np.zeros(len(problem.anchor))
    for half in range(2):
        here, there = (jax.tree.map(lambda x, start=start: x[start::2], problem) for start in (half, 1 - half))
        found[half::2] = _returns(
            config, edges, here, jnp.asarray(best_of_states(config, edges, there, np.asarray(choice)))
        )
    return found


def optimum(config: environment.Config, problem: environment.Problem) -> np.ndarray:
    """The greatest return of each of B walks over all sequences of actions, [B] float64."""
    levels, best = unfold(config, problem), np.zeros(len(problem.anchor))
    if levels:
        best[levels[0].owner] = _backwards(levels, [slice(None)] * len(levels))[0].max(axis=1)
    return best


def best_of_states(
    config: environment.Config, edges: states.Edges, problem: environment.Problem, choice: np.ndarray
) -> np.ndarray:
    """The policy [S] that begins as `choice` [S] and is improved on these lists, whose rewards and readings it knows.

    Each turn changes the action of the one state where that gains most, visits counted, until none gains. What it does
    is a function of the state number alone, as the actor's; another start may end elsewhere.
    """
    levels = unfold(config, problem)
    numbers = [_numbers(config, edges, problem, level) for level in levels]
    choice = np.array(choice)
    for _ in range(TURNS):
        taken = [choice[number][:, None] for number in numbers]
        gain = np.zeros((len(choice), config.bins.action_count))
        visits: np.ndarray = np.ones(len(levels[0].owner) if levels else 0)
        for level, number, action, value in zip(levels, numbers, taken, _backwards(levels, taken), strict=True):
            advantage = value - np.take_along_axis(value, action, axis=1)
            come = visits > 0  # a place that no walk comes to says nothing, not even what cannot be done there
            np.add.at(gain, number[come], advantage[come] * visits[come, None])
            place = np.take_along_axis(level.then, action, axis=1)[:, 0]
            visits = np.bincount(place[place >= 0], visits[place >= 0], level.then.max(initial=-1) + 1)
        state, action = np.unravel_index(gain.argmax(), gain.shape)
        if gain[state, action] < 1e-6:
            break
        choice[state] = action
    return choice


def unfold(config: environment.Config, problem: environment.Problem) -> list[Level]:
    """All that can be done in B walks: all actions from all states, one step after another.

    States of an anchor are one where the same candidates are left, of those left the same are read, and as many rows
    are shown: what was stated of the others is paid.
    """
    start = jax.vmap(environment.reset)(problem)
    going = ~np.asarray(jax.vmap(functools.partial(environment.over, config))(start))
    owner, state = np.flatnonzero(going), jax.tree.map(lambda x: np.asarray(x)[going], start)
    levels = []
    while len(owner):
        moved, reward, discount, over = _tried(config, problem, owner, state)
        kind, before = _kinds(owner[:, None], moved), _kinds(owner, state)
        idle = (kind == before[:, None]).all(axis=-1) & ~over
        on = ~(over | idle)
        kept, first, number = np.unique(kind[on], axis=0, return_index=True, return_inverse=True)
        then = np.full(on.shape, -1)
        then[on] = number.reshape(-1)
        levels.append(Level(owner, state, np.where(idle, -np.inf, reward), discount, then))
        owner = kept[:, 0]
        state = jax.tree.map(lambda x, on=on, first=first: x[on][first], moved)
    return levels


def _backwards(levels: Sequence[Level], taken: Sequence[np.ndarray | slice]) -> list[np.ndarray]:
    """What each action is worth, [n, A] a level, where the best of the actions `taken` ([n, 1], or all) follows."""
    found: list[np.ndarray] = []
    value = np.zeros(1)
    for level, action in zip(reversed(levels), reversed(taken), strict=True):
        worth = level.reward + level.discount * np.where(level.then >= 0, value[level.then], 0.0)
        found.append(worth)
        value = (worth if isinstance(action, slice) else np.take_along_axis(worth, action, axis=1)).max(axis=1)
    return found[::-1]


def _numbers(config: environment.Config, edges: states.Edges, problem: environment.Problem, level: Level) -> np.ndarray:
    """The state numbers [n] of a level's places."""
    posed = jax.tree.map(lambda x: x[level.owner], problem)
    return np.asarray(_observed(config, edges, posed, level.state).state)


@functools.partial(jax.jit, static_argnums=0)
def _observed(
    config: environment.Config, edges: states.Edges, problem: environment.Problem, state: environment.EnvState
) -> environment.Observation:
    return jax.vmap(functools.partial(environment.observe, config, edges))(problem, state)


def _tried(
    config: environment.Config, problem: environment.Problem, owner: np.ndarray, state: environment.EnvState
) -> tuple[environment.EnvState, np.ndarray, np.ndarray, np.ndarray]:
    """Every action from each of n states: next states, rewards, discounts and whether the walk is over, [n, A]."""
    # Filled up to a power of two, so that few sizes are compiled.
    full = np.resize(np.arange(len(owner)), 1 << (len(owner) - 1).bit_length())
    posed = jax.tree.map(lambda x: x[owner[full]], problem)
    parts = _every_action(config, posed, jax.tree.map(lambda x: x[full], state))
    moved, reward, discount, over = jax.tree.map(lambda x: np.asarray(x)[: len(owner)], parts)
    return moved, reward.astype(np.float64), discount.astype(np.float64), over


@functools.partial(jax.jit, static_argnums=0)
def _every_action(
    config: environment.Config, problem: environment.Problem, state: environment.EnvState
) -> tuple[environment.EnvState, jax.Array, jax.Array, jax.Array]:
    def one(problem: environment.Problem, state: environment.EnvState, action: jax.Array):
        moved, reward, discount = environment.step(config, problem, state, action)
        return moved, reward, discount, environment.over(config, moved)

    return jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))(problem, state, jnp.arange(config.bins.action_count))


def _kinds(owner: np.ndarray, state: environment.EnvState) -> np.ndarray:
    """What of states [..] their future depends on, [.., 2 L + 2] int32, the owner first."""
    left = np.asarray(state.decision) == UNKNOWN
    read, shown = np.asarray(state.revealed) & left, np.asarray(state.shown)[..., None]
    owners = np.broadcast_to(owner[..., None], shown.shape)
    return np.concatenate([owners, shown, left, read], axis=-1).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _returns(
    config: environment.Config, edges: states.Edges, problem: environment.Problem, choice: jax.Array
) -> jax.Array:
    """Returns [B] of walks that take the action choice [S] in every state."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return choice[state], jnp.ones(state.shape)

    return environment.returns(environment.play(config, edges, problem, policy, jax.random.key(0)))


def _sample(runs: list[list[float]]) -> list[float]:
    """What an interval is over: the means of several runs, or the lists of one."""
    return [float(np.mean(run)) for run in runs] if len(runs) > 1 else runs[0]


if __name__ == "__main__":
    flags.DEFINE_list("workdir", None, "folders of finished runs", required=True)
    flags.DEFINE_string("data", None, "folder of tables, if not the runs' own")
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    launch.run(main)
