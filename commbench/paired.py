"""Whether one exchange is faster than another: ratios of times taken in turn, with intervals.

In a round of a sweep every exchange has its turn, so the ratio of two times of one round is free of
what the machine did slowly: heat, clocks, other jobs. Its median over the rounds tells which of the
two is faster, and the sign test's interval how sure that is: no shape of the noise is assumed, only
that rounds do not lean on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

RISK = 0.05
"""That any of the intervals of one comparison does not hold its median."""


@dataclass(frozen=True)
class Ratios:
    """Times of exchanges over one exchange's, each ``(sizes, exchanges)``.

    Attributes:
        median: of the rounds' ratios.
        low, high: all these intervals hold their true medians but for `RISK`; 0 and infinity where
            there are too few rounds to say anything.
    """

    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def ratios_to(seconds: NDArray[np.float64], own: int) -> Ratios:
    """Hold all exchanges against one of them.

    Args:
        seconds: ``(sizes, exchanges, rounds)``.
        own: which of the exchanges.
    """
    each = seconds / seconds[:, own : own + 1]
    low, high = median_interval(each, RISK / comparisons(seconds.shape))
    return Ratios(np.median(each, axis=2), low, high)


def comparisons(shape: Sequence[int]) -> int:
    """How many intervals share the risk: one a size for every exchange but the one compared to."""
    return max(1, shape[0] * (shape[1] - 1))


def rounds_needed(shape: Sequence[int]) -> int:
    """The fewest rounds that can show an exchange to be faster: in all of them."""
    return ceil(log2(2 * comparisons(shape) / RISK))


def median_interval(
    samples: NDArray[np.float64], risk: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of the median of what the samples, on the last axis, were drawn from.

    The order statistics of the sign test (Conover, "Practical Nonparametric Statistics", 3.2): of n
    samples, as many lie below the median as heads fall in n tosses. With too few samples for the
    risk, 0 and infinity.
    """
    count = samples.shape[-1]
    outside, ways, heads = -1, 1, 1  # heads: ways to have outside + 1 heads or fewer
    while 2 * heads / 2**count <= risk:
        outside += 1
        ways = ways * (count - outside) // (outside + 1)
        heads += ways
    if outside < 0:
        nothing = np.zeros(samples.shape[:-1])
        return nothing, nothing + np.inf
    ordered = np.sort(samples, axis=-1)
    return ordered[..., outside], ordered[..., count - 1 - outside]
