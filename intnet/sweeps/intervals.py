"""The mean of a few values, and its interval."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_half(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half its 95 % interval by Student's t; NaN of none, None for the half of fewer than two."""
    if not values:
        return math.nan, None
    if len(values) < 2:
        return float(values[0]), None
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)
