"""Runs a schedule in groups, a round a group, all of them handed to the GPU's stream at once.

NCCL's sends and receives block the stream until the peer's are there, and only those of one group
go on beside one another. So a round is a group, and the next round waits for the whole of it. That
is stricter than the proof, which lets a rank go on with sends under way. Every exchange of this
package keeps to it all the same (a test plays them); where one does not, the time limit ends it. In
return the host has nothing to do between rounds: the stream keeps them, and the additions in
between, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from commbench.arrays import Array
from commbench.cutting import Receiving, Sending, cut
from commbench.exchange import Exchange
from commbench.schedule import Schedule
from commbench.transport import Transport
from commbench.transport.nccl import NcclTransport

_NEVER_CUT = 1 << 62


@dataclass(slots=True)
class _Step:
    """A round.

    Attributes:
        sends: its messages.
        landings: its receives, in order; where each lands; whether that is aside of the buffer.
        native: the elements that the library is to sum.
    """

    sends: list[Sending]
    landings: list[tuple[Receiving, Array, bool]]
    native: tuple[int, int] | None


class GroupedExchange:
    """One rank's part of an exchange over one buffer, to be run as often as wanted."""

    def __init__(
        self,
        schedule: Schedule,
        buffer: Array,
        transport: NcclTransport,
        *,
        timeout_s: float = 300.0,
    ) -> None:
        """Prepare it; the arguments are those of `commbench.exchange.Exchange`."""
        self._transport = transport
        self._arrays = transport.arrays
        self._wire = buffer
        self._work = self._arrays.work_of(buffer)
        self._narrow = self._work is not buffer
        self._timeout_s = timeout_s
        plan = cut(schedule, len(buffer), lambda peer: _NEVER_CUT)
        rounds = []
        for turn in plan.turns:
            sends = [plan.sendings[index] for index in turn.sends]
            recvs = [recv for recv in turn.recvs if isinstance(recv, Receiving)]
            rounds.append((sends, recvs, turn.native))
        scratch = self._arrays.wire_empty(
            max((_aside_elements(sends, recvs) for sends, recvs, _ in rounds), default=0)
        )
        self._steps = [
            _Step(sends, self._land(sends, recvs, scratch), native)
            for sends, recvs, native in rounds
        ]

    def run(self) -> None:
        """Sum the buffer over the schedule's workers, in place, on every rank.

        Raises:
            PeerTimeout: a peer did not come in time; names this rank.
        """
        if not self._steps:
            return
        arrays, wire, work = self._arrays, self._wire, self._work
        arrays.decode(wire, work)
        for step in self._steps:
            if step.native:
                part = slice(*step.native)
                arrays.encode(work[part], wire[part])
                self._transport.all_reduce(wire[part])
                arrays.decode(wire[part], work[part])
                continue
            for one in step.sends:
                part = slice(one.start, one.stop)
                if self._narrow and one.changed:
                    arrays.encode(work[part], wire[part])
                if one.copy:
                    # Ranks that swap must both add what was sent, rounded.
                    arrays.decode(wire[part], work[part])
            self._transport.group(
                [(wire[one.start : one.stop], one.to) for one in step.sends],
                [(landing, recv.source) for recv, landing, _ in step.landings],
            )
            for recv, landing, aside in step.landings:
                self._apply(recv, landing, aside)
        arrays.encode(work, wire)
        self._transport.finish(self._timeout_s)

    def _land(
        self, sends: list[Sending], recvs: list[Receiving], scratch: Array
    ) -> list[tuple[Receiving, Array, bool]]:
        landings, used = [], 0
        for recv in recvs:
            aside, count = _aside(sends, recv), recv.stop - recv.start
            where = scratch[used : used + count] if aside else self._wire[recv.start : recv.stop]
            used += count if aside else 0
            landings.append((recv, where, aside))
        return landings

    def _apply(self, recv: Receiving, landing: Array, aside: bool) -> None:
        part = slice(recv.start, recv.stop)
        if recv.reduce:
            self._arrays.add(self._work[part], landing)
            return
        if aside:
            self._arrays.assign(self._wire[part], landing)
        self._arrays.decode(self._wire[part], self._work[part])


def _aside(sends: list[Sending], recv: Receiving) -> bool:
    """Whether a message must not land in the buffer while its group is under way."""
    read = any(one.start < recv.stop and recv.start < one.stop for one in sends)
    return recv.reduce or recv.follows or read


def _aside_elements(sends: list[Sending], recvs: list[Receiving]) -> int:
    return sum(recv.stop - recv.start for recv in recvs if _aside(sends, recv))


def exchange_over(
    transport: Transport, schedule: Schedule, buffer: Array, *, timeout_s: float = 300.0
) -> Exchange | GroupedExchange:
    """An exchange over a transport, in the way that the transport moves messages."""
    if isinstance(transport, NcclTransport):
        return GroupedExchange(schedule, buffer, transport, timeout_s=timeout_s)
    return Exchange(schedule, buffer, transport, timeout_s=timeout_s)
