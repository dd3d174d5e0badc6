"""How stale the gradients were that a server applied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEASURES = ("updates", "clocks")
# Longer tails share the last bin; mean and maximum stay exact.
MOST_BINS = 1024


class Histogram:
    """Counts of one server, by worker, in two measures.

    ``updates`` is the number of updates applied to the shard between the pull of the weights that a
    gradient was computed from and its own update (Gupta et al., 2015, who subtract the timestamps
    of the weights). ``clocks`` is the number of preceding steps, counted back from the gradient's
    own, of which those weights lacked some worker's gradient: what the bound bounds.

    Attributes:
        counts: ``(2, workers, bins)``; the last bin also holds all that is larger.
        sums, largest: ``(2, workers)``, exact.
    """

    def __init__(self, workers: int, bins: int) -> None:
        """With all counts zero."""
        self.counts = np.zeros((len(MEASURES), workers, bins))
        self.sums = np.zeros((len(MEASURES), workers))
        self.largest = np.zeros((len(MEASURES), workers))

    def add(self, worker: int, updates: int, clocks: int) -> None:
        """Count one gradient of the worker at this place."""
        last = self.counts.shape[2] - 1
        for measure, value in enumerate((updates, clocks)):
            self.counts[measure, worker, min(value, last)] += 1
            self.sums[measure, worker] += value
            self.largest[measure, worker] = max(self.largest[measure, worker], value)

    def packed(self) -> NDArray[np.float64]:
        """All of it in one array ``(2, workers, bins + 2)``: counts, then sum and largest."""
        return np.concatenate([self.counts, self.sums[..., None], self.largest[..., None]], axis=2)


def describe(packed: NDArray[np.float64]) -> str:
    """In one line, from what `Histogram.packed` gave on all servers, ``(servers, ...)``."""
    counts, sums, largest = packed[..., :-2], packed[..., -2], packed[..., -1]
    total = counts[:, 0].sum()
    if total == 0:
        return "staleness: no gradient was applied"
    updates, clocks = (
        f"mean {sums[:, measure].sum() / total:.2f}, at most {largest[:, measure].max():.0f}"
        for measure in range(len(MEASURES))
    )
    shares = _shares(counts[:, 0].sum(axis=(0, 1)) / total)
    return f"staleness in updates: {updates} ({shares}); in steps: {clocks}"


def _shares(shares: Sequence[float] | NDArray[np.float64], most: int = 4) -> str:
    """The share of gradients at the smallest values: ``0: 60%, 1: 30%, more: 10%``."""
    told = [f"{value}: {share:.0%}" for value, share in enumerate(shares[:most]) if share]
    rest = float(np.sum(shares[most:]))
    return ", ".join([*told, f"more: {rest:.0%}"] if rest else told)
