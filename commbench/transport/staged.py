"""Messages of GPU arrays over any MPI library, through pinned host memory, as a pipeline.

A message goes down to the host, over MPI and up to the other GPU. Copies down, copies up and the
arrays' own work run in streams of their own, so while one segment travels others are copied and
added. The host never waits for the GPU: it asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mpi4py import MPI

from commbench.arrays import Array, Arrays, Bytes
from commbench.job import Job
from commbench.transport import Incoming, Question
from commbench.transport.device import Device, Event
from commbench.transport.mpi import TAG, MPITransport

# Messages to one peer that hold pinned memory at once: some on their way down, some in MPI's hands.
# A limit over all peers could let one that is late hold up what another waits for.
_UNDER_WAY = 8


class _Outgoing:
    """A message to a peer: to be copied down, to be sent, to be taken."""

    __slots__ = ("_transport", "copied", "data", "request", "slot", "taken", "to")

    def __init__(self, transport: StagedTransport, data: Array, to: int) -> None:
        self._transport = transport
        self.data = data
        self.to = to
        self.slot: Bytes | None = None
        self.copied: Event | None = None
        self.request: MPI.Request | None = None
        self.taken = False

    def sent(self) -> bool:
        """Whether the elements may be overwritten."""
        if not self.taken:
            self._transport.progress()
        return self.taken


class _Landing:
    """A message from a peer: it arrives in pinned memory and is copied up when it is asked for."""

    __slots__ = ("_copied", "_into", "_own", "_request", "_slot", "_transport")
    lent = None

    def __init__(self, transport: StagedTransport, into: Array, own: bool, source: int) -> None:
        self._transport = transport
        self._into = into
        self._own = own
        self._slot = transport.pinned(into.nbytes)
        self._request = transport.comm.Irecv([self._slot, MPI.BYTE], source, TAG)
        self._copied: Event | None = None

    def ready(self) -> bool:
        """Whether it is in host memory."""
        self._transport.progress()
        done: bool = self._request.Test()
        return done

    def data(self) -> Array:
        """Its elements on the GPU, for the arrays' own work."""
        if self._copied is None:
            self._copied = self._transport.bring_up(self._slot, self._into)
        return self._into

    def release(self) -> None:
        """Keep its memory for the next of its size."""
        self._transport.keep(self._slot, self._copied, self._into if self._own else None)


class StagedTransport(MPITransport):
    """The `staged` transport, on a communicator of its own."""

    name = "staged"

    def __init__(self, job: Job, arrays: Arrays, device: Device) -> None:
        """Open it; collective over all ranks."""
        super().__init__(job, arrays)
        self._device = device
        self._down = device.stream()
        self._up = device.stream()
        # By receiver, in order: what waits to be copied down, and what has memory already.
        self._lanes: dict[int, tuple[deque[_Outgoing], deque[_Outgoing]]] = {}
        self._free: dict[int, list[Bytes]] = {}
        # Pinned memory that is being copied up.
        self._busy: deque[tuple[Event, Bytes]] = deque()

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
        """Prepare to `send`."""
        return lambda answered: self.send(data, to)

    def send(self, data: Array, to: int) -> Question:
        """Start sending: now, or once earlier messages to the peer have been taken."""
        message = _Outgoing(self, data, to)
        self._lanes.setdefault(to, (deque(), deque()))[0].append(message)
        self.progress()
        return message.sent

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Start receiving into pinned memory."""
        if into is None:
            return _Landing(self, self.scratch(count), True, source)
        return _Landing(self, into, False, source)

    def all_reduce(self, data: Array) -> None:
        """MPI_Allreduce of a copy in pinned memory."""
        slot = self.pinned(data.nbytes)
        host = self.arrays.to_host(data, slot)
        super().all_reduce(host.view(self.arrays.kind.wire))
        self.arrays.from_host(host, data)
        self._give_back(slot)

    def pinned(self, nbytes: int) -> Bytes:
        """Host memory that a GPU can copy to and from by itself."""
        free = self._free.get(nbytes)
        slot = free.pop() if free else self.arrays.host_slot(nbytes)
        assert slot is not None
        return slot

    def progress(self) -> None:
        """Go on with all messages as far as they are; never blocks."""
        while self._busy and self._device.done(self._busy[0][0]):
            self._give_back(self._busy.popleft()[1])
        for queued, under_way in self._lanes.values():
            self._send_copied(under_way)
            while under_way and (request := under_way[0].request) is not None and request.Test():
                first = under_way.popleft()
                first.taken = True
                assert first.slot is not None
                self._give_back(first.slot)
            self._copy_down(queued, under_way)

    def bring_up(self, host: Bytes, into: Array) -> Event:
        """Start copying a message to the GPU; the arrays' later work waits for it there."""
        device = self._device
        # Earlier work may still read what is overwritten.
        device.wait(self._up, device.record(device.main))
        device.copy(into, host.view(into.dtype), self._up)
        copied = device.record(self._up)
        device.wait(device.main, copied)
        return copied

    def keep(self, slot: Bytes, copied: Event | None, scratch: Array | None) -> None:
        """Take back the memory of a message that has been used."""
        if scratch is not None:
            # The next copy into it waits for the work that reads it now.
            self.recycle(scratch)
        if copied is None:
            self._give_back(slot)
        else:
            self._busy.append((copied, slot))

    def _give_back(self, slot: Bytes) -> None:
        self._free.setdefault(len(slot), []).append(slot)

    def _copy_down(self, queued: deque[_Outgoing], under_way: deque[_Outgoing]) -> None:
        device = self._device
        while queued and len(under_way) < _UNDER_WAY:
            message = queued.popleft()
            message.slot = self.pinned(message.data.nbytes)
            device.wait(self._down, device.record(device.main))
            device.copy(message.slot.view(message.data.dtype), message.data, self._down)
            message.copied = device.record(self._down)
            under_way.append(message)

    def _send_copied(self, under_way: deque[_Outgoing]) -> None:
        """Hand MPI what is in host memory; the peer takes messages in this order."""
        for message in under_way:
            if message.request is not None:
                continue
            if not self._device.done(message.copied):
                return
            message.request = self.comm.Isend([message.slot, MPI.BYTE], message.to, TAG)
