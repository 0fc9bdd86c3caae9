"""Whether two things go together more often than by chance, on the host in float64."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy


def likelihood_ratio(both: np.ndarray, left: np.ndarray, right: np.ndarray, total: int) -> np.ndarray:
    """Twice the log of how much likelier two things go together as they do than by chance, 0 where they do so less.

    Dunning 1993, Accurate Methods for the Statistics of Surprise and Coincidence. Counts of any one shape; chi-squared
    with one degree of freedom where the two are independent.

    Args:
      both: cases that have both; left, right: that have the one, and the other; total: all cases.
    """
    cells = both, left - both, right - both, total - left - right + both
    margins = left, total - left, right, total - right
    inside, outside = (sum(xlogy(count, count) for count in counts) for counts in (cells, margins))
    found = 2 * (inside - outside + xlogy(total, total))
    return np.where(both * total > left * right, np.maximum(found, 0.0), 0.0)
