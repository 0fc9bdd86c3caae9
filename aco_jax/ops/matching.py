"""Which pairs of records are right, where every pair competes for both of its records.

On the host in float64: what the other pairs of a record say is the record's sum less the pair's own term, and float32 would
lose the little that is left beside a sure pair.
"""

from __future__ import annotations

import numpy as np

LEAST, MOST = 1e-9, 1.0  # weight of a further partner: there is none; as if there were no other
_GREATEST_LOGIT, _LEAST_LOGIT = 12.0, -30.0
_WARM_UP, _EVERY = 10, 5  # steps of the messages before a weight is first estimated, and between estimates


def partner_message(rest: np.ndarray, further: np.ndarray | float) -> np.ndarray:
    """How much a record's other pairs leave of the odds of this one, in (0, 1].

    A record with n partners has the prior weight 1, 1, further, further^2, .. for n = 0, 1, 2, 3, ..: with 0 it has
    one partner at most, with 1 each pair stands for itself. With the other pairs' odds u and G = prod(1 + further u),
    the sets of partners that hold this pair have weight G beside 1 + (G - 1) / further of those that do not.

    Kschischang, Frey and Loeliger 2001, Factor Graphs and the Sum-Product Algorithm, at a factor of the count alone.

    Args:
      rest: sum of log(1 + further u) over the other pairs.
      further: in (0, 1].
    """
    return np.exp(rest) / (1 + np.expm1(rest) / further)


def partner_counts(odds: np.ndarray, record: np.ndarray, further: float, size: int) -> np.ndarray:
    """How likely each record has no partner, one, and more, [size, 3], by the odds [P] that its pairs bring it."""
    single = np.bincount(record, odds, size)
    some = np.expm1(np.minimum(np.bincount(record, np.log1p(further * odds), size), 60.0)) / further
    return np.stack([np.ones(size), single, np.maximum(some - single, 0.0)], axis=1) / (1 + some)[:, None]


def further_weight(counts: np.ndarray, partnered: float) -> float:
    """The weight of a further partner by the shares of records with none, one and more, counts [n, 3].

    Where the prior odds that a record has a partner are `partnered`, shared by its many candidates, two partners are
    further x partnered / 2 times as likely as one; as of independent rare events (Poisson) where the weight is 1.
    """
    _, one, more = counts.mean(axis=0)
    return float(np.clip(2 * more / max(one * partnered, 1e-12), LEAST, MOST))


def marginals(
    pair: np.ndarray, logit: np.ndarray, size: int, partnered: float, several: tuple[bool, bool], steps: int = 60
) -> tuple[np.ndarray, tuple[float, float]]:
    """The probability of each pair [P], and the weight of a further partner of the left and of the right records.

    Damped sum-product between pairs and records; where a side's records may have several partners, how
    much a further one weighs is estimated on the way (EM). Without, this is the balanced assignment with NULL on both sides.

    Args:
      pair: [P, 2] left and right record, no pair twice.
      logit: [P] log odds of a pair against NULL, if its records had no other.
      size: records in all.
      partnered: prior odds that a record has a partner, as the logits hold them.
      several: whether a left record, and a right one, may have several partners.
      steps: of the messages.
    """
    odds = np.exp(np.clip(logit.astype(np.float64), _LEAST_LOGIT, _GREATEST_LOGIT))
    sides = [np.flatnonzero(np.bincount(pair[:, side], minlength=size)) for side in (0, 1)]
    message, further = [np.ones(len(odds)), np.ones(len(odds))], [0.1 if many else LEAST for many in several]
    for step in range(steps):
        for side, many in enumerate(several):
            brought, record = odds * message[1 - side], pair[:, side]
            single = np.log1p(further[side] * brought)
            rest = np.clip(np.bincount(record, single, size)[record] - single, 0.0, 60.0)
            message[side] = (message[side] + partner_message(rest, further[side])) / 2
            if many and step >= _WARM_UP and step % _EVERY == 0:
                counts = partner_counts(brought, record, further[side], size)[sides[side]]
                further[side] = further_weight(counts, partnered)
    whole = odds * message[0] * message[1]
    return (whole / (1 + whole)).astype(np.float32), (further[0], further[1])
