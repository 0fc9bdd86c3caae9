"""How far an expected F1 may be off, where truth is known as probabilities only. On the host, in float64."""

from __future__ import annotations

import numpy as np

LEVEL = 0.9  # of an interval
DRAWS = 400
POSSIBLE = 1e-3  # of less likely pairs only is drawn how many are true (Poisson)


def f1_interval(
    p: np.ndarray, said: np.ndarray, record: np.ndarray, seed: int = 0, missed: float = 0.0
) -> tuple[float, float]:
    """The interval of F1 over what may be true, which records there might have been, and whom one asks.

    Every draw asks one of C judges in turn, draws each pair's truth by its probability, and each record as often as
    a bootstrap would (Poisson weights; Oza and Russell 2001). What all judges are wrong about in the same way it
    cannot know.

    Args:
      p: [C, P] probability of each pair, by each judge.
      said: [P] bool, the pairs that are stated.
      record: [P] int, the record that brings the pair: pairs of one record come and go together.
      seed: of the draws.
      missed: true pairs that are expected beside these P.

    Returns:
      The lower and the upper end; 0 and 0 where nothing is stated and nothing possible.
    """
    possible = (p.max(axis=0) > POSSIBLE) | said
    rest = p[:, ~possible].sum(axis=1, dtype=np.float64)
    p, said = p[:, possible], said[possible]
    names, record = np.unique(record[possible], return_inverse=True)
    rng, found = np.random.default_rng(seed), np.full(DRAWS, np.nan)
    for draw in range(DRAWS):
        judge = draw % len(p)
        weight = rng.poisson(1.0, len(names))[record].astype(np.float64)
        true = rng.random(len(said)) < p[judge]
        total = float(weight @ said + weight @ true) + rng.poisson(rest[judge] + missed)
        if total:  # a draw may hold no record at all
            found[draw] = 2 * float(weight @ (true & said)) / total
    if np.isnan(found).all():
        return 0.0, 0.0
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
