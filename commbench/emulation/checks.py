"""What has to hold before times over emulated links mean anything; measured before the first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from commbench.emulation.layout import Layout
from commbench.errors import UserError
from commbench.job import Job
from commbench.transport.waiting import be_patient, wait_until

_TAG = 21
_IDLE_SLEEP_S, _AWAKE_SLEEP_S = 0.2, 2e-3
_ROUND_TRIPS = 30
# Long enough for what links send for nothing after a pause to count little.
_STREAM_S, _STREAM_BURSTS = 0.2, 32
_STREAMS = 3
# A link that carries much more than it should is not in the way of the messages.
_MOST_TIMES_THE_RATE = 1.2


@dataclass(frozen=True)
class Found:
    """What the checks have found.

    Attributes:
        namespaces: of each rank, the number of its network namespace.
        latency_s: of a byte, half its fastest round trip between the first two hosts.
        bytes_per_s: of a long message between them, half its round trip; NaN of a single host.
        path_bytes_per_s: what the links between them should carry, headers left out.
        expected_bytes_per_s: what a host's link should carry, headers left out.
    """

    namespaces: list[int]
    latency_s: float
    bytes_per_s: float
    path_bytes_per_s: float
    expected_bytes_per_s: float


def look(job: Job, layout: Layout) -> Found:
    """Look at namespaces and at the link between the first two hosts; collective.

    Raises:
        UserError: ranks share a network, or messages do not go through the shaped links.
    """
    own = np.array([Path("/proc/thread-self/ns/net").stat().st_ino])
    namespaces = [int(one) for one in job.all_gather(own)[:, 0]]
    expected = path = layout.net(layout.rate)
    if layout.hosts > 1 and layout.rack(0) != layout.rack(1):
        path = min(path, layout.net(layout.uplink()))
    latency_s, rate = 0.0, float("nan")
    if job.size > 1:
        latency_s = _half_round_trip(job, 1, _ROUND_TRIPS)
        nbytes = max(_STREAM_BURSTS * layout.burst, int(path * _STREAM_S))
        rate = nbytes / max(1e-9, _half_round_trip(job, nbytes, _STREAMS) - latency_s)
    found = Found(namespaces, latency_s, rate, path, expected)
    job.on_root(lambda: _judge(found, layout))
    return found


def _judge(found: Found, layout: Layout) -> None:
    if len(set(found.namespaces)) < layout.hosts:
        raise UserError(
            f"only {len(set(found.namespaces))} network namespaces for {layout.hosts} hosts: "
            "ranks share a network, and nothing is emulated"
        )
    if found.bytes_per_s > _MOST_TIMES_THE_RATE * found.path_bytes_per_s:
        raise UserError(
            f"{found.bytes_per_s / 1e6:.1f} MB/s between two hosts whose links carry "
            f"{found.path_bytes_per_s / 1e6:.1f} MB/s: messages go past the shaped links; "
            "check MPIR_*, UCX_*, FI_* and OMPI_* in the environment"
        )


def _half_round_trip(job: Job, nbytes: int, times: int) -> float:
    """The fastest of `times`, between ranks 0 and 1; the others sleep. On rank 0, else 0.

    What a link takes is the least: all else is somebody else's work on the same cores.
    """
    found = [0.0]
    if job.rank < 2:
        message = np.zeros(nbytes, np.uint8)
        waiting = f"rank {job.rank} waits for rank {1 - job.rank}'s answer"
        with job.watchdog.guard(waiting):
            _once(job.comm, job.rank, message)  # connections are made by the first message
            found = [_once(job.comm, job.rank, message) for _ in range(times)]
    else:
        # A hundred ranks that ask whether it is over would be what is measured.
        be_patient(_IDLE_SLEEP_S)
    wait_until(job.comm.Ibarrier().Test, job.timeout_s, lambda: f"rank {job.rank} waits for rank 0")
    be_patient(_AWAKE_SLEEP_S)
    return min(found) / 2 if job.rank == 0 else 0.0


def _once(comm: MPI.Intracomm, rank: int, message: np.ndarray) -> float:
    start = time.perf_counter()
    if rank == 0:
        comm.Send(message, 1, _TAG)
        comm.Recv(message, 1, _TAG)
    else:
        comm.Recv(message, 0, _TAG)
        comm.Send(message, 0, _TAG)
    return time.perf_counter() - start
