"""Runs a schedule over a flat buffer, whatever the topology, transport and array library.

A message longer than a segment travels as several, so that adding one overlaps receiving the next,
scratch memory stays small whatever the number of peers, and no message reaches MPI's 2 GiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from commbench.arrays import Array
from commbench.cutting import Receiving, Sending, cut
from commbench.loans import find_loans
from commbench.prepared import WINDOW, Arrival, Outgoing, Step, Total, prepare
from commbench.schedule import Schedule
from commbench.transport import Program, Question, Transport
from commbench.transport.waiting import wait_until


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
        self._rank = transport.rank
        self._all_reduce = transport.all_reduce
        self._arrays = transport.arrays
        self._wire = buffer
        self._work = self._arrays.work_of(buffer)
        self._narrow = self._work is not buffer
        self._timeout_s = timeout_s

        def longest(peer: int) -> int:
            limit = segment_bytes or transport.segment_bytes(peer)
            return max(1, limit // self._arrays.kind.itemsize)

        plan = cut(schedule, len(buffer), longest)
        find_loans(plan, transport.lends, transport.copiers)
        self._steps: list[Step] = []
        self._messages: list[Outgoing] = []
        self._program = transport.program(plan, buffer, self._work)
        if self._program is None:
            self._steps, self._messages = prepare(plan, buffer, self._work, transport)
        # What the library is to sum, where that is all.
        self._library: Array | None = None
        if len(self._steps) == 1 and not self._narrow and (native := self._steps[0].native):
            self._library = native[0]

    def run(self) -> None:
        """Sum the buffer over the schedule's workers, in place, on every rank.

        Raises:
            PeerTimeout: a peer did not answer in time; names this rank, the round and the peer.
        """
        if self._program is not None:
            self._run_program(self._program)
            return
        if not self._steps:
            return
        if self._library is not None:
            self._all_reduce(self._library)
            self._arrays.synchronize()
            return
        if self._narrow:
            self._arrays.decode(self._wire, self._work)
        for step in self._steps:
            if step.native is not None:
                self._call_native(*step.native)
            else:
                self._play(step)
        self._await_taken(self._messages)
        if self._narrow:
            self._arrays.encode(self._work, self._wire)
        self._arrays.synchronize()

    def _run_program(self, program: Program) -> None:
        program.begin()
        step = program.go_on()
        while step is not None:
            step = self._sleep_and_go_on(program, step)

    def _sleep_and_go_on(self, program: Program, stuck: int) -> int | None:
        """Wait asleep until a program has got past a step, and go on from there."""
        what, peer = program.waits_for(stuck)
        how = f"to be taken by rank {peer}" if isinstance(what, Sending) else f"from rank {peer}"
        step: int | None = stuck

        def has_gone_on() -> bool:
            nonlocal step
            step = program.go_on(0)
            return step != stuck

        self._wait(has_gone_on, what, how, yields=0)
        return None if step is None else program.go_on()

    def _call_native(self, wire: Array, work: Array) -> None:
        self._await_taken(self._messages)
        if self._narrow:
            self._arrays.encode(work, wire)
        self._all_reduce(wire)
        if self._narrow:
            self._arrays.decode(wire, work)

    def _play(self, step: Step) -> None:
        # A message that nobody waits for, the library would have to copy.
        posted: deque[Arrival] = deque()
        for arrival in step.early:
            if not self._post(arrival, first=False):
                break
            posted.append(arrival)
        late = step.early[len(posted) :]
        for message in step.sends:
            self._send(message)
        self._receive_each(late, posted)
        for part in step.parts:
            if isinstance(part, Total):
                self._sum(part)
            else:
                self._receive_each(part, posted)

    def _send(self, message: Outgoing) -> None:
        if message.encodes:
            self._await_taken(message.readers)
            self._arrays.encode(message.work, message.wire)
        if message.copy is not None:
            # Ranks that swap must both add what was sent, rounded, or they end with other bits.
            self._arrays.decode(message.wire, message.work)
            self._await_taken(message.copied)
            self._arrays.assign(message.copy, message.wire)
        message.taken = message.start(message.answered)
        message.answered = False

    def _receive_each(self, batch: list[Arrival], posted: deque[Arrival]) -> None:
        """Take in messages one by one; those that are posted already come first."""
        following, last = 0, len(batch)
        while following < last or posted:
            while following < last and len(posted) < WINDOW:
                if not self._post(batch[following], first=not posted):
                    break
                posted.append(batch[following])
                following += 1
            arrival = posted.popleft()
            self._await_arrival(arrival)
            self._apply(arrival)

    def _post(self, arrival: Arrival, first: bool) -> bool:
        """Start receiving a message, unless it must not land before others are through."""
        recv, readers = arrival.recv, arrival.readers
        if not recv.reduce and (readers or recv.follows):
            if not first and (recv.follows or not all(one.is_taken() for one in readers)):
                return False
            self._await_taken(readers)
        arrival.incoming = arrival.start()
        return True

    def _apply(self, arrival: Arrival) -> None:
        incoming = arrival.incoming
        assert incoming is not None
        data = incoming.data()
        if arrival.recv.reduce:
            self._await_taken(arrival.readers)
            self._arrays.add(arrival.work, data)
        elif self._narrow:
            self._arrays.decode(data, arrival.work)
        incoming.release()

    def _sum(self, total: Total) -> None:
        """Add all terms; where they are all lent, write the sum back to them a block at a time."""
        arrived = []
        for term in total.terms:
            term.incoming = term.start()
            arrived.append(term.incoming)
        for term, incoming in zip(total.terms, arrived, strict=True):
            self._await_arrival(term)
            if incoming.lent is None:
                break
        else:
            lent = [incoming.lent for incoming in arrived]
            answers = [lent[place] for place in total.lenders]
            self._arrays.add_all(total.work, total.wire, lent, answers)
            for message in total.answers:
                message.answered = True
            for incoming in arrived:
                incoming.release()
            return
        # Somebody may be waiting to go on with what it did not lend.
        for term in total.terms:
            self._await_arrival(term)
            self._apply(term)

    def _await_taken(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            taken = message.taken
            if taken is not None:
                message.taken = None
                if not taken():
                    self._wait(taken, message.one, f"to be taken by rank {message.one.to}")

    def _await_arrival(self, arrival: Arrival) -> None:
        assert arrival.incoming is not None
        ready = arrival.incoming.ready
        if not ready():
            self._wait(ready, arrival.recv, f"from rank {arrival.recv.source}")

    def _wait(
        self, ready: Question, what: Sending | Receiving, how: str, yields: int | None = None
    ) -> None:
        wait_until(
            ready,
            self._timeout_s,
            lambda: (
                f"rank {self._rank}, round {what.turn}, waits for elements "
                f"{what.start}..{what.stop} {how}"
            ),
            yields=yields,
        )
