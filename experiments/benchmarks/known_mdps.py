"""Critic, smoothing, exploration and actor where the answer is known: processes that value iteration solves.

    python experiments/benchmarks/known_mdps.py --out=runs/benchmarks [--seeds=10]

Shows, on a chain, a gridworld and a random Garnet: the greatest error of Q, in percent of the range of Q*, of tabular
Q-learning and of the critic network from the same prioritised replay; the error and the regret of planning with the
smoothed model of transitions and with unsmoothed ones, by samples; the regret of exploring by the model's entropy and
by fixed shares; the return of the actor's update and how near its KL stays to the target. All parts use the
program's own functions.
"""

from __future__ import annotations

import functools
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
from aco_jax import exploration, replay, report, svg, transitions
from aco_jax.agents import critic
from aco_jax.ops import divergence, policy_gradient, values
from benchmarks import mdps

SAMPLES = tuple(2**n for n in range(4, 15))  # of which the model of transitions is made
MODELS = {  # mass and its decay
    "smoothed, c = 1": (1.0, 0.0),
    "c = 0.1": (0.1, 0.0),
    "c = 1 / (1 + N)": (1.0, 1.0),
    "c = 1 / sqrt(1 + N)": (1.0, 0.5),
    "unsmoothed, unseen is even": (1e-6, 0.0),
    "unsmoothed, unseen is 0": (0.0, 0.0),
}
EXPLORERS = ("from entropy", "from entropy, annealed", "fixed 0.1", "fixed 0.3", "from 1, annealed")
LAST = 0.02  # epsilon at the end of annealing
KL_TARGET = 5e-4  # nats a round: small enough that the way to the optimum takes dozens
ROUND = 4  # steps of the actor between two adaptations of the KL's weight
WARM_UP = 10  # rounds
BATCH = 256  # transitions an update
MERGE = 50  # updates between two looks of a shard at its rarest item


def main() -> None:
    out, seeds = Path(flags.FLAGS.out), flags.FLAGS.seeds
    noisy = (mdps.chain(), mdps.grid(), mdps.garnet())
    pictures = {}
    print(f"{'Q*: mean, worst':<18}{'range':>8}{'data, % of it':>18}{'tabular, %':>14}{'critic, %':>14}")
    for mdp in noisy:
        found = _kept(out, f"values-{mdp.name}-{seeds}", functools.partial(reach, mdp, seeds))
        row = f"{found['data']:>18.2f}"
        for name in ("tabular", "critic"):
            row += f"{np.mean(found[name]):>8.2f}, {np.max(found[name]):>4.2f}"
        print(f"{mdp.name:<18}{mdp.value_range:>8.3f}{row}", flush=True)
    print(f"\n{'regret of planning':<18}{'samples':>8}" + "".join(f"{name:>28}" for name in MODELS))
    for mdp in noisy:
        found = _kept(out, f"smoothing-{mdp.name}-{seeds}", functools.partial(smoothing, mdp, seeds))
        for place, count in enumerate(SAMPLES):
            row = "".join(f"{np.mean(found[name]['regret'][place]):>28.4f}" for name in MODELS)
            print(f"{mdp.name:<18}{count:>8}{row}")
        for measure in ("error", "regret"):
            lines = [cells.mean_line(name, SAMPLES, found[name][measure]) for name in MODELS]
            pictures[f"{measure} of planning, {mdp.name}"] = svg.lines(lines, "samples", measure, log_x=True)
    print(f"\n{'regret, last':<18}" + "".join(f"{name:>26}" for name in EXPLORERS))
    for mdp in (mdps.chain(slip=0.0), mdps.chain(), mdps.grid(slip=0.0), mdps.grid(), mdps.garnet()):
        found = _kept(out, f"exploring-{mdp.name}-{seeds}", functools.partial(explore, mdp, seeds))
        row = "".join(f"{np.mean(found[n][-1]):>17.1f} ±{cells.half_interval(found[n][-1]):>6.1f} " for n in EXPLORERS)
        print(f"{mdp.name:<18}{row}", flush=True)
        steps = [100 * (place + 1) for place in range(len(found[EXPLORERS[0]]))]
        lines = [cells.mean_line(name, steps, found[name]) for name in EXPLORERS]
        pictures[f"regret of exploring, {mdp.name}"] = svg.lines(lines, "steps", "regret")
    heads = "".join(f"{name:>20}" for name in ("KL / target, median", "within 1.5, %", "above, %", "rounds"))
    print(f"\n{'actor':<18}{'return':>9}{'optimum':>9}{heads}")
    for mdp in noisy:
        found = _kept(out, f"actor-{mdp.name}-{seeds}", functools.partial(act, mdp, seeds))
        row = f"{np.mean(found['return']):>9.4f}{found['optimum']:>9.4f}{np.mean(found['kl']):>20.2f}"
        for name in ("within", "above"):
            row += f"{100 * np.mean(found[name]):>13.0f} ±{100 * cells.half_interval(found[name]):>5.0f}"
        print(f"{mdp.name:<18}{row}{np.mean(found['rounds']):>20.0f}", flush=True)
    words = f"Means over {seeds} seeds, 95% intervals; regret is by how much the best action would have been better."
    report.write_study(out / "known_mdps.html", "Where the answer is known", words, pictures)


def reach(mdp: mdps.Mdp, seeds: int, each: int = 1024, steps: int = 4000, width: int = 32) -> dict[str, Any]:
    """Greatest error of Q, percent of the range of Q*, by seed, learned from a replay of every pair, `each` times.

    Beside it that of the data: of value iteration on the smoothed counts of the same transitions.
    """
    items = mdps.even_experience(mdp, each)
    samples = items.s_tm1.shape[0]
    raw, every = jnp.zeros((samples, 1)), jnp.ones(samples, bool)
    memory = jax.jit(replay.add, donate_argnums=0)(replay.init(samples, 1), items, raw, raw, every)
    counts = transitions.init(mdp.states, mdp.actions)
    counts = transitions.observe(counts, items.s_tm1, items.a_tm1, items.s_t, every)
    config = critic.Config(
        (mdp.states,), mdp.actions, width, mlp_width=2 * width, discount=mdps.DISCOUNT, huber=0.0, target_rate=0.05
    )
    known = mdps.value_iteration(_model(mdp, counts), mdp.r)

    def off(q: np.ndarray) -> float:
        return float(100 * np.abs(q - mdp.best)[:-1].max() / mdp.value_range)

    found: dict[str, Any] = {"data": off(known)}
    for name, learn in (("tabular", _tabular), ("critic", _network)):
        run = jax.jit(functools.partial(learn, mdp=mdp, config=config, steps=steps))
        tables = (np.asarray(run(jax.random.key(seed), memory, counts), np.float64) for seed in range(seeds))
        found[name] = [off(q) for q in tables]
    return found


def _network(
    key: jax.Array, memory: replay.State, counts: transitions.State, mdp: mdps.Mdp, config: critic.Config, steps: int
) -> jax.Array:
    """The critic as the learner trains it: double Q and the smoothed model's target, priorities, a slow target."""
    everything, valid = jnp.arange(mdp.states)[:, None], jnp.ones((mdp.states, mdp.actions), bool)
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    first, key = jax.random.split(key)
    params = critic.init(first, config)

    def step(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (params, target, moments, memory, shards), (number, key) = carry, given
        shards = _exchanged(memory, shards, number)
        items, indices, weights = replay.sample(memory, key, BATCH, 1.0, shards)
        q, q_target = (critic.q_table(tree, config, everything) for tree in (params, target))
        batch = critic.Batch(
            factors_tm1=everything[items.s_tm1],
            a_tm1=items.a_tm1,
            r_t=items.r_t,
            discount_t=items.discount_t,
            r_first=items.r_t,
            q_t=q[items.s_t],
            q_target_t=q_target[items.s_t],
            valid_t=valid[items.s_t],
            p_next=transitions.probabilities(counts, items.s_tm1, items.a_tm1),
            v_target=critic.state_values(q_target, valid, mdp.terminal),
            importance_weights=weights,
        )
        slope, metrics = jax.grad(critic.loss, has_aux=True)(params, config, batch)
        change, moments = optimiser.update(slope, moments)
        params = optax.apply_updates(params, change)
        memory = replay.set_priorities(memory, indices, metrics["td_error"], weights > 0)
        return (params, critic.update_target(config, target, params, number + 1), moments, memory, shards), None

    start = (params, params, optimiser.init(params), memory, replay.exchange(memory))
    params = jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))[0][0]
    return critic.q_table(params, config, everything)


def _tabular(
    key: jax.Array, memory: replay.State, counts: transitions.State, mdp: mdps.Mdp, config: critic.Config, steps: int
) -> jax.Array:
    """Q-learning in a table, with the critic's mixture of errors and its optimiser."""
    valid = jnp.ones((mdp.states, mdp.actions), bool)

    def step(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (q, moments, memory, shards), (number, key) = carry, given
        shards = _exchanged(memory, shards, number)
        items, indices, weights = replay.sample(memory, key, BATCH, 1.0, shards)
        q_tm1, q_t = q[items.s_tm1], q[items.s_t]
        sampled = jax.vmap(values.td_error)(q_tm1, items.a_tm1, items.r_t, items.discount_t, q_t, q_t, valid[items.s_t])
        p_next = transitions.probabilities(counts, items.s_tm1, items.a_tm1)
        v = critic.state_values(q, valid, mdp.terminal)
        expected = jax.vmap(values.expected_target, (0, None, 0, None))(items.r_t, config.discount, p_next, v)
        model = expected - jnp.take_along_axis(q_tm1, items.a_tm1[:, None], axis=1)[:, 0]
        error = (1 - config.model_weight) * sampled + config.model_weight * model
        slope = jnp.zeros_like(q).at[items.s_tm1, items.a_tm1].add(-weights * error / BATCH)
        change, moments = optimiser.update(slope, moments)
        memory = replay.set_priorities(memory, indices, error, weights > 0)
        return (optax.apply_updates(q, change), moments, memory, shards), None

    optimiser, q = optax.adam(optax.cosine_decay_schedule(0.3, steps)), jnp.zeros((mdp.states, mdp.actions))
    start = (q, optimiser.init(q), memory, replay.exchange(memory))
    return jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))[0][0]


def _exchanged(memory: replay.State, shards: replay.Shards, number: jax.Array) -> replay.Shards:
    return jax.lax.cond(number % MERGE == 0, lambda: replay.exchange(memory), lambda: shards)


def smoothing(mdp: mdps.Mdp, seeds: int, samples: tuple[int, ...] = SAMPLES) -> dict[str, dict[str, list[list[float]]]]:
    """Of each model its error (of Q, in the range of Q*) and regret (mean over states), [samples][seeds]."""
    found: dict[str, dict[str, list[list[float]]]] = {name: {"error": [], "regret": []} for name in MODELS}
    for count in samples:
        for measures in found.values():
            measures["error"].append([])
            measures["regret"].append([])
        for seed in range(seeds):
            items = mdps.experience(mdp, jax.random.key(1000 + seed), count)
            state = transitions.init(mdp.states, mdp.actions)
            state = transitions.observe(state, items.s_tm1, items.a_tm1, items.s_t, jnp.ones(count, bool))
            for name, prior in MODELS.items():
                q = mdps.value_iteration(_model(mdp, state, *prior), mdp.r)
                found[name]["error"][-1].append(float(np.abs(q - mdp.best)[:-1].max() / mdp.value_range))
                found[name]["regret"][-1].append(loss_of_greedy(mdp, q))
    return found


def _model(mdp: mdps.Mdp, state: transitions.State, mass: float = 1.0, decay: float = 0.0) -> np.ndarray:
    """The smoothed model [S, A, S]; of mass 0 that of the counts alone, whose unseen rows lead nowhere."""
    s, a = jnp.meshgrid(jnp.arange(mdp.states), jnp.arange(mdp.actions), indexing="ij")
    p = np.array(transitions.probabilities(state, s, a, mass or 1e-6, decay), np.float64)
    if not mass:
        p[np.asarray(transitions.counts(state)) == 0] = 0.0
    p[mdp.terminal] = np.eye(mdp.states)[mdp.terminal]  # how walks end is known
    return p


def loss_of_greedy(mdp: mdps.Mdp, q: np.ndarray) -> float:
    """What the greedy policy of q gives away, mean over states."""
    policy = np.eye(mdp.actions)[q.argmax(axis=1)]
    return float(np.mean((mdp.best.max(axis=1) - mdps.policy_value(mdp, policy))[:-1]))


def explore(mdp: mdps.Mdp, seeds: int, steps: int = 3000) -> dict[str, list[list[float]]]:
    """Regret so far, sum of V*(s) - Q*(s, a) over the steps, every 100 steps, [steps / 100][seeds]."""
    found = {}
    for name in EXPLORERS:
        run = jax.jit(jax.vmap(functools.partial(_exploring, mdp=mdp, name=name, steps=steps)))
        lost = np.asarray(run(jax.random.split(jax.random.key(7), seeds)), np.float64)
        found[name] = np.cumsum(lost.reshape(seeds, -1, 100).sum(axis=2), axis=1).T.tolist()
    return found


def _exploring(key: jax.Array, mdp: mdps.Mdp, name: str, steps: int) -> jax.Array:
    """Walks that start anew where they end or after 50 steps; Q is swept once a step under the smoothed model."""
    best, reward = jnp.asarray(mdp.best, jnp.float32), jnp.asarray(mdp.r, jnp.float32)
    valid = jnp.ones((mdp.states, mdp.actions), bool).at[mdp.terminal].set(False)
    s_all, a_all = jnp.meshgrid(jnp.arange(mdp.states), jnp.arange(mdp.actions), indexing="ij")

    def epsilon(counts: transitions.State, step: jax.Array) -> jax.Array:
        first = exploration.epsilon_from_entropy(transitions.row_entropy(counts), transitions.reachable(counts, valid))
        annealed = exploration.anneal(1.0, 0.0, step, steps / 2)
        return {
            "from entropy": first,
            "from entropy, annealed": jnp.maximum(first * annealed, LAST),
            "from 1, annealed": jnp.maximum(annealed, LAST),
            "fixed 0.1": jnp.float32(0.1),
            "fixed 0.3": jnp.float32(0.3),
        }[name]

    def one(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        (q, counts, s), (step, key) = carry, given
        chosen, moved, begun = jax.random.split(key, 3)
        mu = exploration.behaviour(
            exploration.greedy_policy(q[s], jnp.ones(mdp.actions, bool)),
            jnp.ones(mdp.actions, bool),
            epsilon(counts, step),
        )
        a, _ = exploration.sample(chosen, mu)
        s_t = mdps.step(mdp, moved, s, a)
        counts = transitions.observe(counts, s[None], a[None], s_t[None], jnp.ones(1, bool))
        v = jnp.max(q, axis=1).at[mdp.terminal].set(0.0)
        seen = transitions.counts(counts) > 0
        # A pair that was never tried promises nothing: its reward is not known either.
        known = jnp.where(seen, reward, 0.0)
        q = known + mdps.DISCOUNT * transitions.expected_value(counts, s_all, a_all, v)
        anew = (s_t == mdp.terminal) | (step % 50 == 49)
        then = jnp.where(anew, jax.random.randint(begun, (), 0, mdp.terminal), s_t)
        return (q, counts, then), jnp.max(best[s]) - best[s, a]

    start = jnp.zeros((mdp.states, mdp.actions)), transitions.init(mdp.states, mdp.actions), jnp.zeros((), jnp.int32)
    return jax.lax.scan(one, start, (jnp.arange(steps), jax.random.split(key, steps)))[1]


def act(mdp: mdps.Mdp, seeds: int, steps: int = 1600, batch: int = 256, rate: float = 0.1) -> dict[str, Any]:
    """The actor's update on a table of logits: its return from an even start, and the KL of its rounds, [seeds] each.

    The KL is that of the rounds after the warm-up in which the policy was still on its way: its return below 98%
    of the way from the even policy to the optimum.
    """
    run = jax.jit(jax.vmap(functools.partial(_acting, mdp=mdp, steps=steps, batch=batch, rate=rate)))
    policies, kls = (np.asarray(x, np.float64) for x in run(jax.random.split(jax.random.key(0), seeds)))
    reached = np.array([[mdps.policy_value(mdp, policy)[:-1].mean() for policy in walk] for walk in policies])
    optimum = float(mdp.best.max(axis=1)[:-1].mean())
    even = float(mdps.policy_value(mdp, np.full(mdp.r.shape, 1 / mdp.actions))[:-1].mean())
    under_way = (reached < even + 0.98 * (optimum - even)) & (np.arange(kls.shape[1]) >= WARM_UP)
    ratios = [each[where] for each, where in zip(kls / KL_TARGET, under_way, strict=True) if where.any()]
    return {
        "return": reached[:, -1].tolist(),
        "optimum": optimum,
        "kl": [float(np.median(ratio)) for ratio in ratios],
        "within": [float(np.mean((ratio < 1.5) & (ratio > 1 / 1.5))) for ratio in ratios],
        "above": [float(np.mean(ratio >= 1.5)) for ratio in ratios],
        "rounds": under_way.sum(axis=1).tolist(),
    }


def _acting(key: jax.Array, mdp: mdps.Mdp, steps: int, batch: int, rate: float) -> tuple[jax.Array, jax.Array]:
    """The policy and its KL to the old one at the end of each round, [rounds, S, A] and [rounds]."""
    valid = jnp.ones((mdp.states, mdp.actions), bool)
    s_all, a_all = jnp.meshgrid(jnp.arange(mdp.states), jnp.arange(mdp.actions), indexing="ij")
    reward, optimiser = jnp.asarray(mdp.r, jnp.float32), optax.adam(rate)

    def loss(logits: jax.Array, old: jax.Array, weight: jax.Array, q: jax.Array, items: Any) -> jax.Array:
        log_policy = jax.nn.log_softmax(logits)
        pi, log_pi = jnp.exp(jax.lax.stop_gradient(log_policy)), log_policy[items.s_tm1]
        v = jax.vmap(values.soft_value)(pi, q)
        taken = jnp.take_along_axis(log_pi, items.a_tm1[:, None], axis=1)[:, 0]
        ratio = jax.vmap(policy_gradient.truncated_ratio, (0, 0, None))(taken, items.mu_tm1, 2.0)
        gain = jax.vmap(policy_gradient.advantage_td)(items.r_t, items.discount_t, v[items.s_t], v[items.s_tm1])
        sampled = jax.vmap(policy_gradient.reinforce_loss)(taken, ratio * gain)
        gains = jax.vmap(policy_gradient.advantage_q)(q[items.s_tm1], pi[items.s_tm1])
        exact = jax.vmap(policy_gradient.exact_policy_loss)(log_pi, gains, valid[items.s_tm1], jnp.ones(batch))
        kl = jax.vmap(divergence.kl_categorical)(old, log_policy, valid)[:-1]
        return jnp.mean(sampled) + jnp.mean(exact) + weight * jnp.mean(kl)

    def one(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        (logits, moments, old, weight, q, counts), (step, key) = carry, given
        first = step % ROUND == 0
        kl = jnp.mean(jax.vmap(divergence.kl_categorical)(old, jax.nn.log_softmax(logits), valid)[:-1])
        weight = jnp.where(first & (step > 0), divergence.adaptive_weight(weight, kl, KL_TARGET), weight)
        old = jnp.where(first, jax.nn.log_softmax(logits), old)
        items = mdps.experience(mdp, key, batch)
        counts = transitions.observe(counts, items.s_tm1, items.a_tm1, items.s_t, jnp.ones(batch, bool))
        v = jax.vmap(values.soft_value)(jax.nn.softmax(logits), q).at[mdp.terminal].set(0.0)
        q = reward + mdps.DISCOUNT * transitions.expected_value(counts, s_all, a_all, v)
        slope = jax.grad(loss)(logits, old, weight, q, items)
        change, moments = optimiser.update(slope, moments)
        return (optax.apply_updates(logits, change), moments, old, weight, q, counts), (jax.nn.softmax(logits), kl)

    logits = jnp.zeros((mdp.states, mdp.actions))
    counts = transitions.init(mdp.states, mdp.actions)
    start = (logits, optimiser.init(logits), jax.nn.log_softmax(logits), jnp.ones(()), jnp.zeros_like(logits), counts)
    _, (policies, kls) = jax.lax.scan(one, start, (jnp.arange(steps), jax.random.split(key, steps)))
    return policies[ROUND::ROUND], kls[ROUND::ROUND]


def _kept(out: Path, name: str, compute: Any) -> Any:
    return cells.kept(out / "known_mdps" / f"{name.replace(', ', '-').replace(' ', '_')}.json", compute)


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_integer("seeds", 10, "runs of each", lower_bound=2)
    launch.run(main)
