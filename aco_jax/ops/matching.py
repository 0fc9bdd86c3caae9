"""Which pairs of records are right, where every pair competes for both of its records.

On the host in float64: what the other pairs of a record say is the record's sum less the pair's own term, and float32
would lose the little that is left beside a sure pair.
"""

from __future__ import annotations

import numpy as np

LEAST, MOST = 1e-9, 1.0  # weight of a further partner: there is none; as if there were no other
_GREATEST_LOGIT, _LEAST_LOGIT = 12.0, -30.0
_GREATEST_REST = 60.0  # e to it can still be held
_SLIGHT = 1e-5  # odds of a pair that no other feels
_SETTLED = 1e-6  # change of a message in a step below which it has arrived
_HEARD = (1e-5, 1 - 1e-5)  # the least and the greatest probability that a pair has by itself


def partner_message(
    rest: np.ndarray, further: float, apart: np.ndarray | float = 0.0, together: np.ndarray | bool = True
) -> np.ndarray:
    """How much a record's other pairs leave of the odds of this one, in (0, 1].

    A record with n partners has the prior weight 1, 1, further, further^2, .. for n = 0, 1, 2, 3, ..: with 0 it has
    one partner at most, with 1 each pair stands for itself. With the other pairs' odds u and G = prod(1 + further u),
    the sets of partners that hold this pair have weight G beside 1 + (G - 1) / further of those that do not. Pairs that
    are not `together` with the others are a record's only one: they add their odds to the latter, and have 1 for G.

    Kschischang, Frey and Loeliger 2001, Factor Graphs and the Sum-Product Algorithm, at a factor of the count alone.

    Args:
      rest: sum of log(1 + further u) over the other pairs that may be together.
      further: in (0, 1].
      apart: sum of u over the other pairs that may not.
      together: whether this pair may.
    """
    rest = np.minimum(rest, _GREATEST_REST)
    return np.where(together, np.exp(rest), 1.0) / (1 + np.expm1(rest) / further + apart)


def further_weight(several: float, partnered: float) -> float:
    """The weight of a further partner, where the share `several` of the records with a partner has more than one.

    Where the prior odds that a record has a partner are `partnered`, shared by its many candidates, two partners are
    further x partnered / 2 times as likely as one; as of independent rare events (Poisson) where the weight is 1.
    """
    return float(np.clip(2 * several / max((1 - several) * partnered, 1e-12), LEAST, MOST))


def corners(pair: np.ndarray, heard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threes of records that pairs join: all three pairs of some [T, 3], the two there are of others [W, 2].

    Numbers in `pair` [P, 2], in which i < j and no pair stands twice; only those `heard` [P] bool are looked at.
    """
    chosen, size = np.flatnonzero(heard), int(pair.max(initial=-1)) + 1
    code = pair[chosen, 0].astype(np.int64) * size + pair[chosen, 1]
    order = np.argsort(code)
    chosen, code = chosen[order], code[order]
    record, other = np.concatenate([pair[chosen], pair[chosen, ::-1]]).T
    by_record = np.argsort(record, kind="stable")
    number = np.tile(chosen, 2)[by_record]
    record, other = record[by_record], other[by_record]
    place = np.arange(len(record))
    later = np.searchsorted(record, record, side="right") - place - 1  # pairs of the same record that come after
    first = np.repeat(place, later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    ends = np.sort(np.stack([other[first], other[second]], axis=1), axis=1)
    wanted = ends[:, 0].astype(np.int64) * size + ends[:, 1]
    third = np.minimum(np.searchsorted(code, wanted), max(len(code) - 1, 0))
    closed = code[third] == wanted if len(code) else np.zeros(0, bool)
    two = np.stack([number[first], number[second]], axis=1)
    three = np.concatenate([two[closed], chosen[third[closed], None]], axis=1)
    return np.unique(np.sort(three, axis=1), axis=0), two[~closed]  # each of the former was found three times


def transitive_message(p: np.ndarray, q: np.ndarray, violation: float) -> np.ndarray:
    """Log odds that two pairs of a triangle, of probabilities p and q, bring the third.

    Two pairs of the three without the third have the prior weight `violation` in [0, 1], 0 if none may be.
    """
    agreeing = p * q + (1 - p) * (1 - q)
    return np.log(np.maximum(agreeing + violation * (1 - agreeing), 1e-12) / (violation * p * q + 1 - p * q + 1e-12))


def agreement(p: np.ndarray, message: np.ndarray, violation: float) -> np.ndarray:
    """The log odds [n, 3] that three records bring each of their pairs, or [n, 2] where the third pair is not there.

    p [n, 3 or 2]: probabilities of the pairs, which hold what the three brought before, message [n, 3 or 2].
    """
    known = np.clip(p, 1e-6, 1 - 1e-6)
    apart = 1 / (1 + np.exp(message - np.log(known / (1 - known))))
    last = np.roll(apart, 2, axis=1) if p.shape[1] == 3 else np.zeros(1)
    return transitive_message(np.roll(apart, 1, axis=1), last, violation)


def grouped(pair: np.ndarray, probability: np.ndarray, violation: float, turns: int, possible: float) -> np.ndarray:
    """The probability of each pair [P] where records form groups, by damped sum-product between pairs and threes.

    Args:
      pair: [P, 2] records, i < j, no pair twice; what is not there is no pair of a group.
      probability: [P] of each pair by itself.
      violation: prior weight of two pairs of three records without the third.
      turns: of the messages.
      possible: probability from which others hear of a pair.
    """
    by_itself = np.clip(probability.astype(np.float64), *_HEARD)
    threes = corners(pair, probability > possible)
    brought = [np.zeros(each.shape) for each in threes]
    found = by_itself
    for _ in range(turns):
        brought = [
            (before + agreement(found[each], before, violation)) / 2
            for each, before in zip(threes, brought, strict=True)
        ]
        told = sum(
            np.bincount(each.ravel(), message.ravel(), len(pair)) for each, message in zip(threes, brought, strict=True)
        )
        found = 1 / (1 + np.exp(-(np.log(by_itself / (1 - by_itself)) + told)))
    return found.astype(np.float32)


def marginals(
    pair: np.ndarray,
    logit: np.ndarray,
    size: int,
    further: tuple[float, float],
    together: tuple[np.ndarray | bool, np.ndarray | bool] = (True, True),
    steps: int = 50,
) -> np.ndarray:
    """The probability of each pair [P] by damped sum-product between pairs and records.

    With no further partners on either side this is the balanced assignment with NULL on both sides.

    Args:
      pair: [P, 2] left and right record, no pair twice.
      logit: [P] log odds of a pair against NULL, if its records had no other.
      size: records in all.
      further: the weight of a further partner of a left record, and of a right one.
      together: [P] which pairs of a left record may be there together, and which of a right one.
      steps: of the messages at most.
    """
    odds = np.exp(np.clip(logit.astype(np.float64), _LEAST_LOGIT, _GREATEST_LOGIT))
    # Pairs that are next to impossible change nothing for others: they take at the end what those leave.
    near, far = np.flatnonzero(odds > _SLIGHT), np.flatnonzero(odds <= _SLIGHT)
    several = [np.broadcast_to(each, len(odds)) for each in together]
    sides = [(pair[near, side], further[side], several[side][near]) for side in (0, 1)]
    message = np.ones((2, len(near)))

    def heard(side: int) -> tuple[np.ndarray, np.ndarray]:
        """What each near pair adds to `rest` and to `apart` of its record's others, [n] each."""
        _, weight, free = sides[side]
        alone = odds[near] * message[1 - side]
        return np.where(free, np.log1p(weight * alone), 0.0), np.where(free, 0.0, alone)

    for _ in range(steps):
        before = message.copy()
        for side, (record, weight, free) in enumerate(sides):
            rest, apart = (np.maximum(np.bincount(record, own, size)[record] - own, 0.0) for own in heard(side))
            message[side] = (message[side] + partner_message(rest, weight, apart, free)) / 2
        if np.abs(message - before).max(initial=0.0) < _SETTLED:
            break
    left = np.ones((2, len(odds)))
    left[:, near] = message
    for side, (record, weight, _) in enumerate(sides):
        rest, apart = (np.bincount(record, own, size)[pair[far, side]] for own in heard(side))
        left[side, far] = partner_message(rest, weight, apart, several[side][far])
    whole = odds * left[0] * left[1]
    return (whole / (1 + whole)).astype(np.float32)
