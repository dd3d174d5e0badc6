"""Measures latency, bandwidth and addition where it runs, for a cluster's file.

Two ranks send each other messages at once, over the transport and engine that exchanges use, again
and again and all sizes in turn; the line alpha + n beta is fitted to the medians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Arrays
from commbench.errors import UserError
from commbench.grouped import exchange_over
from commbench.job import Job
from commbench.schedule import Piece, Recv, Round, Schedule, Send
from commbench.transport import Transport

_SWAPS = 8  # in one run, so that what a run takes by itself hardly counts
_ADDED_BYTES = 1 << 20  # as long as the segments in which messages are added
_WARMUP = 3


@dataclass(frozen=True, eq=False)
class Line:
    """Seconds over bytes: ``latency_s + n / bandwidth``, and what it was fitted to.

    Attributes:
        latency_s, bandwidth: of the line.
        sizes: bytes of a message, ``(sizes,)``.
        seconds: measured, median, ``(sizes,)``.
    """

    latency_s: float
    bandwidth: float
    sizes: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def fitted(self) -> NDArray[np.float64]:
        """What the line gives at each size."""
        return self.latency_s + self.sizes / self.bandwidth

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Measured against fitted, at each size; 0 where they agree."""
        return self.seconds / self.fitted - 1


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        inside: between two ranks of a node; None where no node has two.
        between: between two nodes; None where there is one.
        reduce_rate: bytes that one rank adds in a second.
        ranks_per_node: of the node that has most.
        nodes: how many.
    """

    inside: Line | None
    between: Line | None
    reduce_rate: float
    ranks_per_node: int
    nodes: int


def calibrate(
    job: Job, transport: Transport, arrays: Arrays, sizes: Sequence[int], iterations: int
) -> Calibration:
    """Measure; collective over all ranks, every one of which gets the result.

    Args:
        job: the ranks, two or more.
        transport: over all of them.
        arrays: of its elements.
        sizes: bytes of a message.
        iterations: of every size, each of several messages.

    Raises:
        UserError: one rank alone, or a size that is no whole element.
    """
    if job.size < 2:
        raise UserError("calibrate measures what two ranks send: start it with mpirun -n 2 or more")
    counts = [size // arrays.kind.itemsize for size in sizes]
    if min(counts) < 1 or len(set(counts)) < 3:
        raise UserError("calibrate fits a line: give three sizes or more, of an element each")
    nodes = job.nodes()
    others = {
        "inside": next((rank for rank in range(1, job.size) if nodes[rank] == nodes[0]), None),
        "between": next((rank for rank in range(1, job.size) if nodes[rank] != nodes[0]), None),
    }
    lines = {
        name: None
        if peer is None
        else _line(job, transport, arrays, counts, iterations=iterations, peer=peer)
        for name, peer in others.items()
    }
    return Calibration(
        **lines,
        reduce_rate=_reduce_rate(job, arrays, iterations),
        ranks_per_node=max(nodes.count(node) for node in set(nodes)),
        nodes=len(set(nodes)),
    )


def fit_line(sizes: NDArray[np.float64], seconds: NDArray[np.float64]) -> Line:
    """The line of least absolute relative deviation, by weighted least squares again and again.

    Relative, so that short messages count as much as long ones; absolute, so that a few sizes at
    which a library changes its ways do not bend it. Where noise leaves no line that rises from
    above 0, latency is the least time there was, and bandwidth the most that was reached.

    Args:
        sizes: bytes, three or more different ones, ``(sizes,)``.
        seconds: above 0, ``(sizes,)``.
    """
    columns = np.stack([np.ones_like(sizes), sizes], axis=1)
    weights = 1 / seconds
    line = (0.0, 0.0)
    for _ in range(100):
        scaled = columns * weights[:, None]
        line, *_ = np.linalg.lstsq(scaled / scaled.max(axis=0), seconds * weights, rcond=None)
        line = line / scaled.max(axis=0)
        missed = np.abs(seconds - columns @ line) / seconds
        weights = 1 / (seconds * np.sqrt(np.maximum(missed, 1e-3)))
    latency_s, byte_s = (float(value) for value in line)
    if latency_s <= 0:
        latency_s = float(seconds.min())
    bandwidth = 1 / byte_s if byte_s > 0 else float((sizes / seconds).max())
    return Line(latency_s, bandwidth, sizes, seconds)


def swaps(rank: int, peer: int) -> Schedule:
    """Ranks 0 and `peer` swap halves of a buffer; the others do nothing."""
    if rank not in (0, peer):
        return Schedule(())
    other = peer if rank == 0 else 0
    mine, theirs = (Piece(int(one != 0), 2) for one in (rank, other))
    turn = Round((Send(mine, other), Recv(theirs, other, reduce=False)))
    return Schedule((turn,) * _SWAPS)


def _line(
    job: Job,
    transport: Transport,
    arrays: Arrays,
    counts: Sequence[int],
    *,
    iterations: int,
    peer: int,
) -> Line:
    """Time all sizes in turn between rank 0 and another."""
    buffer = transport.allocate(2 * max(counts))
    schedule = swaps(job.rank, peer)
    runs = [
        exchange_over(transport, schedule, buffer[: 2 * count], timeout_s=job.timeout_s).run
        for count in counts
    ]
    samples: NDArray[np.float64] = np.zeros((iterations + _WARMUP, len(counts)))
    for row in samples:
        for number, run in enumerate(runs):
            start = perf_counter()
            run()
            row[number] = (perf_counter() - start) / _SWAPS
    # What one of the two waits for the other to begin, the other does not.
    both = job.all_gather(samples[_WARMUP:])[[0, peer]].min(axis=0)
    sizes = np.array(counts, np.float64) * arrays.kind.itemsize
    return fit_line(sizes, np.median(both, axis=0))


def _reduce_rate(job: Job, arrays: Arrays, iterations: int) -> float:
    """Bytes that rank 0 adds in a second, while the others wait."""
    count = _ADDED_BYTES // arrays.kind.itemsize
    seconds: NDArray[np.float64] = np.zeros(iterations + _WARMUP)
    if job.rank == 0:
        work, wire = (arrays.work_of(arrays.wire_empty(count)) for _ in range(2))
        for turn in range(len(seconds)):
            start = perf_counter()
            for _ in range(_SWAPS):
                arrays.add(work, wire)
            arrays.synchronize()
            seconds[turn] = (perf_counter() - start) / _SWAPS
    median = np.median(job.all_gather(seconds)[0][_WARMUP:])
    return float(count * arrays.kind.itemsize / median)
