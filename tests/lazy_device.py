"""A GPU for machines without one: its work is done as late as allowed, in NumPy.

Streams are queues. Nothing in them happens before somebody asks for an event, and then only what
the event has to wait for, one piece of work a question. So a transport that forgets to let a stream
wait for another, or takes memory back too early, gets a wrong sum here, every time.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from commbench.arrays import Array, Bytes, ElementType, NumpyArrays
from commbench.transport.nccl import Messages

# Does a piece of work, or tells that it cannot be done yet.
Work = Callable[[], bool | None]
SYNCHRONIZE_S = 30


@dataclass(eq=False)
class LazyStream:
    ops: deque[Work] = field(default_factory=deque)
    given: int = 0
    finished: int = 0

    def give(self, work: Work) -> None:
        self.ops.append(work)
        self.given += 1

    def step(self) -> None:
        if self.ops and self.ops[0]() is not False:
            self.ops.popleft()
            self.finished += 1


@dataclass(frozen=True, eq=False)
class LazyEvent:
    stream: LazyStream
    number: int

    def come(self) -> bool:
        if self.stream.finished < self.number:
            self.stream.step()
        return self.stream.finished >= self.number


class LazyArrays(NumpyArrays):
    device = "cuda:0"

    def __init__(self, kind: ElementType) -> None:
        super().__init__(kind)
        self.main = LazyStream()
        self.pinned: list[Bytes] = []

    def wire_empty(self, count: int) -> Array:
        array = super().wire_empty(count)
        array.view(np.uint8)[:] = 0x5A
        return array

    def assign(self, wire: Array, other: Array) -> None:
        self.main.give(lambda: super(LazyArrays, self).assign(wire, other))

    def add(self, work: Array, wire: Array) -> None:
        self.main.give(lambda: super(LazyArrays, self).add(work, wire))

    def decode(self, wire: Array, work: Array) -> None:
        self.main.give(lambda: super(LazyArrays, self).decode(wire, work))

    def encode(self, work: Array, wire: Array) -> None:
        self.main.give(lambda: super(LazyArrays, self).encode(work, wire))

    def copy(self, wire: Array) -> Array:
        self.synchronize()
        return super().copy(wire)

    def differences(self, wire: Array, other: Array) -> int:
        self.synchronize()
        return super().differences(wire, other)

    def host_slot(self, nbytes: int) -> Bytes:
        self.pinned.append(np.empty(nbytes, np.uint8))
        return self.pinned[-1]

    def to_host(self, wire: Array, slot: Bytes | None) -> Bytes:
        assert slot is not None
        self.synchronize()
        np.copyto(slot, wire.view(np.uint8))
        return slot

    def from_host(self, host: Bytes, wire: Array) -> None:
        self.synchronize()
        np.copyto(wire.view(np.uint8), host)

    def synchronize(self) -> None:
        deadline = time.monotonic() + SYNCHRONIZE_S
        while self.main.ops:
            self.main.step()
            assert time.monotonic() < deadline, "a stream never ends"


class LazyDevice:
    """Memory that is shared by handle is a memfd; the handle tells where to open it."""

    def __init__(self, arrays: LazyArrays, identity: str = "gpu", reachable: bool = True) -> None:
        self.arrays = arrays
        self.main = arrays.main
        self.identity = identity
        self.reachable = reachable
        self.opened: set[bytes] = set()

    def stream(self) -> LazyStream:
        return LazyStream()

    def record(self, stream: LazyStream) -> LazyEvent:
        return LazyEvent(stream, stream.given)

    def wait(self, stream: LazyStream, event: LazyEvent) -> None:
        stream.give(event.come)

    def done(self, event: LazyEvent) -> bool:
        return event.come()

    def copy(self, target: Array, source: Array, stream: LazyStream) -> None:
        pinned = [self.is_pinned(one) for one in (target, source)]
        assert sorted(pinned) == [False, True], "not between the host and the GPU"
        stream.give(lambda: np.copyto(target, source))

    def is_pinned(self, array: Array) -> bool:
        return any(np.may_share_memory(array, slot) for slot in self.arrays.pinned)

    def memory(self, nbytes: int) -> Array:
        handle = os.memfd_create("lazy")
        os.ftruncate(handle, nbytes)
        array = np.frombuffer(mmap.mmap(handle, nbytes), np.uint8)
        self.handles = {**getattr(self, "handles", {}), array.ctypes.data: handle}
        return array

    def handle(self, memory: Array) -> bytes:
        return f"/proc/{os.getpid()}/fd/{self.handles[memory.ctypes.data]}".encode()

    def open(self, handle: bytes, nbytes: int) -> Array:
        if not self.reachable:
            raise OSError("peer access is not supported between these two devices")
        assert handle not in self.opened, "a handle is opened once"
        assert not handle.startswith(f"/proc/{os.getpid()}/".encode()), "its own memory"
        self.opened.add(handle)
        file = os.open(handle.decode(), os.O_RDWR)
        try:
            return np.frombuffer(mmap.mmap(file, nbytes), np.uint8)
        finally:
            os.close(file)

    def address(self, array: Array) -> int:
        return int(array.ctypes.data)


class LazyNccl:
    """NCCL's rules over MPI: a group blocks its stream until every peer has come to it."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.aborted = False

    def group(self, sends: Messages, recvs: Messages, stream: LazyStream) -> None:
        requests: list[MPI.Request] = []

        def work() -> bool:
            if not requests:
                requests.extend(self.comm.Issend(as_bytes(data), to, 5) for data, to in sends)
                requests.extend(self.comm.Irecv(as_bytes(data), at, 5) for data, at in recvs)
            return MPI.Request.Testall(requests)

        stream.give(work)

    def all_reduce(self, data: Array, stream: LazyStream) -> None:
        def work() -> None:
            total = np.empty(len(data), np.float64)
            self.comm.Allreduce(data.astype(np.float64), total)
            data[:] = total.astype(data.dtype)

        stream.give(work)

    def check(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def as_bytes(data: Array) -> Sequence[Any]:
    words: NDArray[np.uint8] = data.view(np.uint8)
    return [words, MPI.BYTE]
