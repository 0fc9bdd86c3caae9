"""Over-optimisation: what is truly gained as a policy moves towards a learned reward, by one model and by ensembles.

    python experiments/benchmarks/overoptimisation.py --out=runs/benchmarks [--seeds=40] [--noise=0.25]

The gold reward is a random network on random candidates; reward models learn it from pairs, of whose labels a share is
wrong. Best-of-n (its expectation over all draws, exact) and the policy gradient on the candidates then optimise one
model, or five by their mean, their worst, or their mean less half of their variance. Shown is the gold reward, in
standard deviations of the candidates, against the KL to the even policy, and by how much one method is ahead of another
on the same gold reward, candidates and labels. One model is each of the five in turn, and their mean is what counts:
which of them is taken matters more than most of what is compared. Gao et al. 2022, Scaling Laws for Reward Model
Overoptimization, sections 2 and 3; Coste et al. 2023, Reward Model Ensembles, section 5.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
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
from aco_jax import report, svg
from aco_jax.ops import divergence, policy_gradient, preference

WAYS = ("best of n", "policy gradient")
METHODS = ("one model", "mean", "worst case", "mean - variance")
COMPARED = (  # a method, and what it is compared with seed by seed
    *((method, "one model") for method in METHODS[1:]),
    *((method, "mean") for method in METHODS[2:]),
    ("worst case", "mean - variance"),
)
SPREAD = 0.5  # of the variance of the members that is taken off their mean
MEMBERS = 5
FEATURES, CANDIDATES, PAIRS = 16, 8192, 512
DRAWS = tuple(2**n for n in range(14))  # n of best-of-n
GRID = tuple(float(kl) for kl in np.linspace(0.0, 8.0, 33))  # nats, of the policy gradient


def main() -> None:
    out, seeds, noise = Path(flags.FLAGS.out), flags.FLAGS.seeds, flags.FLAGS.noise
    found = [
        cells.kept(out / "overoptimisation" / f"{noise:g}-{MEMBERS}-{seed}.json", functools.partial(study, seed, noise))
        for seed in range(seeds)
    ]
    pictures = {}
    print(f"{'optimised by':<18}{'reward':<18}{'gold, greatest':>18}{'at the end':>18}{'KL at the greatest':>20}")
    for way in WAYS:
        for method in METHODS:
            greatest, end = ends(found, way, method)
            at = np.mean(np.array(found[0][way]["kl"])[curves(found, way, method).argmax(axis=-1)])
            print(f"{way:<18}{method:<18}{_figures(greatest)}{_figures(end)}{at:>20.2f}")
        pictures[way] = _picture(found, way)
    print(f"\n{'optimised by':<18}{'reward':<18}{'instead of':<18}{'gold, greatest':>18}{'at the end':>18}")
    for way in WAYS:
        for method, other in COMPARED:
            pairs = zip(ends(found, way, method), ends(found, way, other), strict=True)
            greatest, end = (ours - theirs for ours, theirs in pairs)
            print(f"{way:<18}{method:<18}{other:<18}{_figures(greatest)}{_figures(end)}")
        pictures[f"{way}, more than one model on the same labels"] = _picture_of_differences(found, way)
    words = (
        f"Gold reward, means of {seeds} seeds with 95% intervals; {100 * noise:.0f}% of {PAIRS} labels are wrong. "
        "Differences are taken seed by seed: the same gold reward, candidates and labels."
    )
    report.write_study(out / "overoptimisation.html", "Over-optimisation of learned rewards", words, pictures)


def curves(found: Sequence[Mapping[str, Any]], way: str, method: str) -> np.ndarray:
    """Gold reward of each run along the KL, [seeds, models, points]."""
    return np.array([run[way][method]["gold"] for run in found])


def ends(found: Sequence[Mapping[str, Any]], way: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The greatest and the last gold reward of each seed, the mean of its models, [seeds] each."""
    gold = curves(found, way, method)
    return gold.max(axis=-1).mean(axis=1), gold[..., -1].mean(axis=1)


def _figures(values: np.ndarray) -> str:
    """Mean and half of its 95% interval."""
    each = values.tolist()
    return f"{np.mean(each):>10.3f} ±{cells.half_interval(each):>6.3f}"


def _picture(found: Sequence[Mapping[str, Any]], way: str) -> str:
    """Gold reward of each method against the KL, and what one model promises."""
    kl = found[0][way]["kl"]
    lines = [cells.mean_line(method, kl, _mean_curves(found, way, method)) for method in METHODS]
    said = np.mean([run[way]["one model"]["proxy"] for run in found], axis=(0, 1))
    lines.append(svg.Line("what one model says", [*zip(kl, said.tolist(), strict=True)]))
    return svg.lines(lines, "KL to the even policy, nats", "reward, standard deviations")


def _picture_of_differences(found: Sequence[Mapping[str, Any]], way: str) -> str:
    """What each ensemble's gold reward is ahead of one model's of the same seed, against the KL."""
    kl, first = found[0][way]["kl"], curves(found, way, METHODS[0]).mean(axis=1)
    ahead = {method: curves(found, way, method).mean(axis=1) - first for method in METHODS[1:]}
    lines = [cells.mean_line(method, kl, values.T.tolist()) for method, values in ahead.items()]
    return svg.lines(lines, "KL to the even policy, nats", "gold reward ahead, standard deviations")


def _mean_curves(found: Sequence[Mapping[str, Any]], way: str, method: str) -> list[list[float]]:
    """At each point the gold reward of each seed, the mean of its models."""
    return curves(found, way, method).mean(axis=1).T.tolist()


def study(seed: int, noise: float, candidates: int = CANDIDATES, steps: int = 400) -> dict[str, Any]:
    """Gold and proxy reward by KL, [models, points], for each method, optimised both ways, of one set of labels."""
    keys = jax.random.split(jax.random.key(seed), 5)
    gold_net = _network(keys[0], 64)
    x = jax.random.normal(keys[1], (candidates, FEATURES))
    gold = _standard(_reward(gold_net, x))
    chosen, rejected = _labels(keys[2], gold_net, noise)
    fit = jax.jit(jax.vmap(functools.partial(fit_reward, steps=steps), (0, None, None)))
    members = jax.vmap(_reward, (0, None))(fit(jax.random.split(keys[3], MEMBERS), chosen, rejected), x)
    proxies = combined(jax.vmap(_standard)(members))
    descend = jax.jit(climb)
    found: dict[str, Any] = {"best of n": {"kl": best_of_kl(DRAWS).tolist()}, "policy gradient": {"kl": GRID}}
    for method, models in proxies.items():
        both: dict[str, list[Any]] = {way: [] for way in WAYS}
        for proxy in models:
            kl, policies = descend(proxy)
            both["best of n"].append([best_of(proxy, reward, DRAWS) for reward in (gold, proxy)])
            both["policy gradient"].append(
                [np.interp(GRID, np.asarray(kl), np.asarray(policies @ reward)) for reward in (gold, proxy)]
            )
        for way, values in both.items():
            gold_curves, proxy_curves = np.swapaxes(np.array(values), 0, 1).tolist()
            found[way][method] = {"gold": gold_curves, "proxy": proxy_curves}
    return found


def combined(members: jax.Array) -> dict[str, jax.Array]:
    """The rewards of each method, [models, K], of the members' [E, K], each standardised over the candidates."""
    return {
        "one model": members,
        "mean": jax.vmap(preference.ensemble_mean, 1)(members)[None],
        "worst case": jax.vmap(preference.ensemble_worst, 1)(members)[None],
        "mean - variance": jax.vmap(preference.ensemble_uncertainty_weighted, (1, None))(members, SPREAD)[None],
    }


def best_of(proxy: jax.Array, reward: jax.Array, draws: tuple[int, ...]) -> np.ndarray:
    """Expected reward of the candidate that the proxy likes best of n drawn evenly, exact, for each n."""
    ordered = np.asarray(reward, np.float64)[np.argsort(np.asarray(proxy))]
    below = np.arange(len(ordered) + 1) / len(ordered)
    return np.array([np.diff(below**n) @ ordered for n in draws])


def best_of_kl(draws: tuple[int, ...]) -> np.ndarray:
    """log n - (n - 1) / n nats. Stiennon et al. 2020, Learning to Summarize, appendix G.3."""
    n = np.array(draws, np.float64)
    return np.log(n) - (n - 1) / n


def climb(proxy: jax.Array, steps: int = 600, rate: float = 0.05) -> tuple[jax.Array, jax.Array]:
    """Exact policy gradient on the proxy from the even policy: its KL to it and the policies, [steps], [steps, K]."""
    count = proxy.shape[0]
    valid, even = jnp.ones(count, bool), jnp.full(count, -jnp.log(count))
    optimiser = optax.adam(rate)

    def step(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        logits, moments = carry
        log_policy = jax.nn.log_softmax(logits)
        gains = policy_gradient.advantage_q(proxy, jnp.exp(log_policy))
        slope = jax.grad(policy_gradient.exact_policy_loss)(logits, gains, valid, jnp.ones(()))
        change, moments = optimiser.update(slope * count, moments)
        kl = divergence.kl_categorical(log_policy, even, valid)
        return (optax.apply_updates(logits, change), moments), (kl, jnp.exp(log_policy))

    start = jnp.zeros(count)
    return jax.lax.scan(step, (start, optimiser.init(start)), None, steps)[1]


def fit_reward(key: jax.Array, chosen: jax.Array, rejected: jax.Array, steps: int) -> Any:
    """A reward model learned from pairs [P, d] of which the first was said to be better."""
    optimiser = optax.adamw(3e-3, weight_decay=1e-3)
    net = _network(key, 32)

    def loss(net: Any) -> jax.Array:
        return jnp.mean(jax.vmap(preference.bradley_terry_loss)(_reward(net, chosen), _reward(net, rejected)))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        net, moments = carry
        change, moments = optimiser.update(jax.grad(loss)(net), moments, net)
        return (optax.apply_updates(net, change), moments), None

    return jax.lax.scan(step, (net, optimiser.init(net)), None, steps)[0][0]


def _labels(key: jax.Array, gold: Any, noise: float) -> tuple[jax.Array, jax.Array]:
    """Pairs with the better one first, but for a share that stands the other way round."""
    drawn, flipped = jax.random.split(key)
    pair = jax.random.normal(drawn, (2, PAIRS, FEATURES))
    reward = _reward(gold, pair)
    right = (reward[0] > reward[1]) ^ jax.random.bernoulli(flipped, noise, (PAIRS,))
    return jnp.where(right[:, None], pair[0], pair[1]), jnp.where(right[:, None], pair[1], pair[0])


def _network(key: jax.Array, width: int) -> dict[str, jax.Array]:
    first, second, third = jax.random.split(key, 3)
    return {
        "in": 1.5 * jax.random.normal(first, (FEATURES, width)) / FEATURES**0.5,
        "bias": jax.random.normal(second, (width,)),
        "out": jax.random.normal(third, (width,)) / width**0.5,
    }


def _reward(net: Any, x: jax.Array) -> jax.Array:
    bias = jnp.broadcast_to(net["bias"], (*x.shape[:-1], net["bias"].shape[0]))
    return jnp.tanh(x @ net["in"] + bias) @ net["out"]


def _standard(reward: jax.Array) -> jax.Array:
    return preference.standardise(reward, jnp.mean(reward), jnp.std(reward))


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_integer("seeds", 40, "gold rewards and sets of labels", lower_bound=2)
    flags.DEFINE_float("noise", 0.25, "share of labels that are wrong", lower_bound=0.0, upper_bound=0.5)
    launch.run(main)
