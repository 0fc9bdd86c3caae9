"""The reward model: an ensemble that learns which response the ranker prefers.

Deterministic members: the rule verifiers and small networks on the evidence. Stochastic members read
the text: scalar, dropout and Gaussian heads on the last valid token of one language model, which a KL
term keeps near its own start. All scores are unbounded; only their difference to NULL ever matters.

Sources: Ouyang et al. 2022, InstructGPT, eq. 1; Yang et al. 2024, Regularizing Hidden States (GRM);
Coste et al. 2023, Reward Model Ensembles.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from aco_jax.models import lora, transformer
from aco_jax.ops import divergence, masking, preference, sequences
from aco_jax.types import Metrics, Params, Preference

KINDS = ("rules", "evidence", "scalar", "dropout", "Gaussian")
COMBINATIONS = ("mean", "worst_case", "uncertainty_weighted")


@dataclass(frozen=True)
class Config:
    """Members stand in this order: rules, evidence, scalar, dropout, Gaussian heads."""

    model: transformer.Config  # decoder-only
    evidence_size: int  # F
    relations: int = 1  # Y
    rank: int = 0  # of the adapters of a trunk that others share; 0: the trunk is its own
    evidence_heads: int = 2
    evidence_width: int = 32
    scalar_heads: int = 1
    dropout_heads: int = 2
    dropout_rate: float = 0.2
    gaussian_heads: int = 1
    kl_weight: float = 0.1
    label_smoothing: float = 0.0  # chance that a preference is the wrong way round
    margin: float = 0.0  # by which a preferred response should be ahead
    centring: float = 0.0  # weight of the text heads' squared sum over a pair
    combination: str = "mean"  # of the members, one of COMBINATIONS; or one of KINDS: of these members alone
    spread_coefficient: float = 0.5  # k of mean - k * variance, where that is the combination
    hollow_weight: float = 0.0  # of what is taught of a response beside the same with words that add nothing
    hollow_label: float = 0.6  # chance that the former is better; 0.5 says that both are worth the same

    @property
    def kinds(self) -> dict[str, slice]:
        """Which of the members are of which kind."""
        counts = (1, self.evidence_heads, self.scalar_heads, self.dropout_heads, self.gaussian_heads)
        ends = list(itertools.accumulate(counts))
        return {name: slice(end - count, end) for name, end, count in zip(KINDS, ends, counts, strict=True)}

    @property
    def members(self) -> int:
        return 1 + self.evidence_heads + self.text_heads

    @property
    def text_heads(self) -> int:
        return self.scalar_heads + self.dropout_heads + self.gaussian_heads

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """The dropout rate of each text head."""
        return (0.0,) * self.scalar_heads + (self.dropout_rate,) * self.dropout_heads + (0.0,) * self.gaussian_heads


@struct.dataclass
class Hollow:
    """B responses, and the same with words that say nothing new."""

    plain: chex.Array  # [B, T] int32
    hollow: chex.Array  # [B, T] int32
    mask: chex.Array  # [B] bool


class EvidenceHead(nn.Module):
    """Evidence [.., F] -> a score for each relation [.., Y]."""

    width: int
    relations: int

    @nn.compact
    def __call__(self, evidence: chex.Array) -> chex.Array:
        x = nn.gelu(nn.Dense(self.width)(evidence))
        return nn.Dense(self.relations)(x)


def init(key: chex.PRNGKey, config: Config) -> Params:
    """Parameters {'trunk', 'start', 'heads', 'evidence'}; 'start' is a copy of the trunk, never trained."""
    trunk_key, head_key, evidence_key = jax.random.split(key, 3)
    trunk = lora.fresh(trunk_key, config.model, config.rank)
    shape = (
        config.model.width,
        config.text_heads + config.gaussian_heads,
    )  # a Gaussian head has a variance too
    heads = jax.random.normal(head_key, shape) / jnp.sqrt(config.model.width)
    module = EvidenceHead(config.evidence_width, config.relations)
    keys = jax.random.split(evidence_key, config.evidence_heads)
    evidence = jax.vmap(lambda k: module.init(k, jnp.zeros(config.evidence_size))["params"])(keys)
    return {"trunk": trunk, "start": jax.tree.map(jnp.copy, trunk), "heads": heads, "evidence": evidence}


def restart(params: Params) -> Params:
    """Makes the present trunk the start that the KL term holds on to."""
    return params | {"start": jax.tree.map(jnp.copy, params["trunk"])}


def score(params: Params, config: Config, batch: Preference, scale: chex.Array, key: chex.PRNGKey):
    """Reward of stating each relation for each candidate of one anchor, less that of NULL.

    Args:
        batch: the responses of one anchor; pairs are not looked at.
        scale: [E], the standard deviation of each member's difference on the reference set.
        key: draws the dropout and Gaussian members; None gives their means.

    Returns:
        reward [K, Y] and spread [K, Y] (standard deviation over members), both unit-free.
    """
    return combine(config, member_scores(params, config, batch, key), scale)


def combine(config: Config, scores: chex.Array, scale: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Reward and spread [K, Y] of the members' scores [E, K * Y], each divided by its scale [E]."""
    scaled = scores / scale[:, None]
    if config.combination in KINDS:
        scaled = scaled[config.kinds[config.combination]]
    if config.combination == "worst_case":
        reward = jax.vmap(preference.ensemble_worst, 1)(scaled)
    else:
        weight = config.spread_coefficient if config.combination == "uncertainty_weighted" else 0.0
        reward = jax.vmap(preference.ensemble_uncertainty_weighted, (1, None))(scaled, weight)
    shape = (-1, config.relations)
    return reward.reshape(shape), jnp.std(scaled, axis=0).reshape(shape)


def member_scores(params: Params, config: Config, batch: Preference, key: chex.PRNGKey | None) -> chex.Array:
    """Each member's score less its score of NULL, [E, n - 1], for one anchor."""
    mean, variance = _text_scores(params, config, _last_hidden(params, config, batch.response), key)
    if key is not None:
        mean = mean + jnp.sqrt(variance) * jax.random.normal(jax.random.fold_in(key, 1), variance.shape)
    return jnp.concatenate([_table_scores(params, config, batch), mean[:, :-1] - mean[:, -1:]])


def margins(params: Params, config: Config, batch: Preference) -> chex.Array:
    """By how much each member says that the first of each pair is ahead, [E, P], for one anchor; log-odds.

    Stochastic members by their means. A Gaussian member is the less sure of a pair the larger its variance.
    """
    text, text_variance = _text_scores(params, config, _last_hidden(params, config, batch.response), None)
    scores, variance = _with_table(_table_scores(params, config, batch), text, text_variance)
    margin, pair_variance = _pairs(scores, variance, batch)
    return margin / _doubt(pair_variance)


def text_value(params: Params, config: Config, response: chex.Array) -> chex.Array:
    """Mean of the text heads for responses [n, T], padded on any side, [n]; of use in differences only."""
    mean, _ = _text_scores(params, config, _last_hidden(params, config, response), None)
    return jnp.mean(mean, axis=0)


def loss(
    params: Params, config: Config, batch: Preference, key: chex.PRNGKey, hollow: Hollow | None = None
) -> tuple[chex.Array, Metrics]:
    """Bradley-Terry over all pairs of each ranking, for each member, and the KL to the start.

    Args:
        batch: leading axis [B].
        key: draws the dropout masks.
        hollow: of which the text heads learn that the plain response is the better one.

    Returns:
        loss (nats) and metrics: accuracy of the mean reward and of the text members, KL (nats a token).
    """
    keys = jax.random.split(key, batch.weight.shape[0])
    batch = dataclasses.replace(batch, response=transformer.align_left(batch.response))
    # Of the first response the KL term below reads every state, of the others the last is enough.
    states = transformer.decode(params["trunk"], config.model, batch.response[:, 0])
    first = jnp.take_along_axis(states, sequences.last_valid(batch.response[:, :1])[..., None], axis=1)
    hidden = jnp.concatenate([first, _last_hidden(params, config, batch.response[:, 1:])], axis=1)  # [B, n, D]
    text, text_variance = jax.vmap(lambda h, k: _text_scores(params, config, h, k))(hidden, keys)
    table = jax.vmap(lambda b: _table_scores(params, config, b))(batch)
    scores, variance = _with_table(table, text, text_variance)  # [B, E, n]
    margin, pair_variance = jax.vmap(_pairs)(scores, variance, batch)  # [B, E, P]
    doubt = _doubt(pair_variance)
    losses = jnp.vectorize(preference.bradley_terry_loss)(
        margin / doubt, 0.0, 1.0 - config.label_smoothing, config.margin / doubt
    )
    total = jnp.maximum(jnp.sum(batch.weight), 1e-6)
    # The rules, member 0, have no parameters.
    bradley_terry = jnp.sum(losses[:, 1:] * batch.weight[:, None]) / (total * (config.members - 1))
    kl = drift(params, config, states, batch.response[:, 0])
    right = jnp.sum((jnp.mean(margin, axis=1) > 0) * batch.weight) / total
    text_right = jnp.sum((jnp.mean(margin[:, -config.text_heads :], axis=1) > 0) * batch.weight) / total
    metrics = {"bradley_terry": bradley_terry, "kl": kl, "accuracy": right, "text_accuracy": text_right}
    # NULL fixes the offset of the other members at 0; a text head's is free, and may drift.
    offsets = jax.vmap(_centring)(text, batch)
    centring = jnp.sum(offsets * batch.weight[:, None]) / (total * config.text_heads)
    value = bradley_terry + config.kl_weight * kl + config.centring * centring
    if hollow is None:
        return value, metrics
    emptier, metrics["hollow_margin"] = hollow_loss(params, config, hollow, jax.random.fold_in(key, 1))
    return value + config.hollow_weight * emptier, metrics


def hollow_loss(params: Params, config: Config, batch: Hollow, key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
    """Bradley-Terry of the text heads, plain responses beside hollow ones, nats; and their mean margin.

    The label is soft: heads that may be sure fear all that makes a response longer, an honest reason too. Rules and
    evidence heads do not read the text: to them both are alike.
    """
    keys = jax.random.split(key, batch.mask.shape[0])
    hidden = _last_hidden(params, config, jnp.stack([batch.plain, batch.hollow], axis=1))  # [B, 2, D]
    score, variance = jax.vmap(lambda h, k: _text_scores(params, config, h, k))(hidden, keys)  # [B, E, 2]
    margin = score[..., 0] - score[..., 1]
    losses = jnp.vectorize(preference.bradley_terry_loss)(
        margin / _doubt(jnp.sum(variance, axis=-1)), 0.0, config.hollow_label
    )
    mean_loss, mean_margin = (masking.masked_mean(jnp.mean(x, axis=1), batch.mask) for x in (losses, margin))
    return mean_loss, mean_margin


def language_loss(params: Params, config: Config, tokens: chex.Array) -> tuple[chex.Array, Metrics]:
    """Next-token cross-entropy of the trunk on responses [B, T], nats a token: how the trunk starts."""
    log_probs = transformer.log_probs(params["trunk"], config.model, tokens[:, :-1])
    losses = -jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    mask = tokens[:, 1:] != 0
    value = jnp.sum(losses * mask) / jnp.maximum(jnp.sum(mask), 1)
    return value, {"language": value}


def drift(params: Params, config: Config, states: chex.Array, tokens: chex.Array) -> chex.Array:
    """KL(trunk, start) of the next token through the kept language-model head, nats a token.

    Args:
        states: [B, T, D], the trunk's hidden states of tokens [B, T].
    """
    now = transformer.next_log_probs(params["trunk"], config.model, states, tokens)
    start = jax.lax.stop_gradient(transformer.log_probs(params["start"], config.model, tokens))
    return jnp.mean(jax.vmap(divergence.kl_tokens)(now, start, tokens != 0))


def update_scale(scale: chex.Array, scores: chex.Array, mask: chex.Array, rate: float) -> chex.Array:
    """Moves the running root mean square [E] towards that of scores [B, E, n - 1], masked [B, n - 1]."""
    count = jnp.maximum(jnp.sum(mask), 1)
    square = jnp.sum(jnp.square(scores) * mask[:, None, :], axis=(0, 2)) / count
    return jnp.sqrt((1 - rate) * jnp.square(scale) + rate * jnp.maximum(square, 1e-6))


def _last_hidden(params: Params, config: Config, response: chex.Array) -> chex.Array:
    """Hidden state at the last valid token of each response, [.., T] -> [.., D]."""
    rows = transformer.align_left(response.reshape(-1, response.shape[-1]))
    hidden = transformer.decode_at(params["trunk"], config.model, rows, sequences.last_valid(rows))
    return hidden.reshape(*response.shape[:-1], -1)


def _text_scores(params: Params, config: Config, hidden: chex.Array, key: chex.PRNGKey | None):
    """Mean and variance of the text heads on hidden states [n, D]: [E_text, n] each."""
    heads = params["heads"].T  # [E_text + gaussian, D]
    if key is not None:
        rate = jnp.asarray(config.dropout_rates)
        kept = jax.random.bernoulli(key, 1 - rate[:, None], (rate.size, hidden.shape[-1]))
        # One mask a member, shared by all responses: members differ, a ranking stays comparable.
        heads = heads.at[: config.text_heads].multiply(kept / (1 - rate[:, None]))
    out = heads @ hidden.T
    mean, log_variance = out[: config.text_heads], out[config.text_heads :]
    fixed = config.text_heads - config.gaussian_heads
    variance = jnp.concatenate([jnp.zeros((fixed, mean.shape[-1])), jax.nn.softplus(log_variance)])
    return mean, variance


def _table_scores(params: Params, config: Config, batch: Preference) -> chex.Array:
    """Scores of the rules and the evidence heads for one anchor, NULL standing at 0: [1 + E_evidence, n - 1]."""
    head = EvidenceHead(config.evidence_width, config.relations)
    learned = jax.vmap(lambda p: jnp.asarray(head.apply({"params": p}, batch.evidence)))(params["evidence"])
    return jnp.concatenate([batch.rules[None], learned]).reshape(1 + config.evidence_heads, -1)


def _with_table(table: chex.Array, text: chex.Array, text_variance: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Scores of all members, table [.., n - 1] first and NULL last, and the variance of each, [.., E, n] each."""
    null = jnp.zeros((*table.shape[:-1], 1))
    scores = jnp.concatenate([jnp.concatenate([table, null], axis=-1), text], axis=-2)
    variance = jnp.concatenate([jnp.zeros((*table.shape[:-1], text.shape[-1])), text_variance], axis=-2)
    return scores, variance


def _doubt(variance: chex.Array) -> chex.Array:
    """By what a margin of this variance is divided to be log-odds again (the probit approximation)."""
    return jnp.sqrt(1 + jnp.pi / 8 * variance)


def _centring(scores: chex.Array, batch: Preference) -> chex.Array:
    """The squared sum of each pair's scores, [E, n] -> [E, P]."""
    return jnp.vectorize(preference.centring_loss)(scores[:, batch.chosen], scores[:, batch.rejected])


def _pairs(scores: chex.Array, variance: chex.Array, batch: Preference) -> tuple[chex.Array, chex.Array]:
    """Margin of chosen over rejected and the variance of that margin, [E, n] -> [E, P] each."""
    margin = scores[:, batch.chosen] - scores[:, batch.rejected]
    return margin, variance[:, batch.chosen] + variance[:, batch.rejected]
