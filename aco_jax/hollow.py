"""Responses that say nothing new: what was said already stands there again, or marks do that say nothing.

The reward model is taught, on some of these ways, that a response is better than the same with such words at its end.
It is never told of the others: what `probes` finds of those is a held-out test of whether it took the point.

Sources: Liu et al. 2024, RRM: Robust Reward Model Training Mitigates Reward Hacking (responses made by hand as the
worse ones); Skalse et al. 2022, Defining and Characterizing Reward Hacking.
"""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp

from aco_jax import play
from aco_jax.agents import reward
from aco_jax.data.tokens import Special
from aco_jax.types import Candidates

CHANGES = {  # of a response; none of them says anything new
    "repeated facts": "Saying the candidate's facts again",
    "longer reason": "Giving the same reason twice",
    "repeated separators": "Repeating the separator",
    "repeated ends": "Repeating the end",
    "other order": "Naming the candidate's attributes in the opposite order",
    "empty reason": "Leaving room for a reason and giving none",
    "copied reason": "Copying the anchor for a reason",
}
TAUGHT = ("repeated facts", "repeated separators", "repeated ends")
TIMES = 2  # that a separator or an end is repeated when it is probed


def changes(
    special: Special, anchor: chex.Array, candidate: chex.Array, reason: chex.Array
) -> dict[str, tuple[chex.Array, chex.Array]]:
    """Of each of CHANGES the responses before and after, [n, 2 T' + reason + 4] each: no longer than those it knows.

    Args:
        anchor: [n, T'] int32, texts; candidate likewise, reason [n, length of a reason].
    """
    room = reason.shape[-1]
    say = partial(play.respond, special, anchor, relation=1, reason_length=room)

    def then(*tokens: chex.Array) -> chex.Array:
        return jnp.concatenate([candidate, *tokens], axis=-1)

    def repeated(token: int) -> chex.Array:
        return jnp.full((*candidate.shape[:-1], TIMES), token, candidate.dtype)

    plain, half = say(candidate), reason[..., : room // 2]  # so that it fits twice
    once = say(candidate, reason=half)
    return {
        "repeated facts": (plain, say(then(candidate[..., 1 : room + 1]))),
        "longer reason": (once, say(candidate, reason=jnp.concatenate([half, half], axis=-1))),
        "repeated separators": (once, say(then(repeated(special.sep)), reason=half)),
        "repeated ends": (plain, say(then(repeated(special.eos)))),
        "other order": (plain, say(reordered(special, candidate))),
        "empty reason": (plain, say(candidate, reason=jnp.zeros_like(reason))),
        "copied reason": (plain, say(candidate, reason=anchor[..., 1 : room + 1])),
    }


def reordered(special: Special, text: chex.Array) -> chex.Array:
    """Texts [n, T] with their attributes in the opposite order; what stands before the first stays."""
    heads = (text >= special.column(0)) & (text <= special.column(-1))
    attribute = jnp.cumsum(heads, axis=-1)
    place = jnp.where(attribute == 0, -text.shape[-1], -attribute)
    place = jnp.where(text == 0, 1, place)  # padding stays last
    return jnp.take_along_axis(text, jnp.argsort(place, axis=-1, stable=True), axis=-1)


def lessons(
    special: Special,
    key: chex.PRNGKey,
    anchor: chex.Array,
    candidates: Candidates,
    texts: chex.Array,
    relations: int,
    room: int,
) -> reward.Hollow:
    """A relation stated for one of row 0's candidates of each anchor, all drawn, and the same said hollowly.

    Args:
        anchor: [B, T] int32.
        candidates: leaves [B, M + 1, K, ..].
        texts: [N, T] int32 of all records.
        room: tokens that are added at most, as many as a reason has.
    """
    keys = jax.random.split(key, 3)
    record = candidates.record[:, 0]
    drawn = jnp.where(record >= 0, jax.random.uniform(keys[0], record.shape), -1.0)
    record = jnp.take_along_axis(record, jnp.argmax(drawn, axis=1)[:, None], axis=1)[:, 0]
    candidate = texts[jnp.maximum(record, 0)]
    stated = jax.random.randint(keys[1], record.shape, 1, relations + 1)
    tail = _tails(special, keys[2], candidate, room)

    def say(candidate: chex.Array) -> chex.Array:
        said = play.respond(special, anchor, candidate, 1, reason_length=room)
        return said.at[:, 0].set(special.first_relation + stated)

    return reward.Hollow(
        plain=say(candidate), hollow=say(jnp.concatenate([candidate, tail], axis=-1)), mask=record >= 0
    )


def _tails(special: Special, key: chex.PRNGKey, candidate: chex.Array, room: int) -> chex.Array:
    """What adds nothing, one of TAUGHT for each candidate [n, T]: 1 to `room` tokens, padded with 0, [n, room]."""
    kinds, lengths, starts = jax.random.split(key, 3)
    count = candidate.shape[0]
    words = jnp.maximum(jnp.sum(candidate != 0, axis=1, keepdims=True), 1)
    start = jax.random.randint(starts, (count, 1), 0, words)
    facts = jnp.take_along_axis(candidate, (start + jnp.arange(room)[None]) % words, axis=1)
    marks = [jnp.full_like(facts, token) for token in (special.sep, special.eos)]
    kind = jax.random.randint(kinds, (1, count, 1), 0, len(TAUGHT))
    tail = jnp.take_along_axis(jnp.stack([facts, *marks]), kind, axis=0)[0]
    length = jax.random.randint(lengths, (count, 1), 1, room + 1)
    return jnp.where(jnp.arange(room)[None] < length, tail, 0)
