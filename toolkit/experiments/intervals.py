"""How far the mean of a few seeds may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

__all__ = ["half_width"]

_CONFIDENCE = 0.95


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % interval (Student's t); NaN of fewer than two.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return float("nan")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(student.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)) * error
