"""Runs a schedule over a flat buffer, whatever the topology, transport and array library.

A message longer than a segment travels as several, so that adding one overlaps receiving the next,
scratch memory stays small whatever the number of peers, and no message reaches MPI's 2 GiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice, takewhile

from commbench.arrays import Array
from commbench.cutting import Receiving, Sending, Sum, Turn, cut
from commbench.loans import find_loans
from commbench.schedule import Schedule
from commbench.transport import Incoming, Transport
from commbench.transport.waiting import wait_until

# Receives posted at once: one to add, the others on their way.
_WINDOW = 4

Question = Callable[[], bool]
_Posted = deque[tuple[Receiving, Incoming]]


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
        self._narrow = self._work is not buffer
        self._timeout_s = timeout_s

        def longest(peer: int) -> int:
            limit = segment_bytes or transport.segment_bytes(peer)
            return max(1, limit // self._arrays.kind.itemsize)

        plan = cut(schedule, len(buffer), longest)
        find_loans(plan, transport.lends)
        self._turns = plan.turns
        self._sendings = plan.sendings
        self._early = [self._before_sends(turn) for turn in plan.turns]
        copies = any(one.copy for one in plan.sendings)
        self._copies = transport.beside(buffer) if copies else None
        self._outgoing = [
            transport.sender(self._source(one)[one.start : one.stop], one.to, lend=one.lent)
            for one in plan.sendings
        ]
        # Of the messages of this run that are under way: whether the peer has taken them.
        self._sent: dict[int, Question] = {}
        # The messages whose elements have been written into the receiver's memory already.
        self._answered: set[int] = set()

    def run(self) -> None:
        """Sum the buffer over the schedule's workers, in place, on every rank.

        Raises:
            PeerTimeout: a peer did not answer in time; names this rank, the round and the peer.
        """
        if not self._turns:
            return
        if self._narrow:
            self._arrays.decode(self._wire, self._work)
        for turn, early in zip(self._turns, self._early, strict=True):
            if turn.native:
                self._call_native(*turn.native)
                continue
            posted = self._post_early(early)
            for index in turn.sends:
                self._send(index)
            self._receive(turn.recvs, posted)
        self._await_taken(tuple(self._sent))
        self._answered.clear()
        if self._narrow:
            self._arrays.encode(self._work, self._wire)
        self._arrays.synchronize()

    def _source(self, one: Sending) -> Array:
        return self._wire if self._copies is None or not one.copy else self._copies

    def _call_native(self, start: int, stop: int) -> None:
        self._await_taken(tuple(self._sent))
        wire = self._wire[start:stop]
        if self._narrow:
            self._arrays.encode(self._work[start:stop], wire)
        self._transport.all_reduce(wire)
        if self._narrow:
            self._arrays.decode(wire, self._work[start:stop])

    def _send(self, index: int) -> None:
        one = self._sendings[index]
        if self._narrow and one.changed:
            self._await_taken(one.readers)
            self._arrays.encode(self._work[one.start : one.stop], self._wire[one.start : one.stop])
        if one.copy:
            wire = self._wire[one.start : one.stop]
            # Ranks that swap must both add what was sent, rounded, or they end with other bits.
            self._arrays.decode(wire, self._work[one.start : one.stop])
            self._await_taken(one.copied)
            self._arrays.assign(self._source(one)[one.start : one.stop], wire)
        self._sent[index] = self._outgoing[index](index in self._answered)

    def _before_sends(self, turn: Turn) -> tuple[Receiving, ...]:
        """The receives of a round that may be posted before its sends."""
        copies = any(self._sendings[index].copy for index in turn.sends)

        def may(recv: Receiving | Sum) -> bool:
            # What is sent from a copy is still to be copied.
            return isinstance(recv, Receiving) and not recv.follows and (recv.reduce or not copies)

        first = takewhile(may, islice(turn.recvs, _WINDOW))
        return tuple(recv for recv in first if isinstance(recv, Receiving))

    def _post_early(self, recvs: tuple[Receiving, ...]) -> _Posted:
        """Start receiving; a message that nobody waits for, the library would have to copy."""
        posted: _Posted = deque()
        for recv in recvs:
            incoming = self._post(recv, first=False)
            if incoming is None:
                break
            posted.append((recv, incoming))
        return posted

    def _receive(self, recvs: tuple[Receiving | Sum, ...], posted: _Posted) -> None:
        """Take in what a round receives; the first of it, as much as is posted, is on its way."""
        batch: deque[Receiving] = deque()
        for recv in islice(recvs, len(posted), None):
            if isinstance(recv, Receiving):
                batch.append(recv)
            else:
                self._receive_each(batch, posted)
                self._sum(recv)
        self._receive_each(batch, posted)

    def _receive_each(self, waiting: deque[Receiving], posted: _Posted) -> None:
        while waiting or posted:
            while waiting and len(posted) < _WINDOW:
                incoming = self._post(waiting[0], first=not posted)
                if incoming is None:
                    break
                posted.append((waiting.popleft(), incoming))
            recv, incoming = posted.popleft()
            self._await_arrival(recv, incoming)
            self._apply(recv, incoming)

    def _post(self, recv: Receiving, first: bool) -> Incoming | None:
        """Start receiving a message; None if it must not land before others are through."""
        count = recv.stop - recv.start
        if recv.reduce:
            return self._transport.receive(count, recv.source)
        if not first and (recv.follows or not all(map(self._taken, recv.readers))):
            return None
        self._await_taken(recv.readers)
        return self._transport.receive(count, recv.source, self._wire[recv.start : recv.stop])

    def _apply(self, recv: Receiving, incoming: Incoming) -> None:
        data = incoming.data()
        work = self._work[recv.start : recv.stop]
        if recv.reduce:
            self._await_taken(recv.readers)
            self._arrays.add(work, data)
        else:
            self._arrays.decode(data, work)
        incoming.release()

    def _sum(self, total: Sum) -> None:
        """Add all terms; where they are all lent, write the sum back to them a block at a time."""
        start, stop = total.terms[0].start, total.terms[0].stop
        arrived = [
            (term, self._transport.receive(stop - start, term.source)) for term in total.terms
        ]
        for term, incoming in arrived:
            self._await_arrival(term, incoming)
            if incoming.lent is None:
                break
        else:
            lent = {term.source: incoming.lent for term, incoming in arrived}
            self._arrays.add_all(
                self._work[start:stop],
                self._wire[start:stop],
                [*lent.values()],
                [lent[to] for to in total.answers],
            )
            self._answered.update(total.answers.values())
            for _, incoming in arrived:
                incoming.release()
            return
        # Somebody may be waiting to go on with what it did not lend.
        for term, incoming in arrived:
            self._await_arrival(term, incoming)
            self._apply(term, incoming)

    def _taken(self, index: int) -> bool:
        sent = self._sent.get(index)
        return sent is None or sent()

    def _await_taken(self, indexes: tuple[int, ...]) -> None:
        for index in indexes:
            sent = self._sent.pop(index, None)
            if sent is None or sent():
                continue
            one = self._sendings[index]
            self._wait(sent, one.turn, one, f"to be taken by rank {one.to}")

    def _await_arrival(self, recv: Receiving, incoming: Incoming) -> None:
        if not incoming.ready():
            self._wait(incoming.ready, recv.turn, recv, f"from rank {recv.source}")

    def _wait(self, ready: Question, turn: int, what: Sending | Receiving, how: str) -> None:
        wait_until(
            ready,
            self._timeout_s,
            lambda: (
                f"rank {self._transport.rank}, round {turn}, waits for elements "
                f"{what.start}..{what.stop} {how}"
            ),
        )
