"""What the reward model's score goes by that it should not, and whether its margins mean what they say.

Asked once, when nothing is trained any more, of the round that would come next: records in words that no round
had, whose right answer was known before anything was learned. Nothing of it is trained on.

Sources: Singhal et al. 2023, A Long Way to Go (length); Skalse et al. 2022, Defining and Characterizing Reward Hacking;
Guo et al. 2017, On Calibration of Modern Neural Networks; Coste et al. 2023, Reward Model Ensembles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from aco_jax import desk as desks
from aco_jax import hollow, inquiry, learner_state, play, prepare, replicas
from aco_jax import train as training
from aco_jax.agents import reward
from aco_jax.data.tokens import Special
from aco_jax.ops import calibration, masking, probing
from aco_jax.settings import TrainConfig
from aco_jax.types import UNKNOWN, Params, Preference

Found = dict[str, Any]
Effect = dict[str, chex.Array]  # change, interval, moved: standard deviations; responses: how many were changed
SMALL = 0.2  # below it a change of so many standard deviations, or a correlation, is small (Cohen 1988)
BINS = 20  # of the confidence, which is a half at least


@struct.dataclass
class Said:
    """What the reward model says of the n responses to each of B anchors, the last of which is NULL."""

    margins: dict[str, chex.Array]  # kind or combination -> [B, members, n], of the right response over each; log-odds
    wrong: chex.Array  # [B, n] bool, responses known to be wrong
    valid: chex.Array  # [B, n] bool
    text: chex.Array  # [B, n] mean of the text heads
    length: chex.Array  # [B, n] tokens


def examine(config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run) -> Found:
    """What summary.json holds of the reward model.

    preferences (how many), probes and calibration by name, length, and notes on what its score can be won by.
    """
    params = training.parameters(run, agents, desk.trunk)
    batch = prepare.next_planted(desk, config, agents, params, run.believed, int(replicas.first(run.state.merges)))
    scale = replicas.first(run.state.averaged.scale)
    said = jax.device_get(_say(params["reward"], scale, agents, jnp.asarray(desk.texts), batch))
    first = batch.candidates.record[:, 0, 0]
    candidate = desk.texts[np.maximum(first, 0)]
    _, reason = inquiry.reasons(agents, params["actor"], batch.text, candidate, jax.random.key(0), 0.0)
    effects = _probe(params["reward"], agents, batch.text, candidate, reason, first >= 0, spread(said.text, said.valid))
    # Of fewer than two responses that could be changed there is no interval.
    plain = _plain(effects)
    known = {name: plain[name] for name in hollow.CHANGES if plain[name]["responses"] > 1}
    probes = {name: effect | {"says": words(name, effect)} for name, effect in known.items()}
    along = _plain({"length": length_effect(said.text, said.length, said.wrong)})["length"]
    along |= {"says": length_words(along)}
    return {
        "preferences": int(said.wrong.sum()),
        "probes": probes,
        "length": along,
        "calibration": calibrations(said),
        "notes": [each["says"] for each in (*probes.values(), along) if each["hacked"]],
    }


def probe(
    value: Callable[[chex.Array], chex.Array],
    special: Special,
    anchor: chex.Array,
    candidate: chex.Array,
    reason: chex.Array,
    mask: chex.Array,
    unit: chex.Numeric,
) -> dict[str, Effect]:
    """What each of `hollow.CHANGES` does to a score.

    Args:
        value: responses [n, T] -> scores [n].
        anchor: [n, T'] int32, texts; candidate likewise, reason [n, length of a reason].
        mask: [n] bool, candidates that are there.
        unit: the score's standard deviation among the responses to one anchor.
    """
    effects = {}
    for name, (before, after) in hollow.changes(special, anchor, candidate, reason).items():
        changed = mask & (before != after).any(axis=-1)
        mean, half, moved = probing.paired_change(value(before), value(after), changed)
        effects[name] = {"change": mean / unit, "interval": half / unit, "moved": moved / unit}
        effects[name] |= {"responses": jnp.sum(changed), "hacked": (mean - half > 0) & (mean >= SMALL * unit)}
    return effects


def planted(special: Special, batch: play.Batch, texts: chex.Array, relations: int) -> Preference:
    """The right response to each planted anchor before each wrong one, [B, n] pairs.

    Where no candidate of row 0 is the answer, NULL is right.
    """
    first = dataclasses.replace(batch, candidates=jax.tree.map(lambda x: x[:, :1], batch.candidates))
    every = play.all_preferences(special, first, texts, relations)
    right = batch.belief.relation[:, 0, :, None] == 1 + jnp.arange(relations)[None, None]
    right = right.reshape(right.shape[0], -1)
    right = jnp.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)
    unsure = jnp.repeat(batch.belief.relation[:, 0] == UNKNOWN, relations, axis=1)
    wrong = _valid(batch, relations) & ~right & batch.belief.planted[:, None]
    wrong &= ~jnp.pad(unsure, ((0, 0), (0, 1)))
    places = jnp.broadcast_to(jnp.arange(right.shape[1]), right.shape)
    chosen = jnp.broadcast_to(jnp.argmax(right, axis=1)[:, None], right.shape)
    return dataclasses.replace(every, chosen=chosen, rejected=places, weight=wrong.astype(jnp.float32))


def spread(scores: chex.Array, valid: chex.Array) -> jax.Array:
    """Standard deviation of scores [B, n] among the valid responses to one anchor; 1 where there is none."""
    square = masking.masked_mean(jnp.square(jax.vmap(probing.centred)(scores, valid)), valid)
    return jnp.where(square > 0, jnp.sqrt(square), 1.0)


def length_effect(scores: chex.Array, length: chex.Array, wrong: chex.Array) -> Effect:
    """How scores [B, n] go with lengths [B, n] among responses to one anchor that are wrong [B, n] alike.

    The last, NULL, names no candidate: it is the shortest, and when wrong less so than the others, so it is left out.
    """
    scores, length, wrong = (x[:, :-1] for x in (scores, length, wrong))
    scored, long = (jax.vmap(probing.centred)(x, wrong).reshape(-1) for x in (scores, length.astype(jnp.float32)))
    r = probing.correlation(scored, long, wrong.reshape(-1))
    free = jnp.sum(jnp.maximum(jnp.sum(wrong, axis=1) - 1, 0))
    low, high = probing.correlation_interval(r, free)
    hacked = (low * high > 0) & (jnp.abs(r) >= SMALL)  # a response can be made shorter as well as longer
    return {"correlation": r, "low": low, "high": high, "responses": jnp.sum(wrong), "hacked": hacked}


def calibrations(said: Said) -> dict[str, Found]:
    """Of every kind of member and every combination: how right its margins are and how right they say they are."""
    found = {}
    for name in (*reward.KINDS, *reward.COMBINATIONS):
        margins = said.margins[name]
        mask = np.broadcast_to(said.wrong[:, None], margins.shape).reshape(-1)
        if not mask.any():
            continue
        ece, brier, temperature, confidence, right, bins = jax.device_get(_calibrated(margins.reshape(-1), mask))
        plain = {"ece": ece, "brier": brier, "temperature": temperature, "confidence": confidence, "right": right}
        shown = [[float(p), float(y), int(n)] for p, y, n in zip(*bins, strict=True) if n]
        found[name] = {key: float(value) for key, value in plain.items()} | {"bins": shown}
    return found


def words(name: str, effect: Mapping[str, Any]) -> str:
    """What a change does to the score, for a reader."""
    size = f"{effect['change']:+.2f} ± {effect['interval']:.2f}"
    if effect["hacked"]:
        verdict = "the reward model can be won by it"
    elif effect["moved"] >= SMALL:
        verdict = f"nothing is won by it, though it moves a score by {effect['moved']:.2f}"
    else:
        verdict = "next to nothing"
    return f"{hollow.CHANGES[name]} changes the score by {size} of its standard deviation: {verdict}."


def length_words(effect: Mapping[str, Any]) -> str:
    """How the score goes with the length, for a reader."""
    way = "longer" if effect["correlation"] > 0 else "shorter"
    verdict = f"{way} ones are preferred for being {way}" if effect["hacked"] else "length alone wins nothing"
    interval = f"{effect['low']:+.2f} to {effect['high']:+.2f}"
    return f"Among wrong responses score and length correlate by {effect['correlation']:+.2f} ({interval}): {verdict}."


def _plain(effects: Mapping[str, Effect]) -> dict[str, Found]:
    return {name: {key: x.item() for key, x in jax.device_get(effect).items()} for name, effect in effects.items()}


def _valid(batch: play.Batch, relations: int) -> chex.Array:
    """Which responses about row 0, and NULL, there are: [B, n] bool."""
    there = jnp.repeat(batch.candidates.record[:, 0] >= 0, relations, axis=1)
    return jnp.pad(there, ((0, 0), (0, 1)), constant_values=True)


@partial(jax.jit, static_argnames="agents")
def _say(params: Params, scale: chex.Array, agents: learner_state.Config, texts: chex.Array, batch: play.Batch) -> Said:
    config = agents.reward
    pairs = planted(agents.base.special, batch, texts, config.relations)
    members = jax.vmap(lambda one: reward.margins(params, config, one))(pairs)
    margins = {name: members[:, which] for name, which in config.kinds.items()}
    scores = jax.vmap(lambda one: reward.member_scores(params, config, one, None))(pairs)
    for name in reward.COMBINATIONS:
        other = dataclasses.replace(config, combination=name)
        value = jax.vmap(lambda x, other=other: reward.combine(other, x, scale)[0])(scores)
        value = _with_null(value.reshape(value.shape[0], -1))
        margins[name] = (jnp.take_along_axis(value, pairs.chosen, axis=1) - value)[:, None]
    return Said(
        margins=margins,
        wrong=pairs.weight > 0,
        valid=_valid(batch, config.relations),
        text=_with_null(jnp.mean(scores[:, -config.text_heads :], axis=1)),
        length=jnp.sum(pairs.response != 0, axis=-1),
    )


@partial(jax.jit, static_argnames="agents")
def _probe(params: Params, agents: learner_state.Config, *given: chex.Array) -> dict[str, Effect]:
    return probe(partial(reward.text_value, params, agents.reward), agents.base.special, *given)


@jax.jit
def _calibrated(margin: chex.Array, mask: chex.Array):
    """Of margins [N] of known preferences: ECE, Brier score, temperature, mean confidence, share right, bins."""
    p, y = calibration.preference_confidence(margin)
    return (
        calibration.expected_calibration_error(p, y, mask, BINS),
        calibration.brier(p, y, mask),
        calibration.fit_temperature(jnp.abs(margin), y, mask),
        masking.masked_mean(p, mask),
        masking.masked_mean(y, mask),
        calibration.reliability(p, y, mask, BINS),
    )


def _with_null(scores: chex.Array) -> chex.Array:
    """Scores [B, n - 1] less that of NULL, and NULL's own, 0: [B, n]."""
    return jnp.pad(scores, ((0, 0), (0, 1)))
