"""Between ranks of one node, a message is a token: the receiver reads the sender's own memory.

Buffers come from `allocate` and lie in memory that every rank of the node maps. It is anonymous (a
memfd, reached through /proc), so it has no name that could stay behind in /dev/shm when ranks are
killed, and no size limit but the machine's. Messages to other nodes, and messages from memory of
the sender's own, go over MPI.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from commbench.arrays import Array, Arrays, Bytes
from commbench.job import Job
from commbench.transport.mpi import MPITransport

_TOKEN, _TAKEN, _DATA = 21, 22, 23
# What a token says: which shared buffer, first byte, number of bytes. The buffer is _PRIVATE where
# the elements follow in a message of their own.
_PRIVATE = -1


class SharedMemoryTransport:
    """The `shared-memory` transport, on communicators of its own."""

    name = "shared-memory"

    def __init__(self, job: Job, arrays: Arrays) -> None:
        """Open it; collective over all ranks."""
        self.rank = job.rank
        self.size = job.size
        self.arrays = arrays
        self._job = job
        self._mpi = MPITransport(job, arrays)
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the transport"):
            self.comm: MPI.Intracomm = job.comm.Dup()
            self._near: list[int] = job.node.allgather(job.rank)
        # For each shared buffer, the memory of every rank of the node.
        self._buffers: list[dict[int, Bytes]] = []
        self._own: list[tuple[int, int]] = []  # this rank's part of each: first address and end
        self._acknowledged: list[MPI.Request] = []

    def allocate(self, count: int) -> Array:
        """A new wire array of `count` zeros that the node's ranks share; collective."""
        nbytes = max(1, count * self.arrays.kind.itemsize)
        handle = os.memfd_create("commbench")
        os.ftruncate(handle, nbytes)
        with self._job.watchdog.guard(f"rank {self.rank} waits for its node to share memory"):
            places = self._job.node.allgather((self.rank, os.getpid(), handle))
            memory = {
                rank: _mapped(f"/proc/{pid}/fd/{number}", nbytes) for rank, pid, number in places
            }
            # All have opened it: from here on the mappings keep the memory alive, and only they.
            self._job.node.Barrier()
        os.close(handle)
        own = memory[self.rank]
        start = own.ctypes.data
        self._buffers.append(memory)
        self._own.append((start, start + nbytes))
        return own[: count * self.arrays.kind.itemsize].view(self.arrays.kind.wire)

    def segment_bytes(self, peer: int) -> int:
        """Within the node nothing is copied on the way, so a message is never cut."""
        return self._mpi.segment_bytes(peer) if peer not in self._near else 1 << 62

    def send(self, data: Array, to: int) -> Callable[[], bool]:
        """Hand the peer a token for elements that it will read in place."""
        if to not in self._near:
            return self._mpi.send(data, to)
        taken = self.comm.Irecv([np.empty(0, np.uint8), MPI.BYTE], to, _TAKEN)
        number, offset = self._place(data)
        token = np.array([number, offset, data.nbytes], np.int64)
        requests = [taken, self.comm.Isend(token, to, _TOKEN)]
        if number == _PRIVATE:
            requests.append(self.comm.Isend([data.view(np.uint8), MPI.BYTE], to, _DATA))

        def sent(_: Any = (token, data)) -> bool:
            while requests:
                if not requests[-1].Test():
                    return False
                requests.pop()
            return True

        return sent

    def receive(self, count: int, source: int, into: Array | None = None) -> Any:
        """Await a token, and read from where it points."""
        if source not in self._near:
            return self._mpi.receive(count, source, into)
        return _Pointed(self, count, source, into)

    def all_reduce(self, data: Array) -> None:
        """The MPI library's own all-reduce."""
        self._mpi.all_reduce(data)

    def at(self, number: int, source: int, offset: int, nbytes: int) -> Array:
        """Elements in a peer's shared buffer."""
        memory = self._buffers[number][source]
        return memory[offset : offset + nbytes].view(self.arrays.kind.wire)

    def acknowledge(self, source: int) -> None:
        """Tell the sender of the oldest message from `source` that it has been read."""
        self._acknowledged = [one for one in self._acknowledged if not one.Test()]
        empty = [np.empty(0, np.uint8), MPI.BYTE]
        self._acknowledged.append(self.comm.Isend(empty, source, _TAKEN))

    def _place(self, data: Array) -> tuple[int, int]:
        """The shared buffer that holds the elements, and their offset in it in bytes."""
        address = data.ctypes.data
        for number, (start, stop) in enumerate(self._own):
            if start <= address and address + data.nbytes <= stop:
                return number, address - start
        return _PRIVATE, 0


class _Pointed:
    """A message from a rank of this node."""

    def __init__(
        self, transport: SharedMemoryTransport, count: int, source: int, into: Array | None
    ) -> None:
        self._transport = transport
        self._count = count
        self._source = source
        self._into = into
        self._token = np.empty(3, np.int64)
        self._request = transport.comm.Irecv(self._token, source, _TOKEN)
        self._follows: MPI.Request | None = None

    def ready(self) -> bool:
        """Whether the elements can be read."""
        if self._follows is None:
            if not self._request.Test():
                return False
            if self._token[0] != _PRIVATE:
                return True
            if self._into is None:
                self._into = self._transport.arrays.wire_empty(self._count)
            host = [self._into.view(np.uint8), MPI.BYTE]
            self._follows = self._transport.comm.Irecv(host, self._source, _DATA)
        done: bool = self._follows.Test()
        return done

    def data(self) -> Array:
        """The elements: the sender's own memory, or where the executor wanted them."""
        number, offset, nbytes = (int(word) for word in self._token)
        if number == _PRIVATE:
            return self._into
        there = self._transport.at(number, self._source, offset, nbytes)
        if self._into is None:
            return there
        np.copyto(self._into, there)
        return self._into

    def release(self) -> None:
        """Let the sender overwrite them."""
        self._transport.acknowledge(self._source)


def _mapped(path: str, nbytes: int) -> Bytes:
    handle = os.open(path, os.O_RDWR)
    try:
        return np.frombuffer(mmap.mmap(handle, nbytes), np.uint8)
    finally:
        os.close(handle)
