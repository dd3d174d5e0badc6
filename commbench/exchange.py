"""Runs a schedule over a flat buffer, whatever the topology, transport and array library.

A message longer than a segment travels as several, so that adding one overlaps receiving the next,
scratch memory stays small whatever the number of peers, and no message reaches MPI's 2 GiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from commbench.arrays import Array
from commbench.schedule import AllReduce, Recv, Round, Schedule, Send
from commbench.transport import Incoming, Transport
from commbench.transport.waiting import wait_until

# Receives posted at once: one to add, the others on their way.
_WINDOW = 4


@dataclass(slots=True)
class _Outgoing:
    """Elements ``[start, stop)`` that are still being read by a send."""

    start: int
    stop: int
    to: int
    turn: int
    sent: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Segment:
    """Part of one receive: elements ``[start, stop)`` from `source`."""

    start: int
    stop: int
    source: int
    reduce: bool
    # Whether an earlier receive of the same round writes here too, so this one must come after it.
    follows: bool


@dataclass(frozen=True, slots=True)
class _Turn:
    """A round for one buffer length: its messages cut into segments, empty ones left out."""

    sends: tuple[tuple[int, int, int, bool], ...]  # start, stop, to, whether to send a copy
    recvs: tuple[_Segment, ...]
    native: tuple[int, int] | None


class Exchange:
    """One rank's part of an exchange over one buffer, to be run as often as wanted."""

    def __init__(
        self,
        schedule: Schedule,
        buffer: Array,
        transport: Transport,
        *,
        timeout_s: float = 300.0,
        segment_bytes: int | None = None,
    ) -> None:
        """Prepare it.

        Args:
            schedule: this rank's schedule.
            buffer: ``(n,)``, contiguous, of the transport's element type; summed in place. All
                ranks pass the same n.
            transport: open over all ranks that the schedule names.
            timeout_s: the longest wait for a peer, in seconds.
            segment_bytes: the longest message, the same on all ranks; None leaves it to the
                transport.
        """
        self._transport = transport
        self._arrays = transport.arrays
        self._wire = buffer
        self._work = self._arrays.work_of(buffer)
        self._timeout_s = timeout_s

        def longest(peer: int) -> int:
            limit = segment_bytes or transport.segment_bytes(peer)
            return max(1, limit // self._arrays.kind.itemsize)

        self._turns = [_plan(turn, len(buffer), longest) for turn in schedule.rounds]
        self._outgoing: list[_Outgoing] = []

    def run(self) -> None:
        """Sum the buffer over the schedule's workers, in place, on every rank.

        Raises:
            PeerTimeout: a peer did not answer in time; names this rank, the round and the peer.
        """
        if not self._turns:
            return
        self._arrays.decode(self._wire, self._work)
        for number, turn in enumerate(self._turns):
            if turn.native:
                start, stop = turn.native
                self._round_into_wire(start, stop)
                self._transport.all_reduce(self._wire[start:stop])
                self._arrays.decode(self._wire[start:stop], self._work[start:stop])
                continue
            self._send(number, turn)
            self._receive(number, turn)
        for out in self._outgoing:
            self._await_sent(out)
        self._outgoing.clear()
        self._arrays.encode(self._work, self._wire)
        self._arrays.synchronize()

    def _send(self, number: int, turn: _Turn) -> None:
        rounded: set[tuple[int, int]] = set()
        for start, stop, to, copy in turn.sends:
            if (start, stop) not in rounded:
                self._round_into_wire(start, stop)
                rounded.add((start, stop))
            data = self._wire[start:stop]
            if copy:
                # Ranks that swap must both add what was sent, rounded, or they end with other bits.
                self._arrays.decode(data, self._work[start:stop])
                data = self._arrays.copy(data)
            # Of a copy nothing in the buffer is being read; it only must live until it is sent.
            reads = (0, 0) if copy else (start, stop)
            sent = _keeping(data, self._transport.send(data, to))
            self._outgoing.append(_Outgoing(*reads, to, number, sent))

    def _receive(self, number: int, turn: _Turn) -> None:
        waiting = deque(turn.recvs)
        posted: deque[tuple[_Segment, Incoming]] = deque()
        while waiting or posted:
            while waiting and len(posted) < _WINDOW:
                incoming = self._post(waiting[0], number, first=not posted)
                if incoming is None:
                    break
                posted.append((waiting.popleft(), incoming))
            segment, incoming = posted.popleft()
            if not incoming.ready():
                self._wait(
                    incoming.ready, number, f"elements {segment.start}..{segment.stop}", segment
                )
            self._apply(segment, incoming, number)

    def _post(self, segment: _Segment, number: int, first: bool) -> Incoming | None:
        """Start receiving a segment; None if it must not land before others are through."""
        count = segment.stop - segment.start
        if segment.reduce:
            return self._transport.receive(count, segment.source)
        readers = list(self._readers(segment, number))
        if not first and (segment.follows or readers):
            return None
        for out in readers:
            self._await_sent(out)
        into = self._wire[segment.start : segment.stop]
        return self._transport.receive(count, segment.source, into)

    def _apply(self, segment: _Segment, incoming: Incoming, number: int) -> None:
        data = incoming.data()
        work = self._work[segment.start : segment.stop]
        if segment.reduce:
            for out in list(self._readers(segment, number)):
                self._await_sent(out)
            self._arrays.add(work, data)
        else:
            self._arrays.decode(data, work)
        incoming.release()

    def _readers(self, segment: _Segment, number: int) -> Iterator[_Outgoing]:
        """The sends of earlier rounds that still read what the segment will overwrite."""
        for out in self._outgoing:
            if out.turn < number and out.start < segment.stop and segment.start < out.stop:
                yield out

    def _round_into_wire(self, start: int, stop: int) -> None:
        """Bring the wire form of some elements up to date before they are sent."""
        if self._work is self._wire:
            return
        for out in self._outgoing:
            if out.start < stop and start < out.stop:
                self._await_sent(out)
        self._arrays.encode(self._work[start:stop], self._wire[start:stop])

    def _await_sent(self, out: _Outgoing) -> None:
        if not out.sent():
            self._wait(out.sent, out.turn, f"elements {out.start}..{out.stop} to be taken", out)
        out.start = out.stop = 0

    def _wait(
        self, ready: Callable[[], bool], number: int, what: str, about: _Segment | _Outgoing
    ) -> None:
        peer = about.source if isinstance(about, _Segment) else about.to
        preposition = "from" if isinstance(about, _Segment) else "by"
        wait_until(
            ready,
            self._timeout_s,
            lambda: (
                f"rank {self._transport.rank}, round {number}, waits for {what} "
                f"{preposition} rank {peer}"
            ),
        )


def _keeping(data: Array, sent: Callable[[], bool]) -> Callable[[], bool]:
    """The question `sent`, holding the memory it is about."""

    def ask(_: Array = data) -> bool:
        return sent()

    return ask


def _plan(step: Round, count: int, longest: Callable[[int], int]) -> _Turn:
    """Cut a round's messages into segments of at most `longest(peer)` elements."""
    calls = [op.piece.bounds(count) for op in step.ops if isinstance(op, AllReduce)]
    natives = [(start, stop) for start, stop in calls if stop > start]
    sends: list[tuple[int, int, int, bool]] = []
    recvs: list[_Segment] = []
    written: list[Recv] = []
    for op in step.ops:
        if isinstance(op, Send):
            # What this round also overwrites is sent from a copy: waiting for the peer to take the
            # original could make two ranks that swap pieces wait for each other.
            copy = any(op.piece.overlaps(recv.piece) for recv in step.recvs)
            cuts = _cuts(op.piece.bounds(count), longest(op.to))
            sends += [(*cut, op.to, copy) for cut in cuts]
        elif isinstance(op, Recv):
            follows = any(op.piece.overlaps(other.piece) for other in written)
            cuts = _cuts(op.piece.bounds(count), longest(op.source))
            recvs += [_Segment(*cut, op.source, op.reduce, follows) for cut in cuts]
            written.append(op)
    return _Turn(tuple(sends), tuple(recvs), natives[0] if natives else None)


def _cuts(bounds: tuple[int, int], segment: int) -> Iterator[tuple[int, int]]:
    start, stop = bounds
    for first in range(start, stop, segment):
        yield first, min(first + segment, stop)
