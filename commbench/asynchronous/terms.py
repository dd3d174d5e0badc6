"""What the servers and workers of a run have agreed on."""

from __future__ import annotations

from dataclasses import dataclass

from commbench.asynchronous.histogram import MOST_BINS
from commbench.asynchronous.ledger import most_updates


@dataclass(frozen=True)
class Terms:
    """The rules of one run.

    Attributes:
        workers: their ranks, increasing; all other ranks are servers.
        staleness: the bound, in steps.
        meetings: the numbers of steps after which all workers wait for each other, and hold the
            same weights: those at which the run is evaluated.
        steps: of the run.
    """

    workers: tuple[int, ...]
    staleness: float
    meetings: frozenset[int]
    steps: int

    @property
    def bins(self) -> int:
        """Of the histograms: enough for every staleness that can occur, if that is not many."""
        return min(most_updates(len(self.workers), self.staleness, self.steps) + 1, MOST_BINS)

    def servers(self, size: int) -> list[int]:
        """The ranks that serve, of so many."""
        return [rank for rank in range(size) if rank not in self.workers]
