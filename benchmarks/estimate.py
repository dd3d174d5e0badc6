"""Medians with intervals that assume nothing about how the samples are distributed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.paired import RISK, median_interval


@dataclass(frozen=True)
class Estimate:
    """A median and the interval that holds the true one with 95 % confidence."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """``2.31 [2.20, 2.44]``."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def estimate(samples: NDArray[Any]) -> Estimate:
    """The median of ``(n,)`` samples and its interval; samples that are NaN are left out."""
    known = samples[np.isfinite(samples)]
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan)
    low, high = median_interval(known, RISK)
    return Estimate(float(np.median(known)), float(low), float(high))
