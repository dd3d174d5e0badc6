"""Ranks of one node that read and write each other's GPU memory: shared memory's way, on GPUs.

Tokens lie in host memory that the ranks share; elements lie in GPU memory that each rank opens by
the others' handles (CUDA IPC), on the same GPU or on another that this one can reach. The receiver
adds straight out of the sender's memory. No stream is common to two processes, so a rank waits for
its own GPU before it tells another, by a token or by taking one, that something has been done.
"""

from __future__ import annotations

from commbench.arrays import Array, Arrays
from commbench.job import Job
from commbench.transport.device import Device
from commbench.transport.mpi import MPITransport
from commbench.transport.shared_memory import SharedMemoryTransport

_PROBE_BYTES = 64


class CudaIpcTransport(SharedMemoryTransport):
    """The `cuda-ipc` transport."""

    name = "cuda-ipc"

    def __init__(self, job: Job, arrays: Arrays, device: Device, far: MPITransport) -> None:
        """Open it; collective over all ranks. `why_not` has found that it can be."""
        self._device = device
        super().__init__(job, arrays, far)
        self.copiers = job.local_size

    def share(self, nbytes: int) -> dict[int, Array]:
        """New GPU memory of every rank of the node, by rank; collective over them."""
        return share(self._job, self._device, nbytes)

    def address(self, data: Array) -> int:
        """Where an array's elements begin."""
        return self._device.address(data)

    def settle(self) -> None:
        """Wait for this rank's GPU."""
        self.arrays.synchronize()


def share(job: Job, device: Device, nbytes: int) -> dict[int, Array]:
    """New GPU memory of every rank of the node, by rank; collective over them.

    Raises:
        OSError: this rank cannot reach another's.
    """
    own = device.memory(nbytes)
    handles: list[tuple[int, bytes]] = job.node.allgather((job.rank, device.handle(own)))
    # A process cannot open what it has made itself.
    return {
        rank: own if rank == job.rank else device.open(handle, nbytes) for rank, handle in handles
    }


def why_not(job: Job, device: Device) -> str:
    """Why this rank cannot reach the GPU memory of all ranks of its node; collective over them.

    An attempt: CUDA answers it with an error where GPUs cannot reach each other, or where
    containers keep their processes apart. Empty if all can be reached.
    """
    own = device.memory(_PROBE_BYTES)
    handle, told = b"", ""
    try:
        handle = device.handle(own)
    except OSError as error:
        told = f"it cannot share GPU memory: {error}"
    for rank, other in job.node.allgather((job.rank, handle)):
        if rank == job.rank or not other or told:
            continue
        try:
            device.open(other, _PROBE_BYTES)
        except OSError as error:
            told = f"it cannot reach the GPU memory of rank {rank}: {error}"
    return told
