"""GPU transports: over a stand-in for the GPU everywhere, and over real ones where there are."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from mpi4py import MPI

from commbench.arrays import Arrays, arrays_for, element_type
from commbench.errors import UserError
from commbench.grouped import exchange_over
from commbench.job import Job
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send
from commbench.transport import GPU_TRANSPORTS, Transport, cuda_ipc, open_transport
from commbench.transport.cuda_aware import CudaAwareTransport
from commbench.transport.cuda_ipc import CudaIpcTransport
from commbench.transport.device import device_of
from commbench.transport.gpus import obstacle, open_gpu_transport
from commbench.transport.nccl import NcclTransport
from commbench.transport.staged import StagedTransport
from commbench.transport.waiting import PeerTimeout
from lazy_device import LazyArrays, LazyDevice, LazyNccl

SIZE = MPI.COMM_WORLD.size
OPTIONS = [
    "parameter-server@server=dedicated",
    "ring@segments=3",
    "hierarchical@group=2@inner=tree@outer=sharded-server",
]
NAMES = [name for name in topology_names() if name != "none"]
FIT, _ = admitted([parse_exchange(spec) for spec in [*NAMES, *OPTIONS]], SIZE)
SPECS = [choice.spec for choice in FIT if choice.plain]

Opener = Callable[[Job, LazyArrays], Transport]


def two_nodes(job: Job) -> Job:
    """The same ranks as if every second one were on another machine."""
    job.node = job.comm.Split(job.rank % 2)
    job.local_rank, job.local_size = job.node.Get_rank(), job.node.Get_size()
    return job


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


@pytest.fixture(scope="module")
def spread() -> Iterator[Job]:
    job = two_nodes(Job(MPI.COMM_WORLD.Dup(), timeout_s=60))
    yield job
    job.close()


def stand_in(name: str, job: Job, arrays: LazyArrays) -> Transport:
    device = LazyDevice(arrays)
    if name == "staged":
        return StagedTransport(job, arrays, device)
    if name == "cuda-aware":
        # NumPy's memory is what MPI can be handed.
        return CudaAwareTransport(job, arrays, device)
    if name == "nccl":
        return NcclTransport(job, arrays, device, LazyNccl(job.comm.Dup()))
    return CudaIpcTransport(job, arrays, device, far=StagedTransport(job, arrays, device))


def values(rank: int, count: int) -> np.ndarray:
    """Small integers, different on every rank and at every index: their sums are exact."""
    return ((np.arange(count) + 3 * rank) % 7).astype(np.float64)


def check_sums(job: Job, spec: str, transport: Transport, counts: tuple[int, ...]) -> None:
    arrays = transport.arrays
    schedule = parse_exchange(spec).schedule(job.rank, job.size)
    for count in counts:
        own = values(job.rank, count)
        mine = own if schedule.contributes else np.zeros(count)
        expected = np.empty(count)
        job.comm.Allreduce(mine, expected)
        buffer = transport.allocate(count)
        exchange = exchange_over(transport, schedule, buffer, timeout_s=30)
        inputs = arrays.from_values(own)
        for _ in range(2):
            arrays.assign(buffer, inputs)
            exchange.run()
            if schedule.contributes:
                assert arrays.differences(buffer, arrays.from_values(expected)) == 0


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", GPU_TRANSPORTS)
def test_sums_through_a_stand_in(job: Job, spec: str, dtype: str, name: str) -> None:
    transport = stand_in(name, job, LazyArrays(element_type(dtype)))
    assert transport.name == name
    check_sums(job, spec, transport, (0, 1, job.size - 1, 5003))


@pytest.mark.parametrize("spec", SPECS)
def test_sums_within_and_between_nodes(spread: Job, spec: str) -> None:
    transport = stand_in("cuda-ipc", spread, LazyArrays(element_type("float32")))
    check_sums(spread, spec, transport, (0, 1, 5003))


@pytest.mark.parametrize("spec", ["tree", "ring", "sharded-server", "parameter-server"])
@pytest.mark.parametrize("name", GPU_TRANSPORTS)
def test_many_segments(job: Job, spec: str, name: str) -> None:
    transport = stand_in(name, job, LazyArrays(element_type("float32")))
    check_sums(job, spec, transport, (3_000_001,))


@pytest.mark.parametrize("name", GPU_TRANSPORTS)
def test_ranks_that_swap_what_they_overwrite(job: Job, name: str) -> None:
    peer = job.rank ^ 1
    steps = (Round((Send(WHOLE, peer), Recv(WHOLE, peer, reduce=False))),)
    schedule = Schedule(steps if peer < job.size else ())
    arrays = LazyArrays(element_type("bfloat16"))
    transport = stand_in(name, job, arrays)
    buffer = transport.allocate(2_000_000)
    buffer[:] = job.rank + 1
    exchange_over(transport, schedule, buffer, timeout_s=30).run()
    assert (buffer == (peer if peer < job.size else job.rank) + 1).all()


def test_a_buffer_of_the_users_own_goes_through_cuda_ipc(job: Job) -> None:
    arrays = LazyArrays(element_type("float32"))
    transport = stand_in("cuda-ipc", job, arrays)
    buffer = arrays.from_values(values(job.rank, 700_001))
    schedule = parse_exchange("ring").schedule(job.rank, job.size)
    exchange_over(transport, schedule, buffer, timeout_s=30).run()
    expected = sum(values(rank, 700_001) for rank in range(job.size))
    np.testing.assert_array_equal(buffer, expected)


@pytest.mark.skipif(SIZE < 2, reason="nobody to wait for: run on two ranks at least")
def test_nccl_gives_up_on_a_rank_that_does_not_come(job: Job) -> None:
    arrays = LazyArrays(element_type("float32"))
    library = LazyNccl(job.comm.Dup())
    transport = NcclTransport(job, arrays, LazyDevice(arrays), library)
    if job.rank == 0:
        transport.group([], [(arrays.wire_empty(10), 1)])
        with pytest.raises(PeerTimeout, match="rank 0 waits for its peers in NCCL"):
            transport.finish(0.2)
    job.barrier()
    assert library.aborted == (job.rank == 0)


@pytest.mark.skipif(SIZE < 2, reason="nobody to reach: run on two ranks at least")
def test_what_cannot_be_is_refused_on_every_rank_and_auto_takes_another(job: Job) -> None:
    arrays = LazyArrays(element_type("float32"))
    last = job.size - 1
    device = LazyDevice(arrays, "one GPU for all", reachable=job.rank != last)
    with pytest.raises(UserError, match=f"rank {last}: it cannot reach the GPU memory of rank 0"):
        open_gpu_transport("cuda-ipc", job, arrays, device)
    with pytest.raises(UserError, match="rank 0: it shares its GPU with rank 1"):
        open_gpu_transport("nccl", job, arrays, device)
    with pytest.raises(UserError, match=r"rank 0: .*(MPICH|Open MPI).* GPU addresses"):
        open_gpu_transport("cuda-aware", job, arrays, device)
    assert open_gpu_transport("auto", job, arrays, device).name == "staged"
    reaching = LazyDevice(arrays)
    assert open_gpu_transport("auto", job, arrays, reaching).name == "cuda-ipc"
    assert open_gpu_transport("auto", job, arrays, reaching, library_only=True).name == "staged"


def test_cuda_ipc_is_tried_before_it_is_used(job: Job) -> None:
    device = LazyDevice(LazyArrays(element_type("float32")))
    assert cuda_ipc.why_not(job, device) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", GPU_TRANSPORTS)
def test_sums_on_gpus(job: Job, spec: str, dtype: str, name: str) -> None:
    arrays: Arrays = arrays_for("cuda", dtype, job.local_rank)
    if why := obstacle(name, job, device_of(arrays)):
        pytest.skip(f"{name} cannot be used here: {why}")
    check_sums(job, spec, open_transport(name, job, arrays), (0, 1, 5003, 3_000_001))
