"""Intervals of medians, and of ratios of medians, of times that were not taken in turn.

Two runs have no rounds in common, so nothing pairs their samples; `paired` is for those that have.
Each run's samples are drawn again, with replacement, and the spread of the medians so drawn is the
interval (Efron's percentile bootstrap, 1979). A step's time resembles the one before it, for the
machine drifts; so whole blocks of neighbours are drawn (Künsch, "The Jackknife and the Bootstrap
for General Stationary Observations", 1989), as long as the cube root of the number of samples.

Such an interval tells how well the samples of these runs fix their medians. What would be different
had the whole run been made at another hour, it cannot know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commbench.paired import median_interval

RISK = 0.05
DRAWS = 2000
FEWEST = 6
"""Samples without which there is no interval; as many as the sign test needs for 95 %."""
_AT_A_TIME = 4_000_000  # samples drawn at once, to bound memory


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; 0 and infinity where there are too few samples to say."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """``1.92 (1.80 to 2.05)``; a dash of what is not known."""
        if math.isnan(self.value):
            return "-"
        if not math.isfinite(self.high):
            return f"{self.value:.{digits}f} (too few samples)"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def scaled(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def verdict(self) -> str:
        """Of a ratio of times: ``slower`` or ``faster`` by the whole interval, else ``unclear``."""
        if self.low > 1:
            return "slower"
        return "faster" if self.high < 1 else "unclear"


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def median(samples: NDArray[np.float64]) -> Estimate:
    """The median of ``(n,)`` samples in the order they were taken in."""
    if not len(samples):
        return UNKNOWN
    value = float(np.median(samples))
    if len(samples) < FEWEST:
        return Estimate(value, 0.0, math.inf)
    return _interval(value, _drawn_medians(samples, 0))


def ratio_of_medians(over: NDArray[np.float64], under: NDArray[np.float64]) -> Estimate:
    """The median of one run's samples over that of another's, ``(n,)`` and ``(m,)``."""
    if not len(over) or not len(under) or not np.median(under):
        return UNKNOWN
    value = float(np.median(over) / np.median(under))
    if min(len(over), len(under)) < FEWEST:
        return Estimate(value, 0.0, math.inf)
    # Other numbers for each, or runs alike would be drawn alike and seem to differ in nothing.
    above, below = _drawn_medians(over, 0), _drawn_medians(under, 1)
    if not below.all():
        return Estimate(value, 0.0, math.inf)
    return _interval(value, above / below)


def paired_ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> Estimate:
    """The median of the ratios of ``(n,)`` times to those that were taken in turn with them."""
    if not len(over):
        return UNKNOWN
    each = over / under
    low, high = median_interval(each, RISK)
    return Estimate(float(np.median(each)), float(low), float(high))


def _interval(value: float, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(drawn, [100 * RISK / 2, 100 * (1 - RISK / 2)])
    return Estimate(value, float(low), float(high))


def _drawn_medians(samples: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Medians of `DRAWS` series of blocks, each as long as the samples; the same at every call."""
    count = len(samples)
    block = math.ceil(count ** (1 / 3))
    blocks = -(-count // block)
    random = np.random.default_rng(seed)
    rows = max(1, _AT_A_TIME // count)
    found = []
    for first in range(0, DRAWS, rows):
        begins = random.integers(0, count - block + 1, (min(rows, DRAWS - first), blocks, 1))
        places = (begins + np.arange(block)).reshape(len(begins), -1)[:, :count]
        found.append(np.median(samples[places], axis=1))
    medians: NDArray[np.float64] = np.concatenate(found)
    return medians
