"""Messages over MPI: Isend and Irecv of raw bytes in host memory."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from mpi4py import MPI

from commbench.arrays import Array, Arrays
from commbench.cutting import Cut
from commbench.job import Job
from commbench.prepared import WINDOW
from commbench.transport import Incoming, Question
from commbench.transport.compiled import Program, can_play
from commbench.transport.pages import HUGE_PAGE_BYTES
from commbench.transport.translation import Ground, Requests
from commbench.units import seconds_given

TAG = 7
SEGMENT_BYTES = 1 << 20
# Messages to one peer that MPI has at once. MPICH 5.0.2 goes through all of them whenever it is
# asked about one: 400 of 1 MiB took seven times as long as four times 100.
_UNDER_WAY = 8
# Messages to different peers over one narrow link share it, and those of a later round delay those
# of an earlier one, which others wait for. Where this is set, a rank hands its messages over one
# after the other; or when one has not ended for so many seconds: its receiver may be waiting for
# what comes behind it.
IN_TURN = "COMMBENCH_SEND_IN_TURN_S"
# Allreduce counts are C ints before MPI 4, and not every library's large-count calls work yet.
_LARGEST_ALLREDUCE_BYTES = 1 << 30


@cache
def _entry_points() -> tuple[int, int] | None:
    """Addresses of MPI_Start and MPI_Test in the library that mpi4py has loaded."""
    try:
        library = ctypes.CDLL(MPI.__file__)
        places = (
            ctypes.cast(call, ctypes.c_void_p).value
            for call in (library.MPI_Start, library.MPI_Test)
        )
        start, test = (place or 0 for place in places)
    except (OSError, AttributeError):
        return None
    return start, test


class _Received:
    """An Irecv into memory of the transport's own or the caller's."""

    __slots__ = ("_into", "_own", "_transport", "ready")
    lent = None

    def __init__(
        self, transport: MPITransport, into: Array, own: bool, ready: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._into = into
        self._own = own
        self.ready = ready

    def data(self) -> Array:
        return self._into

    def release(self) -> None:
        if self._own:
            self._transport.recycle(self._into)


class _Sending:
    """A persistent request, and whether it has been started this time."""

    __slots__ = ("__weakref__", "request", "started", "to")

    def __init__(self, request: MPI.Prequest, to: int) -> None:
        self.request = request
        self.to = to
        self.started = False


class _Outbox:
    """The messages to one peer, of which a few at a time are handed to MPI, in order."""

    def __init__(self) -> None:
        self._under_way: deque[_Sending] = deque()
        self._waiting: deque[_Sending] = deque()

    def put(self, sending: _Sending) -> None:
        sending.started = False
        self._waiting.append(sending)

    def flush(self) -> bool:
        """Hand over as many as may be; whether that was all."""
        under_way, waiting = self._under_way, self._waiting
        while waiting:
            if self._may(waiting[0], under_way):
                sending = waiting.popleft()
                sending.request.Start()
                sending.started = True
                under_way.append(sending)
            # Not before it matters: asked, MPI may start to copy what has arrived, while peers
            # still wait to hear of what is to be sent.
            elif under_way[0].request.Test():
                under_way.popleft()
            else:
                break
            self._moved()
        return not waiting

    def _may(self, following: _Sending, under_way: deque[_Sending]) -> bool:
        return len(under_way) < _UNDER_WAY

    def _moved(self) -> None:
        """A message was handed over or has ended."""


class _Port(_Outbox):
    """The messages to all peers, which leave one after the other."""

    def __init__(self, patience_s: float) -> None:
        super().__init__()
        self._patience_s = patience_s
        self._since = 0.0

    def _may(self, following: _Sending, under_way: deque[_Sending]) -> bool:
        # The next one to the same peer follows without a gap.
        if not under_way or (len(under_way) < 2 and under_way[-1].to == following.to):
            return True
        return time.monotonic() - self._since > self._patience_s

    def _moved(self) -> None:
        self._since = time.monotonic()


class MPITransport:
    """The `mpi` transport, on a communicator of its own."""

    name = "mpi"
    copiers = 1

    def __init__(self, job: Job, arrays: Arrays) -> None:
        """Open it; collective over all ranks."""
        self.rank = job.rank
        self.size = job.size
        self.arrays = arrays
        self._job = job
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the transport"):
            self.comm: MPI.Intracomm = job.comm.Dup()
        self._scratch: dict[int, list[Array]] = {}
        self._landings: dict[int, Array] = {}
        self._outboxes: dict[int, _Outbox] = {}
        self._held_back: list[_Outbox] = []
        in_turn = os.environ.get(IN_TURN)
        self._port = _Port(seconds_given(IN_TURN, in_turn)) if in_turn else None
        # Requests that nobody will start again. They come from wherever Python drops what held
        # them, which may be no moment, or thread, to call MPI from.
        self._unused: deque[MPI.Prequest] = deque()
        self._operator: MPI.Op | None = None
        self._plain = arrays.kind.wire == arrays.kind.work
        self._in_all_reduce = job.watchdog.guard(
            f"rank {job.rank} waits in MPI_Allreduce for its peers"
        )

    def allocate(self, count: int) -> Array:
        """A new wire array of zeros; MPI sends from anywhere."""
        array = self.arrays.from_values(np.zeros(count))
        self.arrays.synchronize()
        return array

    def segment_bytes(self, peer: int) -> int:
        """1 MiB: long enough to hide its cost, short enough to add while the next arrives."""
        return SEGMENT_BYTES

    def beside(self, buffer: Array) -> Array:
        """Another array; MPI sends from anywhere."""
        return self.arrays.wire_empty(len(buffer))

    def lends(self, peer: int) -> bool:
        """No rank reaches another's memory."""
        return False

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
        """Prepare to send, as one persistent request."""
        request = self.send_request(data, to)
        sending = _Sending(request, to)
        self.free_after(sending, [request])
        outbox = self._port or self._outboxes.setdefault(to, _Outbox())
        taken = self._asking(lambda: sending.started and request.Test())

        def start(answered: bool) -> Question:
            outbox.put(sending)
            if not outbox.flush() and outbox not in self._held_back:
                self._held_back.append(outbox)
            return taken

        return start

    def _free_unused(self) -> None:
        """Give unused requests back to MPI, those that have ended."""
        for _ in range(len(self._unused)):
            request = self._unused.popleft()
            if request.Test():
                request.Free()
            else:
                self._unused.append(request)

    def send(self, data: Array, to: int) -> Question:
        """Start an Isend; returns the question whether `data` may be overwritten."""
        test: Callable[[], bool] = self.comm.Isend([data.view(np.uint8), MPI.BYTE], to, TAG).Test
        return test

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        """Prepare to `receive`."""
        return partial(self.receive, count, source, into)

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Start an Irecv."""
        own = into is None
        if into is None:
            into = self.scratch(count)
        request = self.comm.Irecv([into.view(np.uint8), MPI.BYTE], source, TAG)
        return _Received(self, into, own, self._asking(request.Test))

    def _asking(self, test: Callable[[], bool]) -> Question:
        """A question that goes on, while the answer is no, with what others may wait for."""

        def ask() -> bool:
            if test():
                return True
            if self._held_back:
                self._held_back = [outbox for outbox in self._held_back if not outbox.flush()]
            return False

        return ask

    def scratch(self, count: int) -> Array:
        """A wire array to receive into."""
        free = self._scratch.setdefault(count, [])
        if not free:
            several = WINDOW if count * self.arrays.kind.itemsize >= SEGMENT_BYTES else 1
            block = self._on_huge_pages(several * count)
            free += [block[index * count : (index + 1) * count] for index in range(several)]
        return free.pop()

    def _on_huge_pages(self, count: int) -> Array:
        """A wire array, on huge pages if it is long: libraries that pin what they read are faster.

        NumPy asks for them from 4 MiB on, but the kernel gives only whole ones.
        """
        itemsize = self.arrays.kind.itemsize
        if self.arrays.device != "cpu" or count * itemsize < HUGE_PAGE_BYTES:
            return self.arrays.wire_empty(count)
        block = self.arrays.wire_empty(count + HUGE_PAGE_BYTES // itemsize)
        first = -block.ctypes.data % HUGE_PAGE_BYTES // itemsize
        return block[first : first + count]

    def recycle(self, scratch: Array) -> None:
        """Keep a finished message's wire array for the next of its length."""
        self._scratch.setdefault(len(scratch), []).append(scratch)

    @property
    def requests(self) -> Requests | None:
        """For programs, which start and test requests themselves; None where they cannot.

        They know nothing of GPUs, nor of a port at which messages wait for each other.
        """
        return self if self.arrays.device == "cpu" and not self._port and _entry_points() else None

    def program(self, plan: Cut, wire: Array, work: Array) -> Program | None:
        """Does all of a plan outside Python."""
        far = self.requests
        if far is None or not can_play(plan, wire, range(self.size)):
            return None
        copies = self.beside(wire) if any(one.copy for one in plan.sendings) else None
        crowded = self._job.local_size > self._job.node_cores
        return Program(plan, Ground(wire, work, copies, crowded, far))

    def send_request(self, data: Array, to: int) -> MPI.Prequest:
        """Sends elements, whenever it is started."""
        self._free_unused()
        return self.comm.Send_init([data.view(np.uint8), MPI.BYTE], to, TAG)

    def receive_request(self, into: Array, source: int) -> MPI.Prequest:
        """Receives elements, whenever it is started."""
        return self.comm.Recv_init([into.view(np.uint8), MPI.BYTE], source, TAG)

    def landing(self, count: int) -> Array:
        """``(WINDOW * count,)``, where elements may come that are to be added."""
        if count not in self._landings:
            self._landings[count] = self._on_huge_pages(WINDOW * count)
        return self._landings[count]

    def free_after(self, owner: object, requests: list[MPI.Prequest]) -> None:
        """Give requests back to MPI once their owner is gone."""
        weakref.finalize(owner, self._unused.extend, requests).atexit = False

    def handle(self, request: MPI.Prequest) -> int:
        """The address of MPI's handle, as long as the request is kept."""
        return MPI._addressof(request)

    def calls(self) -> tuple[int, int]:
        """Addresses of MPI_Start and MPI_Test."""
        found = _entry_points()
        assert found is not None
        return found

    def all_reduce(self, data: Array) -> None:
        """MPI_Allreduce in place.

        16-bit elements have no portable MPI type: the library's algorithm then runs with our own
        operator, which adds in float32 and rounds after every addition.
        """
        with self._in_all_reduce:
            if self._plain and data.nbytes <= _LARGEST_ALLREDUCE_BYTES:
                self.comm.Allreduce(MPI.IN_PLACE, data)
                return
            step = _LARGEST_ALLREDUCE_BYTES // self.arrays.kind.itemsize
            for start in range(0, len(data), step):
                part = data[start : start + step]
                if self._plain:
                    self.comm.Allreduce(MPI.IN_PLACE, part)
                else:
                    words = [part.view(np.uint16), MPI.UINT16_T]
                    self.comm.Allreduce(MPI.IN_PLACE, words, self._narrow_sum())

    def _narrow_sum(self) -> MPI.Op:
        if self._operator is None:
            wire = self.arrays.kind.wire

            def add(source: Any, target: Any, _: MPI.Datatype) -> None:
                left, right = np.frombuffer(source, wire), np.frombuffer(target, wire)
                right[:] = left.astype(np.float32) + right.astype(np.float32)

            self._operator = MPI.Op.Create(add, commute=True)
        return self._operator
