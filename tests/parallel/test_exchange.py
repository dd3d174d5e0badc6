"""Every exchange over real MPI, against the library's own Allreduce."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from commbench.arrays import ELEMENT_TYPES, NumpyArrays, arrays_for, element_type
from commbench.errors import UserError
from commbench.exchange import Exchange
from commbench.job import Job
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send, traffic
from commbench.transport import mailbox, open_transport
from commbench.transport.mpi import MPITransport

SIZE = MPI.COMM_WORLD.size
NAMES = [name for name in topology_names() if name != "none"]
OPTIONS = [
    "parameter-server@server=dedicated",
    "sharded-server@servers=2",
    "hierarchical@group=2@inner=parameter-server@outer=binary-blocks",
    "hierarchical@group=2@inner=tree@outer=sharded-server",
]
# Every installed exchange that runs on this many ranks; hybrid is made of two of them.
FIT, _ = admitted([parse_exchange(spec) for spec in [*NAMES, *OPTIONS]], SIZE)
SPECS = [choice.spec for choice in FIT if choice.plain]
SEGMENT_BYTES = 4096


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


def values(rank: int, count: int) -> np.ndarray:
    """Small integers, different on every rank and at every index: their sums are exact."""
    return ((np.arange(count) + 3 * rank) % 7).astype(np.float64)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", list(ELEMENT_TYPES))
@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu", "mpi"),
        ("cpu", "shared-memory"),
        pytest.param("cuda", "auto", marks=pytest.mark.gpu),
    ],
)
def test_equals_the_librarys_sum(job: Job, spec: str, dtype: str, device: str, name: str) -> None:
    arrays = arrays_for(device, dtype, job.local_rank)
    transport = open_transport(name, job, arrays)
    schedule = parse_exchange(spec).schedule(job.rank, job.size)
    for count in (0, 1, job.size - 1, 1000, 5 * SEGMENT_BYTES + 3):
        own = values(job.rank, count)
        mine = own if schedule.contributes else np.zeros(count)
        expected = np.empty(count)
        job.comm.Allreduce(mine, expected)
        buffer = transport.allocate(count)
        exchange = Exchange(schedule, buffer, transport, timeout_s=30, segment_bytes=SEGMENT_BYTES)
        inputs = arrays.from_values(own)
        for _ in range(2):  # once more, to meet state that the first run left behind
            arrays.assign(buffer, inputs)
            exchange.run()
            if schedule.contributes:
                assert arrays.differences(buffer, arrays.from_values(expected)) == 0


class CountingTransport(MPITransport):
    """Notes what is handed to MPI; message by message, which only Python does."""

    messages = elements = 0

    def program(self, plan, wire, work):  # type: ignore[no-untyped-def]
        return None

    def sender(self, data, to, *, lend=False):  # type: ignore[no-untyped-def]
        start = super().sender(data, to, lend=lend)

        def count_and_start(answered: bool) -> Callable[[], bool]:
            self.messages += 1
            self.elements += len(data)
            return start(answered)

        return count_and_start


@pytest.mark.parametrize("spec", SPECS)
def test_sends_what_the_schedule_says(job: Job, spec: str) -> None:
    count = 1001
    transport = CountingTransport(job, NumpyArrays(element_type("float32")))
    schedule = parse_exchange(spec).schedule(job.rank, job.size)
    Exchange(schedule, np.ones(count, np.float32), transport, timeout_s=30).run()
    moved = traffic(schedule, count)
    assert (transport.messages, transport.elements) == (moved.messages_sent, moved.elements_sent)


class Keeping:
    """A communicator that remembers its persistent requests."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.requests: list[MPI.Prequest] = []

    def Send_init(self, *arguments: object) -> MPI.Prequest:  # noqa: N802
        self.requests.append(self.comm.Send_init(*arguments))  # type: ignore[arg-type]
        return self.requests[-1]

    def __getattr__(self, name: str) -> object:
        return getattr(self.comm, name)


def test_requests_that_nobody_needs_go_back_to_mpi(job: Job) -> None:
    transport = MPITransport(job, NumpyArrays(element_type("float32")))
    transport.comm = keeping = Keeping(transport.comm)  # type: ignore[assignment]
    schedule = parse_exchange("ring").schedule(job.rank, job.size)
    for _ in range(3):
        buffer = np.ones(1000, np.float32)
        exchange = Exchange(schedule, buffer, transport, timeout_s=30, segment_bytes=64)
        exchange.run()
        exchange.run()
        assert (buffer == job.size**2).all()
        del exchange
    # Those of the first; the second saw that they had ended, and the third gave them back.
    first = keeping.requests[: len(keeping.requests) // 3]
    assert all(request == MPI.REQUEST_NULL for request in first)


@pytest.mark.parametrize(
    "spec",
    ["native", "parameter-server", "tree", "ring", "sharded-server", "recursive-doubling"],
)
@pytest.mark.parametrize("name", ["mpi", "shared-memory"])
@pytest.mark.parametrize("shared", [True, False])
def test_millions_of_elements(job: Job, spec: str, name: str, shared: bool) -> None:
    count = 3_000_001
    transport = open_transport(name, job, NumpyArrays(element_type("float32")))
    # Memory that a transport has not allocated is slower at most.
    buffer = transport.allocate(count) if shared else np.empty(count, np.float32)
    buffer[:] = values(job.rank, count)
    Exchange(
        parse_exchange(spec).schedule(job.rank, job.size), buffer, transport, timeout_s=60
    ).run()
    expected = sum(values(rank, count) for rank in range(job.size))
    np.testing.assert_array_equal(buffer, expected)


@pytest.mark.parametrize("name", ["mpi", "shared-memory"])
def test_ranks_that_swap_what_they_overwrite(job: Job, name: str) -> None:
    peer = job.rank ^ 1
    if peer >= job.size:
        schedule = Schedule(())
    else:
        schedule = Schedule((Round((Send(WHOLE, peer), Recv(WHOLE, peer))),))
    transport = open_transport(name, job, NumpyArrays(element_type("float32")))
    buffer = transport.allocate(2_000_000)
    buffer[:] = job.rank + 1
    Exchange(schedule, buffer, transport, timeout_s=30).run()
    assert (buffer == job.rank + 1 + (peer + 1 if peer < job.size else 0)).all()


def test_shared_memory_has_no_name_that_could_stay_behind(job: Job) -> None:
    before = set(Path("/dev/shm").iterdir())
    job.barrier()
    transport = open_transport("shared-memory", job, NumpyArrays(element_type("float32")))
    buffer = transport.allocate(1000)
    job.barrier()
    assert {
        path for path in set(Path("/dev/shm").iterdir()) - before if "commbench" in path.name
    } == set()
    address = buffer.ctypes.data
    mapped = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    ]
    assert "memfd:commbench" in mapped[0]
    job.barrier()


@pytest.mark.skipif(SIZE == 1, reason="there is no other rank")
def test_ranks_that_cannot_reach_each_other_say_so(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    if job.rank == SIZE - 1:  # as in a container of its own, to which the others are no processes
        monkeypatch.setattr(mailbox, "_opened", lambda path, nbytes: open("/proc/0/fd/0"))  # noqa: SIM115
    with pytest.raises(UserError, match=rf"rank {SIZE - 1} on .* No such file.*--transport mpi"):
        open_transport("shared-memory", job, NumpyArrays(element_type("float32")))


@pytest.mark.skipif(SIZE != 2, reason="over 2 GiB a rank: run on two ranks only")
def test_more_than_two_gib(job: Job) -> None:
    transport = open_transport("mpi", job, NumpyArrays(element_type("float32")))
    buffer = np.full((1 << 29) + 5, job.rank + 1, np.float32)
    assert buffer.nbytes > 1 << 31
    for spec, expected in (("parameter-server", 3), ("native", 6)):
        schedule = parse_exchange(spec).schedule(job.rank, job.size)
        Exchange(schedule, buffer, transport, timeout_s=120).run()
        assert buffer.min() == buffer.max() == expected
