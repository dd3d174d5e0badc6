"""Where a step's time goes: from a step that exchanges nothing up to the one measured.

| rung | what a step takes |
|-|-|
| no exchange | input, forward, backward and update |
| perfect overlap | more by what the exchanges, without waiting, take longer than backward |
| last bucket exposed | more by the last bucket's exchange, at least: backward fills it at its end |
| measured | more by waiting for the slowest rank, and by all else that overlap does not hide |

All are means over steps and over the ranks with data, but for the first step, which pays for memory
and for peers that are still starting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.telemetry import PHASES, Took

RUNGS = ("no exchange", "perfect overlap", "last bucket exposed", "measured")
_BACKWARD, _EXCHANGE = PHASES.index("backward"), PHASES.index("exchange")


def rungs(took: Took, waiting: float) -> NDArray[np.float64]:
    """Seconds of one step of one rank on each rung.

    Args:
        took: the step.
        waiting: of its exchange phase, the seconds until the slowest rank was there too.
    """
    seconds = took.seconds.tolist()
    measured = sum(seconds)
    alone = measured - seconds[_EXCHANGE]
    overlapped = alone + max(0.0, took.exchanging - waiting - seconds[_BACKWARD])
    # The wait is part of the last exchange: no rank gets through it before the slowest comes.
    exposed = max(overlapped, alone + max(0.0, took.last - waiting))
    return np.array([min(rung, measured) for rung in (alone, overlapped, exposed, measured)])


class Headroom:
    """Sums the ladder up over a run."""

    def __init__(self, workers: Sequence[int]) -> None:
        """`workers` are the ranks with data."""
        self._workers = list(workers)
        self._steps = 0
        self._sums = np.zeros(len(RUNGS))
        self._waiting = 0.0
        self._last = np.zeros(len(self._workers), int)

    def add(self, everyone: Sequence[Took]) -> NDArray[np.float64]:
        """Take in a step of all ranks; how long each waited for the slowest, in seconds."""
        handed_in = np.array([took.handed_in for took in everyone])
        exposed = np.array([took.seconds[_EXCHANGE] for took in everyone])
        latest = handed_in[self._workers].max()
        waiting: NDArray[np.float64] = np.minimum(np.maximum(latest - handed_in, 0), exposed)
        self._steps += 1
        if self._steps == 1:
            return waiting
        own = [rungs(everyone[rank], waiting[rank]) for rank in self._workers]
        self._sums += np.mean(own, axis=0)
        self._waiting += float(waiting[self._workers].mean())
        if np.isfinite(latest):
            self._last[handed_in[self._workers].argmax()] += 1
        return waiting

    def attributes(self) -> dict[str, Any]:
        """What the run file keeps; nothing of fewer than two steps, or where nobody waits."""
        if not self._last.sum():
            return {}
        slowest = int(self._last.argmax())
        return {
            "headroom_rungs": list(RUNGS),
            "headroom_s": (self._sums / (self._steps - 1)).tolist(),
            "waiting_s": self._waiting / (self._steps - 1),
            "slowest_rank": self._workers[slowest],
            "slowest_rank_share": float(self._last[slowest] / self._last.sum()),
        }

    def told(self) -> str:
        """The same in two lines; "" of nothing."""
        known = self.attributes()
        if not known or len(self._workers) < 2:
            return ""
        seconds = known["headroom_s"]
        more = [f"{name} +{s / seconds[0] - 1:.1%}" for name, s in zip(RUNGS, seconds, strict=True)]
        return (
            f"headroom of a step: {RUNGS[0]} {seconds[0] * 1e3:.1f} ms -> {' -> '.join(more[1:])}\n"
            f"waiting for the slowest rank: {known['waiting_s'] * 1e3:.1f} ms a step; last was "
            f"rank {known['slowest_rank']} in {known['slowest_rank_share']:.0%} of the steps"
        )
