"""Messages over MPI: Isend and Irecv of raw bytes, staged through pinned memory for GPU arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from commbench.arrays import Array, Arrays, Bytes
from commbench.job import Job

_TAG = 7
SEGMENT_BYTES = 1 << 20
# Allreduce counts are C ints before MPI 4, and not every library's large-count calls work yet.
_LARGEST_ALLREDUCE_BYTES = 1 << 30


class _Received:
    """An Irecv into host memory, of the transport's own or the caller's."""

    __slots__ = ("_host", "_into", "_own", "_request", "_transport", "ready")
    lent = None

    def __init__(
        self, transport: MPITransport, host: Bytes, into: Array, own: bool, source: int
    ) -> None:
        self._transport = transport
        self._host = host
        self._into = into
        self._own = own
        self._request = transport.comm.Irecv([host, MPI.BYTE], source, _TAG)
        self.ready: Callable[[], bool] = self._request.Test

    def data(self) -> Array:
        self._transport.arrays.from_host(self._host, self._into)
        return self._into

    def release(self) -> None:
        self._transport.recycle(self._into if self._own else None, self._host)


class MPITransport:
    """The `mpi` transport, on a communicator of its own."""

    name = "mpi"

    def __init__(self, job: Job, arrays: Arrays) -> None:
        """Open it; collective over all ranks."""
        self.rank = job.rank
        self.size = job.size
        self.arrays = arrays
        self._job = job
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the transport"):
            self.comm: MPI.Intracomm = job.comm.Dup()
        self._scratch: dict[int, list[Array]] = {}
        self._slots: dict[int, list[Bytes]] = {}
        self._staged = arrays.device != "cpu"
        self._operator: MPI.Op | None = None
        self._in_all_reduce = f"rank {job.rank} waits in MPI_Allreduce for its peers"

    def allocate(self, count: int) -> Array:
        """A new wire array of zeros; MPI sends from anywhere."""
        return self.arrays.from_values(np.zeros(count))

    def segment_bytes(self, peer: int) -> int:
        """1 MiB: long enough to hide its cost, short enough to add while the next arrives."""
        return SEGMENT_BYTES

    def beside(self, buffer: Array) -> Array:
        """Another array; MPI sends from anywhere."""
        return self.arrays.wire_empty(len(buffer))

    def lends(self, peer: int) -> bool:
        """No rank reaches another's memory."""
        return False

    def sender(
        self, data: Array, to: int, *, lend: bool = False
    ) -> Callable[[bool], Callable[[], bool]]:
        """Prepare to `send`; what lies in host memory goes out by one persistent request."""
        if self._staged:
            return lambda answered: self.send(data, to)
        request = self.comm.Send_init([data.view(np.uint8), MPI.BYTE], to, _TAG)

        def start(answered: bool) -> Callable[[], bool]:
            request.Start()
            return request.Test

        return start

    def send(self, data: Array, to: int) -> Callable[[], bool]:
        """Start an Isend; a GPU array is copied to a pinned slot first."""
        slot = self._slot(data.nbytes)
        request = self.comm.Isend([self.arrays.to_host(data, slot), MPI.BYTE], to, _TAG)
        if slot is None:
            return request.Test

        def sent() -> bool:
            nonlocal slot
            if not request.Test():
                return False
            if slot is not None:
                self.recycle(None, slot)
                slot = None
            return True

        return sent

    def receive(self, count: int, source: int, into: Array | None = None) -> _Received:
        """Start an Irecv, straight into a host array or through a pinned slot for a GPU's."""
        own = into is None
        if into is None:
            free = self._scratch.get(count)
            into = free.pop() if free else self.arrays.wire_empty(count)
        host = self._slot(into.nbytes)
        if host is None:
            host = into.view(np.uint8)
        return _Received(self, host, into, own, source)

    def recycle(self, scratch: Array | None, host: Bytes) -> None:
        """Keep the memory of a finished message for the next of its size."""
        if scratch is not None:
            self._scratch.setdefault(len(scratch), []).append(scratch)
        if self._staged:
            self._slots.setdefault(len(host), []).append(host)

    def all_reduce(self, data: Array) -> None:
        """MPI_Allreduce in place.

        16-bit elements have no portable MPI type: the library's algorithm then runs with our own
        operator, which adds in float32 and rounds after every addition.
        """
        kind = self.arrays.kind
        host = self.arrays.to_host(data, self._slot(data.nbytes))
        values: np.ndarray[Any, Any] = host.view(kind.wire)
        step = _LARGEST_ALLREDUCE_BYTES // kind.itemsize
        with self._job.watchdog.guard(self._in_all_reduce):
            for start in range(0, len(values), step):
                part = values[start : start + step]
                if kind.wire == kind.work:
                    self.comm.Allreduce(MPI.IN_PLACE, part)
                else:
                    words = [part.view(np.uint16), MPI.UINT16_T]
                    self.comm.Allreduce(MPI.IN_PLACE, words, self._narrow_sum())
        self.arrays.from_host(host, data)
        if self._staged:
            self.recycle(None, host)

    def _narrow_sum(self) -> MPI.Op:
        if self._operator is None:
            wire = self.arrays.kind.wire

            def add(source: Any, target: Any, _: MPI.Datatype) -> None:
                left, right = np.frombuffer(source, wire), np.frombuffer(target, wire)
                right[:] = left.astype(np.float32) + right.astype(np.float32)

            self._operator = MPI.Op.Create(add, commute=True)
        return self._operator

    def _slot(self, nbytes: int) -> Bytes | None:
        if not self._staged:
            return None
        free = self._slots.get(nbytes)
        return free.pop() if free else self.arrays.host_slot(nbytes)
