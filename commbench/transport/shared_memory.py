"""Between ranks of one node, a message is a token: the receiver reads the sender's own memory.

Buffers come from `allocate` and lie in memory that every rank of the node maps. Messages to other
nodes, and the elements of messages from memory of the sender's own, go by another transport.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from commbench.arrays import Array, Arrays
from commbench.cutting import Cut
from commbench.job import Job
from commbench.transport import Incoming, Question
from commbench.transport.compiled import Program, can_play
from commbench.transport.mailbox import Mailbox, share
from commbench.transport.mpi import MPITransport
from commbench.transport.translation import Ground

# What a token says: which shared buffer, first byte, number of bytes, and what they are for.
_PLAIN, _LENT, _ANSWERED = 0, 1, 2
# Instead of a buffer: the elements follow in a message of their own.
_PRIVATE = -1
# Ranks a core up to which buffers get huge pages: to put them together takes a second a gigabyte,
# and where a hundred ranks start at once, each waits for all of them.
_FEW = 8
# Messages over MPI that have not been asked about, before those that have ended are let go.
_MANY = 64


class SharedMemoryTransport:
    """The `shared-memory` transport, on a communicator of its own."""

    name = "shared-memory"

    def __init__(self, job: Job, arrays: Arrays, far: MPITransport | None = None) -> None:
        """Open it; collective over all ranks.

        Args:
            job: the ranks.
            arrays: for the elements.
            far: for ranks of other nodes; plain MPI if None.
        """
        self.rank = job.rank
        self.size = job.size
        self.arrays = arrays
        self.copiers = job.node_cores
        self._job = job
        self._far = far or MPITransport(job, arrays)
        with job.watchdog.guard(f"rank {job.rank} waits for its node to open the transport"):
            self._near = frozenset(job.node.allgather(job.rank))
        self.mailbox = Mailbox(job, self._ask_far)
        # For each shared buffer, the memory of every rank of the node.
        self._buffers: list[dict[int, Array]] = []
        self._own: list[tuple[int, int]] = []  # this rank's part of each: first address and end
        # The addresses of all of these, by buffer and rank, and where they are listed.
        self._addresses = np.empty((0, 0), np.int64)
        self._buffers_address = 0
        self._views: dict[tuple[int, int, int, int], Array] = {}
        # Questions whether the other transport is through with something: asking keeps it going.
        self._on_their_way: list[Question] = []

    def allocate(self, count: int) -> Array:
        """A new wire array of `count` zeros that the node's ranks share; collective."""
        itemsize = self.arrays.kind.itemsize
        nbytes = max(1, count) * itemsize
        with self._job.watchdog.guard(f"rank {self.rank} waits for its node to share memory"):
            # Twice: the second half is for copies (`beside`), and no memory before it is used.
            arrays = self.share(2 * nbytes)
        start = self.address(arrays[self.rank])
        self._buffers.append(arrays)
        self._own.append((start, start + 2 * nbytes))
        places = [[self.address(part) for part in every.values()] for every in self._buffers]
        self._addresses = np.array(places, np.int64)
        self._buffers_address = int(self._addresses.ctypes.data)
        # The type of the arrays' storage: CuPy lacks bfloat16.
        return arrays[self.rank][: count * itemsize].view(self.arrays.wire_empty(0).dtype)

    def share(self, nbytes: int) -> dict[int, Array]:
        """New bytes, all zero, of every rank of the node, by rank; collective over them."""
        job = self._job
        # The second half is for copies, which hardly anybody makes.
        used = nbytes // 2 if job.local_size <= _FEW * job.node_cores else 0
        memory = share(job, nbytes, used)
        return {rank: np.frombuffer(one, np.uint8) for rank, one in memory.items()}

    def address(self, data: Array) -> int:
        """Where an array's elements begin."""
        return int(data.ctypes.data)

    def settle(self) -> None:
        """Wait until what this rank has done to elements can be seen by others."""

    def beside(self, buffer: Array) -> Array:
        """An array as long as `buffer`, to send copies of its elements from."""
        number, offset = self._place(buffer)
        if number == _PRIVATE:
            return self.arrays.wire_empty(len(buffer))
        own = self._buffers[number][self.rank]
        return own[len(own) // 2 + offset :][: buffer.nbytes].view(buffer.dtype)

    def segment_bytes(self, peer: int) -> int:
        """Within the node nothing is copied on the way, so a message is never cut."""
        return self._far.segment_bytes(peer) if peer not in self._near else 1 << 62

    def lends(self, peer: int) -> bool:
        """Ranks of a node can write into each other's buffers."""
        return peer in self._near

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
        """Prepare a token for elements that the peer will read in place."""
        if to not in self._near:
            far = self._far.sender(data, to)
            return lambda answered: self._watched(far(answered))
        number, offset = self._place(data)
        if number == _PRIVATE:
            post = self.mailbox.poster(to, (_PRIVATE, 0, data.nbytes, _PLAIN))
            return lambda answered: self._send_private(data, to, post)
        tell = self.mailbox.poster(to, (number, offset, data.nbytes, _LENT if lend else _PLAIN))
        answer = self.mailbox.poster(to, (number, offset, data.nbytes, _ANSWERED))
        settle, all_posted = self.settle, self._all_posted

        def start(answered: bool) -> Question:
            settle()
            if not answered:
                return tell()
            answer()
            return all_posted

        return start

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        """Prepare to await a token, and to read from where it points."""
        if source in self._near:
            return _Pointed(self, count, source, into).expected
        far = self._far.receiver(count, source, into)

        def start() -> Incoming:
            incoming = far()
            self._watched(incoming.ready)
            return incoming

        return start

    def all_reduce(self, data: Array) -> None:
        """The other transport's own all-reduce."""
        self._far.all_reduce(data)

    def program(self, plan: Cut, wire: Array, work: Array) -> Program | None:
        """Does all of a plan outside Python."""
        number, _ = self._place(wire)
        far = self._far.requests
        if (
            number == _PRIVATE
            or self.arrays.device != "cpu"
            or not can_play(plan, wire, range(self.size) if far else self._near)
        ):
            return None
        return Program(
            plan,
            Ground(
                wire,
                work,
                self.beside(wire),
                crowded=self._job.local_size > self._job.node_cores,
                far=far,
                lanes=self.mailbox.lanes(),
                number=number,
                start=self._own[number][0],
                buffers=self._list_of_buffers,
            ),
        )

    def _list_of_buffers(self) -> int:
        # A program numbers its tokens behind all that have been sent.
        assert self.mailbox.idle, "a program must not overtake tokens that are held back"
        return self._buffers_address

    def at(self, source: int, number: int, offset: int, nbytes: int) -> Array:
        """Elements in a peer's shared buffer."""
        key = (source, number, offset, nbytes)
        view = self._views.get(key)
        if view is None:
            memory = self._buffers[number][source]
            storage = self.arrays.wire_empty(0).dtype
            view = self._views[key] = memory[offset : offset + nbytes].view(storage)
        return view

    def _ask_far(self) -> None:
        if self._on_their_way:
            self._on_their_way = [one for one in self._on_their_way if not one()]

    def _all_posted(self) -> bool:
        self.mailbox.progress()
        return self.mailbox.idle

    def _watched(self, question: Question) -> Question:
        if len(self._on_their_way) > _MANY:
            self._ask_far()
        self._on_their_way.append(question)
        return question

    def private(self, count: int, source: int, into: Array | None) -> Incoming:
        """Receive the elements of a peer's message that do not lie in shared memory."""
        return self._far.receive(count, source, into)

    def _send_private(self, data: Array, to: int, post: Callable[[], Question]) -> Question:
        taken = post()
        sent = self._watched(self._far.send(data, to))
        return lambda: sent() and taken()

    def _place(self, data: Array) -> tuple[int, int]:
        """The shared buffer that holds the elements, and their offset in it in bytes."""
        address = self.address(data)
        for number, (start, stop) in enumerate(self._own):
            if start <= address and address + data.nbytes <= stop:
                return number, address - start
        return _PRIVATE, 0


class _Pointed:
    """A message from a rank of this node, one at a time."""

    __slots__ = (
        *("_answered", "_count", "_into", "_letter", "_private", "_settle", "_source", "_there"),
        *("_told", "_transport", "lent"),
    )

    def __init__(
        self, transport: SharedMemoryTransport, count: int, source: int, into: Array | None
    ) -> None:
        self._transport = transport
        self._count = count
        self._source = source
        self._into = into
        self._settle = transport.settle
        self._letter = transport.mailbox.letter(source)
        self._private: Incoming | None = None
        # What the token said, mostly the same every time, and what follows from it: where the
        # elements are, if they are here, and whether they have been written where they are wanted.
        self._told = b""
        self._there: Array | None = None
        self._answered = False
        # The sender's elements, where the answer may be written.
        self.lent: Array | None = None

    def expected(self) -> Incoming:
        """The next message."""
        self._letter.expect()
        self._private = None
        return self

    def ready(self) -> bool:
        """Whether the elements can be read."""
        if self._private is None:
            if not self._letter.here():
                self._transport.mailbox.progress()
                return False
            told = self._letter.told()
            if told != self._told:
                self._understand(told)
            if self._there is not None:
                return True
            self._private = self._transport.private(self._count, self._source, self._into)
        return self._private.ready()

    def _understand(self, told: bytes) -> None:
        number, offset, nbytes, kind = memoryview(told).cast("q").tolist()
        self._told, self._answered = told, kind == _ANSWERED
        self._there = None
        if number != _PRIVATE:
            self._there = self._transport.at(self._source, number, offset, nbytes)
        self.lent = self._there if kind == _LENT else None

    def data(self) -> Array:
        """The elements: the sender's own memory, or where the executor wanted them."""
        if self._private is not None:
            return self._private.data()
        if self._into is None:
            return self._there
        if not self._answered:
            self._transport.arrays.assign(self._into, self._there)
        return self._into

    def release(self) -> None:
        """Let the sender overwrite them."""
        if self._private is not None:
            self._private.release()
        else:
            self._settle()
        self._letter.done()
