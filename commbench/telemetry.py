"""Brings every rank's step timings to rank 0 without a collective call.

Each rank keeps the rows of its last steps and sends them, by its own clock, about once a second;
rank 0 picks up what has arrived between two steps of its own. So recording never makes ranks wait
for each other, and rank 0's picture is at most a few seconds old.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from commbench.job import Job
from commbench.transport.waiting import wait_until

PHASES = ("input", "forward", "backward", "exchange", "update")
_TAG = 11
_INTERVAL_S = 1.0

Row = NDArray[np.float64]
Recorder = Callable[[int, int, "Took"], None]


@dataclass(frozen=True)
class Took:
    """What one step took on one rank.

    Attributes:
        loss_sum: over this rank's samples.
        seconds: of each phase, ``(phases,)``.
        exchanging: seconds in exchanges, hidden behind backward or not.
        last: seconds in the exchange of the last bucket.
        handed_in: when all gradients were there, by rank 0's clock; NaN where nobody waits.
    """

    loss_sum: float
    seconds: NDArray[np.float64]
    exchanging: float
    last: float
    handed_in: float

    def row(self, step: int) -> Row:
        """As it is sent."""
        rest = (self.exchanging, self.last, self.handed_in)
        return np.array([step, self.loss_sum, *self.seconds, *rest])

    @classmethod
    def of(cls, row: Row) -> Took:
        """The inverse of `row`."""
        return cls(float(row[1]), row[2:-3], *row[-3:].tolist())


_COLUMNS = 5 + len(PHASES)


class Telemetry:
    """One rank's end of it; rank 0 hands the rows on to `record`."""

    def __init__(self, job: Job, record: Recorder) -> None:
        """Open it; collective over all ranks.

        Args:
            job: the ranks.
            record: called on rank 0 as ``record(rank, step, took)``, in order of step for each
                rank.
        """
        self._job = job
        self._record = record
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the telemetry"):
            self._comm: MPI.Intracomm = job.comm.Dup()
        self._rows: list[Row] = []
        self._sending: list[tuple[MPI.Request, Any]] = []
        self._coming: list[tuple[int, MPI.Request, Row]] = []
        self._last = time.monotonic()
        self._open = set(range(1, job.size))

    def add(self, step: int, took: Took) -> None:
        """Take note of one step of this rank, and pass on what is due."""
        if self._job.rank == 0:
            self._record(0, step, took)
            self._collect()
            return
        self._rows.append(took.row(step))
        if time.monotonic() - self._last > _INTERVAL_S:
            self._post()

    def close(self) -> None:
        """Send the rest; rank 0 returns once it has every rank's last row.

        Raises:
            PeerTimeout: a rank's rows did not arrive in time.
        """
        rank, limit = self._job.rank, self._job.timeout_s
        if rank != 0:
            self._post()
            self._rows = [np.full(_COLUMNS, np.nan)]
            self._post()
            for request, _ in self._sending:
                wait_until(request.Test, limit, lambda: f"rank {rank} waits to hand in its timings")
            return
        wait_until(
            self._all_in, limit, lambda: f"rank 0 waits for the timings of ranks {self._open}"
        )

    def _all_in(self) -> bool:
        self._collect()
        return not self._open

    def _post(self) -> None:
        if self._rows:
            block = np.concatenate(self._rows)
            self._sending.append((self._comm.Isend(block, 0, _TAG), block))
            self._rows = []
        self._sending = [pair for pair in self._sending if not pair[0].Test()]
        self._last = time.monotonic()

    def _collect(self) -> None:
        # Never to wait here for a long message: its sender may be waiting for this rank meanwhile,
        # in an exchange through shared memory, where it does not call the library that sends it.
        status = MPI.Status()
        while message := self._comm.Improbe(MPI.ANY_SOURCE, _TAG, status):
            block = np.empty(status.Get_count(MPI.DOUBLE))
            self._coming.append((status.Get_source(), message.Irecv(block), block))
        coming, self._coming = self._coming, []
        late = set()
        for source, request, block in coming:
            if source in late or not request.Test():
                late.add(source)
                self._coming.append((source, request, block))
                continue
            for row in block.reshape(-1, _COLUMNS):
                if np.isnan(row[0]):
                    self._open.discard(source)
                else:
                    self._record(source, int(row[0]), Took.of(row))
