"""One clock for all ranks: how far each one's `perf_counter` is from rank 0's."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from commbench.job import Job
from commbench.transport.waiting import wait_until

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 12
_ROUNDS = 20


def clock_offset(job: Job) -> float:
    """What to add to this rank's `perf_counter` to get rank 0's, in seconds; collective.

    Processes of one node have one clock. Another node's lowest rank asks rank 0 several times, and
    the answer that came back fastest is taken to have been given halfway (Cristian, "Probabilistic
    clock synchronization", 1989): it is off by half of that round trip at most.
    """
    nodes = job.nodes()
    with job.watchdog.guard(f"rank {job.rank} waits for all ranks to compare clocks"):
        comm: MPI.Intracomm = job.comm.Dup()
    offset = 0.0
    for rank in range(job.size):
        if not rank == nodes[rank] != nodes[0]:
            continue
        if job.rank == 0:
            _answer(job, comm, rank)
        elif job.rank == rank:
            offset = _ask(job, comm)
    return float(job.all_gather(np.array([offset]))[nodes[job.rank], 0])


def _answer(job: Job, comm: MPI.Intracomm, rank: int) -> None:
    for _ in range(_ROUNDS):
        request = comm.Irecv(np.empty(1), rank, _TAG)
        wait_until(request.Test, job.timeout_s, lambda: f"rank 0 waits for rank {rank}'s clock")
        comm.Send(np.array([perf_counter()]), rank, _TAG)


def _ask(job: Job, comm: MPI.Intracomm) -> float:
    shortest, offset, told = np.inf, 0.0, np.empty(1)
    for _ in range(_ROUNDS):
        asked = perf_counter()
        request = comm.Irecv(told, 0, _TAG)
        comm.Send(np.zeros(1), 0, _TAG)
        wait_until(request.Test, job.timeout_s, lambda: f"rank {job.rank} waits for rank 0's clock")
        answered = perf_counter()
        if answered - asked < shortest:
            shortest, offset = answered - asked, float(told[0]) - (asked + answered) / 2
    return offset
