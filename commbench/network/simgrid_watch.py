"""The actors of a replay: they start flows in SimGrid, and tell the replay of those that end.

SimGrid's Python runs an actor as a thread, and a thousand that wake each other for every message
are slow. So hosts are one a rank, but actors few: each watches some flows, whosever they are, and
begins those that may follow.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commbench.network.simgrid_replay import Replay

# What a flow is to its message, all that SimGrid knows of: its whole way, its way out as far as the
# buffer, its way from there, being added. A flow's mark is the message's number times 4, plus this.
WHOLE, OUT, ONWARD, ADDED = range(4)

# An actor's wait costs as much as it watches flows, a new actor as much as some waits.
_WATCHED = 32


class Watch:
    """An actor: waits for its flows, and does what each one's end makes possible."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.flows: list[Any] = []
        # Of each flow, its mark, and until when it keeps others from ports.
        self.marks: list[int] = []
        self.until: list[float] = []
        # To be started: marks of flows, and whatever ports may send.
        self.due: list[int] = []
        self.ports: list[int] = []

    def __call__(self) -> None:
        """Until no flow is left."""
        self.start_all()
        while self.flows:
            self.share()
            first = self.wait()
            for mark in self.over(first):
                self.replay.ended(mark, self)
            self.start_all()

    def over(self, first: int) -> list[int]:
        """Marks of the flows that have ended; many at once, where ranks are alike.

        Args:
            first: one of them, or -1 where a turn has.
        """
        # A wait may end a little before what it was for, by the last digit.
        now = self.clock() if first >= 0 else max(self.clock(), min(self.until))
        flows, marks, until = self.flows, self.marks, self.until
        self.flows, self.marks, self.until = [], [], []
        over = []
        for at, (flow, mark, end) in enumerate(zip(flows, marks, until, strict=True)):
            if at == first or flow.finish_time >= 0:
                over.append(mark)
                continue
            self.flows.append(flow)
            self.marks.append(mark)
            self.until.append(end if end > now else inf)
            if end <= now:
                self.replay.passed(mark, self)
        return over

    def wait(self) -> int:
        """Until a flow ends, then which; or until a turn does, then -1."""
        comm, end = self.replay.simgrid.Comm, min(self.until)
        if end == inf:
            return int(comm.wait_any(self.flows))
        return int(comm.wait_any_for(self.flows, max(0.0, end - self.clock())))

    def clock(self) -> float:
        """Seconds simulated."""
        return float(self.replay.simgrid.Engine.get_clock())

    def start_all(self) -> None:
        """Start what may be."""
        for mark in self.due:
            self.start(mark)
        self.due.clear()
        if self.replay.shared:
            self.ports.sort(key=self.replay.rank_of)
        early = [port for port in self.ports if not self.send(port, early=False)]
        self.ports.clear()
        if early:
            # Flows of other actors may be over at this very moment, and receivers ready.
            self.replay.simgrid.this_actor.yield_()
            for port in early:
                self.send(port, early=True)

    def send(self, port: int, *, early: bool) -> bool:
        """Start what a port sends now; False if there is a message, but early, and it must not."""
        mark = self.replay.next(port)
        if mark is None:
            return True
        if mark % 4 == OUT and not early:
            return False
        self.replay.goes(mark)
        self.start(mark)
        return True

    def start(self, mark: int) -> None:
        """Begin a flow."""
        sender, receiver = self.replay.ends(mark)
        n_bytes = self.replay.sizes[mark // 4]
        self.flows.append(self.replay.simgrid.Comm.sendto_async(sender, receiver, n_bytes))
        self.marks.append(mark)
        turn_s = self.replay.turn_s(mark)
        self.until.append(turn_s if turn_s == inf else self.clock() + turn_s)

    def share(self) -> None:
        """Leave to new actors what is too much for one."""
        while len(self.flows) > 2 * _WATCHED:
            other = Watch(self.replay)
            other.flows, self.flows = self.flows[:_WATCHED], self.flows[_WATCHED:]
            other.marks, self.marks = self.marks[:_WATCHED], self.marks[_WATCHED:]
            other.until, self.until = self.until[:_WATCHED], self.until[_WATCHED:]
            self.replay.simgrid.Actor.create("ranks", self.replay.hosts.ranks[0], other)
