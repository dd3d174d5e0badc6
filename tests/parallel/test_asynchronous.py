"""Workers and servers of the asynchronous parameter server over real MPI.

A worker is made slow by having it wait until it has heard how far the others are, never by time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from mpi4py import MPI

from commbench.arrays import Array, NumpyArrays, element_type
from commbench.asynchronous.ledger import Ledger, most_updates
from commbench.asynchronous.server import Server
from commbench.asynchronous.wire import shares_of, sources_of
from commbench.asynchronous.worker import Worker
from commbench.job import Job
from commbench.registry import parse_exchange
from commbench.transport import Transport, open_transport
from commbench.transport.waiting import PeerTimeout

SIZE = MPI.COMM_WORLD.size
SERVERS = 1 if SIZE < 4 else 2
WORKERS = list(range(SERVERS, SIZE))
# Not a multiple of anything, and several of MPI's segments.
COUNT = 600_011
TAG = 5

pytestmark = pytest.mark.skipif(SIZE < 2, reason="a server and a worker are two ranks")


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


@dataclass
class Adder:
    """A shard whose optimizer adds: its weights are the sum of all gradients, exactly."""

    weights: Array
    gradient: Array
    steps: list[int] = field(default_factory=list)

    def take(self, bounds: tuple[int, int], data: Array, *, first: bool) -> None:
        own = self.gradient[slice(*bounds)]
        own[:] = data if first else own + data

    def update(self, step: int) -> None:
        self.weights += self.gradient
        self.steps.append(step)


@dataclass
class Part:
    """What this rank is in the game."""

    job: Job
    staleness: float
    transport: Transport
    gradient: Array
    weights: Array
    worker: Worker | None = None
    server: Server | None = None
    ledger: Ledger | None = None
    shard: Adder | None = None

    def push(self, step: int, following: int | None = None, *, meets: bool = False) -> None:
        """Send a gradient that tells its step and its rank, and take the weights."""
        assert self.worker
        self.gradient[:] = gradient(self.job.rank, step)
        self.worker.exchange(step, step + 1 if following is None else following, meets=meets)

    def largest(self, measure: int) -> np.ndarray:
        """The largest staleness of each worker, over the servers, on every rank."""
        own = np.zeros(len(WORKERS))
        if self.ledger:
            own = self.ledger.histogram.largest[measure]
        return self.job.all_gather(own).max(axis=0)


def gradient(rank: int, step: int) -> np.ndarray:
    return ((np.arange(COUNT) + 3 * rank + 5 * step) % 7).astype(np.float32)


def play(
    job: Job, staleness: float, steps: int, name: str, timeout_s: float = 30.0
) -> tuple[Part, Callable[[int], None]]:
    """Open both ends on this rank; returns its part and how a server serves so many steps."""
    transport = open_transport(name, job, NumpyArrays(element_type("float32")))
    schedule = parse_exchange(f"sharded-server@servers={SERVERS}").schedule(job.rank, job.size)
    part = Part(job, staleness, transport, transport.allocate(COUNT), transport.allocate(COUNT))
    comm = job.comm.Dup()
    if job.rank in WORKERS:
        shares = shares_of(schedule, COUNT)
        part.worker = Worker(
            comm,
            transport,
            shares,
            gradient=part.gradient,
            weights=part.weights,
            timeout_s=timeout_s,
        )
        return part, lambda _: None
    order, (start, stop) = sources_of(schedule, COUNT)
    bins = most_updates(len(order), staleness, steps) + 1
    part.ledger = Ledger(order, staleness, bins)
    part.shard = Adder(np.zeros(stop - start, np.float32), np.zeros(stop - start, np.float32))
    part.server = Server(
        comm,
        transport,
        part.shard,
        part.ledger,
        memory=[part.weights[: stop - start]],
        timeout_s=timeout_s,
    )

    def serve(until: int) -> None:
        part.server.serve(until)
        part.server.finish()

    return part, serve


@pytest.mark.parametrize("name", ["mpi", "shared-memory"])
@pytest.mark.parametrize("staleness", [0, 1, 3, math.inf])
def test_every_gradient_is_applied_once_and_a_meeting_makes_weights_equal(
    job: Job, staleness: float, name: str
) -> None:
    part, serve = play(job, staleness, 8, name)
    total = np.zeros(COUNT, np.float32)
    for first, stop in ((0, 5), (5, 8)):
        serve(stop)
        for step in range(first, stop):
            total += sum(gradient(rank, step) for rank in WORKERS)
            if part.worker:
                part.push(step, meets=step + 1 == stop)
                if staleness == 0:
                    np.testing.assert_array_equal(part.weights, total)
        if part.worker:
            np.testing.assert_array_equal(part.weights, total)
        job.barrier()
    if part.ledger:
        updates = 8 if staleness == 0 else 8 * len(WORKERS)
        assert part.ledger.version == len(part.shard.steps) == updates
        assert part.ledger.histogram.counts[0].sum() == 8 * len(WORKERS)
    largest = part.largest(1)
    assert largest.max() <= staleness
    if len(WORKERS) == 1:
        assert part.largest(0).max() == 0


@pytest.mark.skipif(len(WORKERS) < 2, reason="one worker has nobody to be slower than")
@pytest.mark.parametrize("name", ["mpi", "shared-memory"])
@pytest.mark.parametrize("staleness", [1, 2, math.inf])
def test_a_slow_worker_makes_gradients_as_stale_as_the_bound_allows(
    job: Job, staleness: float, name: str
) -> None:
    steps, slow = 9, WORKERS[-1]
    # The others get here while the slow one computes its first gradient, and no further.
    ahead = steps - 1 if math.isinf(staleness) else int(staleness)
    part, serve = play(job, staleness, steps, name)
    told = job.comm.Dup()
    serve(steps)
    if part.worker:
        for step in range(steps):
            if job.rank == slow and step == 0:
                for other in WORKERS[:-1]:
                    told.recv(source=other, tag=TAG)
            elif job.rank != slow and step == ahead:
                told.send(None, dest=slow, tag=TAG)
            part.push(step, meets=step + 1 == steps)
    clocks, updates = part.largest(1), part.largest(0)
    assert (clocks[:-1] >= ahead).all()
    assert clocks.max() <= staleness
    others = len(WORKERS) - 1
    assert others * ahead <= updates[-1] <= most_updates(len(WORKERS), staleness, steps)
    if math.isinf(staleness):
        assert clocks.max() == steps - 1


@pytest.mark.parametrize("name", ["mpi", "shared-memory"])
@pytest.mark.parametrize("staleness", [0, 1, math.inf])
def test_workers_that_end_early_hold_nobody_up(job: Job, staleness: float, name: str) -> None:
    steps = 2 * len(WORKERS)
    part, serve = play(job, staleness, steps + 1, name)
    serve(steps)
    ends = {worker: 2 * (place + 1) for place, worker in enumerate(WORKERS)}
    if part.worker:
        for step in range(ends[job.rank]):
            last = step + 1 == ends[job.rank]
            part.push(step, steps if last else step + 1, meets=last)
    # The first has nothing for one step more, and takes the weights after it all the same.
    serve(steps + 1)
    if part.worker and job.rank == WORKERS[0] and len(WORKERS) > 1:
        part.worker.exchange(None, steps + 1, meets=True)
    elif part.worker:
        part.push(steps, meets=True)
    total = sum(gradient(rank, step) for rank in WORKERS for step in range(ends[rank]))
    total = total + sum(gradient(rank, steps) for rank in WORKERS[1:] or WORKERS)
    if part.worker:
        np.testing.assert_array_equal(part.weights, total)
    job.barrier()


def test_both_ends_say_whom_they_wait_for_in_vain(job: Job) -> None:
    part, serve = play(job, 0, 1, "mpi", timeout_s=0.2)
    job.barrier()
    if part.server:
        ranks = ", ".join(map(str, WORKERS))
        with pytest.raises(PeerTimeout, match=f"rank {job.rank}, a server, .* step 0 .* {ranks}: "):
            serve(1)
    job.barrier()
    part, serve = play(job, 0, 1, "shared-memory", timeout_s=0.2)
    job.barrier()
    if part.worker:
        where = f"rank {job.rank}, before step 1, waits for server rank \\d+ to take its gradient"
        with pytest.raises(PeerTimeout, match=f"{where}: nothing came within 0.2 s"):
            part.push(0)
    job.barrier()
