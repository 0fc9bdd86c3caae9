"""A small ensemble that judges evidence: one score for each candidate, NULL ("none of these") at logit 0.

Its members are one tree with a leading axis E. `fit` trains all of them in one jitted scan, each on the lists
that its fold leaves it, with items of the evidence dropped at random: what chose the believed pairs must not
be all that a member can read.

A witness is a further network on a few of the items. It learns apart from the rest how much more often a partner than
another candidate looks like this; beside the text these items would be given little weight, for what was believed is a
function of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from aco_jax.types import UNRELATED, Belief, Candidates, Metrics, Params

LISTS = 4096  # lists that `fit` is compiled for, or a multiple


@dataclass(frozen=True)
class Witness:
    """A network that reads some items of the evidence alone."""

    name: str  # of its parameters
    columns: tuple[int, ...]
    credit: float = 1.0  # what its log ratio is multiplied by: less where the items are no independent evidence


@dataclass(frozen=True)
class Config:
    """Sizes and training of the judge."""

    columns: tuple[int, ...]  # the items of evidence it reads
    witnesses: tuple[Witness, ...] = ()
    relations: int = 1  # Y
    members: int = 4  # E
    widths: tuple[int, int] = (64, 32)
    witness_widths: tuple[int, int] = (16, 8)
    dropped: float = 0.2  # share of evidence items dropped, by list, in training
    learning_rate: float = 3e-3  # at the start; cosine decay to 0
    weight_decay: float = 1e-2
    steps: int = 300
    batch: int = 128  # lists a step, for each member


@partial(jax.jit, static_argnames="config")
def init(key: chex.PRNGKey, config: Config) -> Params:
    """{'network', and each witness by name}: {'hidden', 'middle', 'out'} of {'kernel' [E, .., ..], 'bias' [E, ..]}."""
    sizes = {"network": (len(config.columns), *config.widths)}
    sizes |= {witness.name: (len(witness.columns), *config.witness_widths) for witness in config.witnesses}
    keys = jax.random.split(key, len(sizes))
    return {
        name: _network_init(part, config.members, (*widths, config.relations))
        for part, (name, widths) in zip(keys, sizes.items(), strict=True)
    }


@partial(jax.jit, static_argnames="config")
def member_scores(params: Params, config: Config, evidence: chex.Array) -> chex.Array:
    """Evidence [.., K, F] -> logits [E, .., K, Y]: what the network says and, as odds multiply, the witnesses."""

    def score(member: Params) -> jax.Array:
        said = (each.credit * _testimony(member, each, evidence) for each in config.witnesses)
        return sum(said, _judgement(member, config, evidence))

    return jax.vmap(score)(params)


@partial(jax.jit, static_argnames=("config", "folds"))
def judged(params: Params, config: Config, evidence: chex.Array, fold: chex.Array, folds: int = 2) -> chex.Array:
    """Evidence [R, K, F] and folds [R] -> logits [R, K, Y] of the members that were not trained on the list."""
    return held_out(member_scores(params, config, evidence), fold, folds)


def judged_lists(params: Params, config: Config, evidence: np.ndarray, fold: np.ndarray, folds: int = 2) -> np.ndarray:
    """`judged` on the host, for any number of lists: compiled for LISTS of them, or a multiple."""
    seen, folds_of = _filled((np.asarray(evidence), np.asarray(fold)), len(fold))
    return np.asarray(judged(params, config, seen, folds_of, folds))[: len(fold)]


def held_out(scores: chex.Array, fold: chex.Array, folds: int = 2) -> jax.Array:
    """Scores [E, R, ..] and folds [R] -> [R, ..]: the mean of the members that were not trained on the list.

    Member e is trained on fold e modulo `folds`.
    """
    chex.assert_rank(fold, 1)
    apart = (jnp.arange(scores.shape[0]) % folds)[:, None] != fold[None]
    weight = apart.reshape(apart.shape + (1,) * (scores.ndim - 2)).astype(scores.dtype)
    return jnp.sum(scores * weight, axis=0) / jnp.sum(weight, axis=0)


def loss(member: Params, config: Config, candidates: Candidates, belief: Belief, keep: chex.Array) -> jax.Array:
    """The network's loss and the witnesses', of one member: their parameters and gradients are apart.

    The network's is a listwise softmax with NULL: -log p(a believed partner), or -log p(NULL) where there is none;
    several believed partners share the probability. A witness's is logistic, partners against other candidates of
    their lists at equal weight, so that its logit is the log ratio of the two densities (Qin 1998, Inferences for
    Case-Control and Semiparametric Two-Sample Density Ratio Models).

    candidates, belief: leaves [B, M + 1, K, ..]; keep [B, 1, 1, F']: 0 drops an item of evidence from the network.
    Relations are separate; the loss is their mean.
    """
    shape = (candidates.record.shape[0], -1, config.relations)
    known = ((candidates.record >= 0) & (belief.relation >= UNRELATED)).reshape(*shape[:2], 1)
    stated = belief.relation.reshape(*shape[:2], 1) == 1 + jnp.arange(config.relations)[None, None]
    related, other = known & stated, known & ~stated
    chosen = _choice(_judgement(member, config, candidates.evidence, keep).reshape(shape), known, related)
    apart = (
        _ratio(_testimony(member, each, candidates.evidence).reshape(shape), related, other)
        for each in config.witnesses
    )
    return sum(apart, chosen)


def _choice(scores: chex.Array, known: chex.Array, related: chex.Array) -> jax.Array:
    """Mean over lists of -log p(partner or NULL), for scores [B, n, Y], known [B, n, 1] and related [B, n, Y] bool."""
    null = jnp.zeros((scores.shape[0], 1, scores.shape[2]))
    total = jax.nn.logsumexp(jnp.concatenate([jnp.where(known, scores, -1e9), null], axis=1), axis=1)
    right = jnp.where(related.any(axis=1), jax.nn.logsumexp(jnp.where(related, scores, -1e9), axis=1), 0.0)
    return jnp.mean(total - right)


def _ratio(logits: chex.Array, related: chex.Array, other: chex.Array) -> jax.Array:
    """Mean over lists that have both of the logistic loss of partners and of others, each a half; all [B, n, Y]."""

    def mean(losses: jax.Array, mask: chex.Array) -> jax.Array:
        return jnp.sum(losses * mask, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)

    both = related.any(axis=1) & other.any(axis=1)
    losses = (mean(jax.nn.softplus(-logits), related) + mean(jax.nn.softplus(logits), other)) / 2
    return jnp.sum(losses * both) / jnp.maximum(jnp.sum(both), 1)


def fit(
    params: Params, config: Config, candidates: Candidates, belief: Belief, fold: np.ndarray, seed: int, folds: int = 2
) -> tuple[Params, Metrics]:
    """Trains every member on its fold's lists, drawn in proportion to their belief's weight.

    Where a fold has nothing believed, as in tables of a few records, its members learn from the others' lists. Raises
    ValueError where nothing at all is believed.
    """
    rng = np.random.default_rng(seed)
    weight = np.asarray(belief.weight, np.float64)
    if weight.sum() == 0:
        raise ValueError("no believed list, expected at least one")
    candidates, belief = _filled((candidates, belief), len(weight))
    draws = []
    for member in range(config.members):
        mine = weight * (np.asarray(fold) == member % folds)
        mine = mine if mine.sum() else weight
        draws.append(rng.choice(len(mine), (config.steps, config.batch), p=mine / mine.sum()))
    rows = jnp.asarray(np.stack(draws, axis=1), jnp.int32)
    params, losses = _fit(params, config, candidates, belief, rows, jax.random.key(seed))
    return params, {"judge_loss": losses[-1]}


@partial(jax.jit, static_argnames="config")
def _fit(
    params: Params, config: Config, candidates: Candidates, belief: Belief, rows: chex.Array, key: chex.PRNGKey
) -> tuple[Params, jax.Array]:
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimiser = optax.adamw(rate, weight_decay=config.weight_decay)
    shape = (config.batch, 1, 1, len(config.columns))

    def member_step(
        member: Params, state: optax.OptState, rows: chex.Array, key: chex.PRNGKey
    ) -> tuple[Params, optax.OptState, jax.Array]:
        keep = jax.random.bernoulli(key, 1 - config.dropped, shape).astype(jnp.float32)
        batch, believed = jax.tree.map(lambda x: x[rows], (candidates, belief))
        value, gradient = jax.value_and_grad(loss)(member, config, batch, believed, keep)
        update, state = optimiser.update(gradient, state, member)
        return optax.apply_updates(member, update), state, value

    def step(
        carry: tuple[Params, optax.OptState], inputs: tuple[chex.Array, chex.PRNGKey]
    ) -> tuple[tuple[Params, optax.OptState], jax.Array]:
        rows, key = inputs
        member, state, value = jax.vmap(member_step)(*carry, rows, jax.random.split(key, config.members))
        return (member, state), jnp.mean(value)

    start = (params, jax.vmap(optimiser.init)(params))
    (params, _), losses = jax.lax.scan(step, start, (rows, jax.random.split(key, config.steps)))
    return params, losses


def _filled(tree: Any, count: int) -> Any:
    """Leaves [n, ..] filled up to a multiple of LISTS, so that a few more lists compile nothing anew."""
    missing = -count % LISTS
    return jax.tree.map(lambda x: jnp.asarray(np.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1)))), tree)


def _network_init(key: chex.PRNGKey, members: int, sizes: tuple[int, ...]) -> Params:
    shapes = list(pairwise(sizes))
    stops = np.cumsum([inputs * outputs for inputs, outputs in shapes])
    drawn = jnp.split(jax.random.normal(key, (members, stops[-1])), stops[:-1], axis=1)
    spread = {"hidden": 1.0, "middle": 1.0, "out": 0.3}
    return {
        name: {
            "kernel": scale / np.sqrt(max(inputs, 1)) * part.reshape(members, inputs, outputs),
            "bias": jnp.zeros((members, outputs)),
        }
        for (name, scale), (inputs, outputs), part in zip(spread.items(), shapes, drawn, strict=True)
    }


def _judgement(member: Params, config: Config, evidence: chex.Array, keep: chex.Numeric = 1.0) -> jax.Array:
    return _network(member["network"], evidence[..., np.array(config.columns, int)] * keep)


def _testimony(member: Params, witness: Witness, evidence: chex.Array) -> jax.Array:
    return _network(member[witness.name], evidence[..., np.array(witness.columns, int)])


def _network(member: Params, x: chex.Array) -> jax.Array:
    for name in ("hidden", "middle"):
        x = jax.nn.gelu(_dense(member[name], x))
    return _dense(member["out"], x)


def _dense(layer: Params, x: chex.Array) -> jax.Array:
    y = x @ layer["kernel"]
    return y + jnp.broadcast_to(layer["bias"], y.shape)
