"""Between ranks of one node, a message is a token: the receiver reads the sender's own memory.

Buffers come from `allocate` and lie in memory that every rank of the node maps. Messages to other
nodes, and the elements of messages from memory of the sender's own, go over MPI.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from commbench.arrays import Array, Arrays
from commbench.job import Job
from commbench.transport import Incoming
from commbench.transport.mailbox import Letter, Mailbox, share
from commbench.transport.mpi import MPITransport

_DATA = 21
# What a token says: which shared buffer, first byte, number of bytes, and what they are for.
_PLAIN, _LENT, _ANSWERED = 0, 1, 2
# Instead of a buffer: the elements follow in a message of their own.
_PRIVATE = -1
# Messages over MPI that have not been asked about, before those that have ended are let go.
_MANY = 64


class SharedMemoryTransport:
    """The `shared-memory` transport, on a communicator of its own."""

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
            self._near = frozenset(job.node.allgather(job.rank))
        self.mailbox = Mailbox(job, self._ask_mpi)
        # For each shared buffer, the memory of every rank of the node.
        self._buffers: list[dict[int, Array]] = []
        self._own: list[tuple[int, int]] = []  # this rank's part of each: first address and end
        self._views: dict[tuple[int, int, int, int], Array] = {}
        # Questions whether MPI is through with something: asking keeps it going.
        self._on_their_way: list[Callable[[], bool]] = []

    def allocate(self, count: int) -> Array:
        """A new wire array of `count` zeros that the node's ranks share; collective."""
        itemsize = self.arrays.kind.itemsize
        nbytes = max(1, count) * itemsize
        with self._job.watchdog.guard(f"rank {self.rank} waits for its node to share memory"):
            # Twice: the second half is for copies (`beside`), and no memory before it is used.
            memory = share(self._job, 2 * nbytes)
        arrays = {rank: np.frombuffer(one, np.uint8) for rank, one in memory.items()}
        start = arrays[self.rank].ctypes.data
        self._buffers.append(arrays)
        self._own.append((start, start + 2 * nbytes))
        return arrays[self.rank][: count * itemsize].view(self.arrays.kind.wire)

    def beside(self, buffer: Array) -> Array:
        """An array as long as `buffer`, to send copies of its elements from."""
        number, offset = self._place(buffer)
        if number == _PRIVATE or offset:
            return np.empty_like(buffer)
        own = self._buffers[number][self.rank]
        return own[len(own) // 2 :][: buffer.nbytes].view(buffer.dtype)

    def segment_bytes(self, peer: int) -> int:
        """Within the node nothing is copied on the way, so a message is never cut."""
        return self._mpi.segment_bytes(peer) if peer not in self._near else 1 << 62

    def lends(self, peer: int) -> bool:
        """Ranks of a node can write into each other's buffers."""
        return peer in self._near

    def sender(
        self, data: Array, to: int, *, lend: bool = False
    ) -> Callable[[bool], Callable[[], bool]]:
        """Prepare a token for elements that the peer will read in place."""
        if to not in self._near:
            far = self._mpi.sender(data, to)
            return lambda answered: self._watched(far(answered))
        number, offset = self._place(data)
        post = self.mailbox.post
        if number == _PRIVATE:
            token = (_PRIVATE, 0, data.nbytes, _PLAIN)
            return lambda answered: self._send_private(data, to, token)
        told = (number, offset, data.nbytes, _LENT if lend else _PLAIN)
        answer = (number, offset, data.nbytes, _ANSWERED)

        def start(answered: bool) -> Callable[[], bool]:
            if not answered:
                return post(to, told)
            post(to, answer)
            return self._all_posted

        return start

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Await a token, and read from where it points."""
        if source in self._near:
            return _Pointed(self, count, source, into)
        incoming = self._mpi.receive(count, source, into)
        self._watched(incoming.ready)
        return incoming

    def all_reduce(self, data: Array) -> None:
        """The MPI library's own all-reduce."""
        self._mpi.all_reduce(data)

    def at(self, source: int, number: int, offset: int, nbytes: int) -> Array:
        """Elements in a peer's shared buffer."""
        key = (source, number, offset, nbytes)
        view = self._views.get(key)
        if view is None:
            memory = self._buffers[number][source]
            view = self._views[key] = memory[offset : offset + nbytes].view(self.arrays.kind.wire)
        return view

    def _ask_mpi(self) -> None:
        if self._on_their_way:
            self._on_their_way = [one for one in self._on_their_way if not one()]

    def _all_posted(self) -> bool:
        self.mailbox.progress()
        return self.mailbox.idle

    def _watched(self, question: Callable[[], bool]) -> Callable[[], bool]:
        if len(self._on_their_way) > _MANY:
            self._ask_mpi()
        self._on_their_way.append(question)
        return question

    def _send_private(
        self, data: Array, to: int, token: tuple[int, int, int, int]
    ) -> Callable[[], bool]:
        taken = self.mailbox.post(to, token)
        request = self.comm.Isend([data.view(np.uint8), MPI.BYTE], to, _DATA)
        self._watched(request.Test)
        return lambda: request.Test() and taken()

    def _place(self, data: Array) -> tuple[int, int]:
        """The shared buffer that holds the elements, and their offset in it in bytes."""
        address = data.ctypes.data
        for number, (start, stop) in enumerate(self._own):
            if start <= address and address + data.nbytes <= stop:
                return number, address - start
        return _PRIVATE, 0


class _Pointed:
    """A message from a rank of this node."""

    __slots__ = ("_count", "_into", "_letter", "_request", "_source", "_transport", "lent")

    def __init__(
        self, transport: SharedMemoryTransport, count: int, source: int, into: Array | None
    ) -> None:
        self._transport = transport
        self._count = count
        self._source = source
        self._into = into
        self._letter: Letter = transport.mailbox.expect(source)
        self._request: MPI.Request | None = None
        # The sender's elements, where the answer may be written.
        self.lent: Array | None = None

    def ready(self) -> bool:
        """Whether the elements can be read."""
        if self._request is None:
            if not self._letter.here():
                self._transport.mailbox.progress()
                return False
            number, offset, nbytes, kind = self._letter.read()
            if number != _PRIVATE:
                if kind == _LENT:
                    self.lent = self._transport.at(self._source, number, offset, nbytes)
                return True
            if self._into is None:
                self._into = self._transport.arrays.wire_empty(self._count)
            host = [self._into.view(np.uint8), MPI.BYTE]
            self._request = self._transport.comm.Irecv(host, self._source, _DATA)
        done: bool = self._request.Test()
        return done

    def data(self) -> Array:
        """The elements: the sender's own memory, or where the executor wanted them."""
        number, offset, nbytes, kind = self._letter.read()
        if number == _PRIVATE or kind == _ANSWERED:
            return self._into
        there = self._transport.at(self._source, number, offset, nbytes)
        if self._into is None:
            return there
        np.copyto(self._into, there)
        return self._into

    def release(self) -> None:
        """Let the sender overwrite them."""
        self._letter.done()
