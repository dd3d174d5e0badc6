"""Messages of GPU arrays by an MPI library that takes GPU addresses itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from commbench import environment
from commbench.arrays import Array
from commbench.transport import Incoming
from commbench.transport.staged import StagedTransport


class CudaAwareTransport(StagedTransport):
    """The `cuda-aware` transport, on a communicator of its own.

    MPI knows nothing of streams, so the GPU's own work is waited for before MPI is handed elements
    to read, or memory to write that this work may still use.
    """

    name = "cuda-aware"

    def send(self, data: Array, to: int) -> Callable[[], bool]:
        """Start an Isend of GPU memory."""
        self.arrays.synchronize()
        return super(StagedTransport, self).send(data, to)

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Start an Irecv into GPU memory."""
        self.arrays.synchronize()
        return super(StagedTransport, self).receive(count, source, into)

    def all_reduce(self, data: Array) -> None:
        """MPI_Allreduce of GPU memory; of a copy in host memory where MPI has no type for it."""
        if self.arrays.kind.wire != self.arrays.kind.work:
            super().all_reduce(data)
            return
        self.arrays.synchronize()
        super(StagedTransport, self).all_reduce(data)


def why_not() -> str:
    """Why this MPI library cannot be handed GPU addresses; empty if it says that it can.

    MPI must be running. It is only ever asked: a library that cannot would crash on the first
    address.
    """
    library = _library()
    query = getattr(library, "MPIX_Query_cuda_support", None) if library else None
    name = environment.mpi_library()
    if query is None:
        return f"{name} does not tell whether it takes GPU addresses (MPIX_Query_cuda_support)"
    query.restype = ctypes.c_int
    query.argtypes = []
    if query() == 1:
        return ""
    return f"{name} says that it takes no GPU addresses (MPIX_Query_cuda_support)"


def _library() -> ctypes.CDLL | None:
    """The MPI library that this process runs, by what it has mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(("libmpi.so", "libmpi_cxx.so", "libmpich.so", "libmpi_abi.so")):
            library = ctypes.CDLL(str(path))
            if hasattr(library, "MPIX_Query_cuda_support"):
                return library
    return None
