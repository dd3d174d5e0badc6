"""Replays an exchange's messages in SimGrid: each a flow between two hosts, begun when it may.

As in `network.cost`: a rank takes what it receives one by one, in the order listed, is busy while
it adds, and begins a round when it has all of the round before; its sends go out one at a time, in
the order listed, to other nodes and within its own independently.

A message whose receiver waits for it, when its sender's port is free for it, is one flow from end
to end. Any other is early, and takes two: one as far as a buffer right behind the sender's port,
which is free then, and one from there on, as soon as the receiver waits for it. By the price, too,
it leaves and comes in independently; and the wires between carry it once, when it is wanted.

SimGrid's Python runs an actor as a thread, and a thousand that wake each other for every message
are slow. So hosts are one a rank, but actors few: each watches some flows, whosever they are, and
begins those that may follow.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from commbench.matching import ProofError
from commbench.network.program import Program
from commbench.network.simgrid_platform import Hosts

# What a flow is to its message, all that SimGrid knows of: its whole way, its way out as far as the
# buffer, its way from there, being added. A flow's mark is the message's number times 4, plus this.
_WHOLE, _OUT, _ONWARD, _ADDED = range(4)
# An actor's wait costs as much as it watches flows, a new actor as much as some waits.
_WATCHED = 32


class Replay:
    """The state of all ranks of one exchange; to be run once."""

    def __init__(
        self, simgrid: Any, program: Program, hosts: Hosts, n_bytes: float, adds: bool
    ) -> None:
        """Prepare it.

        Args:
            simgrid: the module, its platform built.
            program: of every rank.
            hosts: every rank's.
            n_bytes: length of the buffer; SimGrid knows whole bytes, at least one a message.
            adds: whether adding takes time.
        """
        self.simgrid = simgrid
        self.program = program
        self.hosts = hosts
        self.adds = adds
        # A schedule has few sizes of pieces, and millions of messages.
        lengths = {share: max(1, round(share * n_bytes)) for share in set(program.shares)}
        self.sizes = [lengths[share] for share in program.shares]
        # Of a message that has begun to go: how many flows it still takes.
        self.left = bytearray(len(program.senders))
        ranks = len(hosts.ranks)
        self.turn = [0] * ranks
        self.taken = [0] * ranks
        self.awaits = [-1] * ranks
        # Ports to send by, two a rank: messages that are to go, and whether one is going.
        self.queues: dict[int, deque[int]] = defaultdict(deque)
        self.busy = bytearray(2 * ranks)

    def run(self, engine: Any) -> float:
        """Simulate; how many seconds the exchange takes.

        Raises:
            ProofError: some ranks wait for ever.
        """
        self.simgrid.Actor.create("ranks", self.hosts.ranks[0], self.begin_all)
        engine.run()
        steps = self.program.steps
        if any(turn < len(own) for turn, own in zip(self.turn, steps, strict=True)):
            raise ProofError("ranks wait for each other for ever: `commbench verify` tells which")
        return float(engine.clock)

    def begin_all(self) -> None:
        """The first actor."""
        watch = _Watch(self)
        for rank in range(len(self.turn)):
            self.begin(rank, watch)
        watch()

    # No method below starts a flow, for SimGrid may then let another actor go on: the state is
    # whole after each. What may be started is left with the actor.

    def begin(self, rank: int, watch: _Watch) -> None:
        """Send; a round that receives nothing is over at once."""
        steps = self.program.steps[rank]
        while self.turn[rank] < len(steps):
            step = steps[self.turn[rank]]
            for number in step.sends:
                port = self.port(number)
                self.queues[port].append(number)
                watch.ports.append(port)
            if step.recvs:
                self.listen(rank, watch)
                return
            self.turn[rank] += 1

    def listen(self, rank: int, watch: _Watch) -> None:
        """Wait for the next message of the round; one that is early may come in."""
        number = self.program.steps[rank][self.turn[rank]].recvs[self.taken[rank]]
        self.awaits[rank] = number
        if self.left[number]:
            watch.due.append(4 * number + _ONWARD)

    def next(self, port: int) -> int | None:
        """The mark of the flow that a port would start now, if any."""
        if self.busy[port] or not self.queues[port]:
            return None
        number = self.queues[port][0]
        awaited = self.awaits[self.program.receivers[number]] == number
        return 4 * number + (_WHOLE if awaited else _OUT)

    def goes(self, mark: int) -> None:
        """That flow is about to be started."""
        number, kind = divmod(mark, 4)
        port = self.port(number)
        self.queues[port].popleft()
        self.busy[port] = True
        self.left[number] = 1 if kind == _WHOLE else 2

    def ended(self, mark: int, watch: _Watch) -> None:
        """A flow is over: a port may be free, a message there, and its receiver go on."""
        number, kind = divmod(mark, 4)
        rank = self.program.receivers[number]
        if kind != _ADDED:
            if kind != _ONWARD:
                port = self.port(number)
                self.busy[port] = False
                watch.ports.append(port)
            self.left[number] -= 1
            if self.left[number]:
                return
            if self.adds and self.program.steps[rank][self.turn[rank]].adds[self.taken[rank]]:
                watch.due.append(4 * number + _ADDED)
                return
        self.took(rank, watch)

    def took(self, rank: int, watch: _Watch) -> None:
        """A rank is through with a message."""
        step = self.program.steps[rank][self.turn[rank]]
        self.taken[rank] += 1
        if self.taken[rank] < len(step.recvs):
            self.listen(rank, watch)
            return
        self.turn[rank] += 1
        self.taken[rank] = 0
        self.begin(rank, watch)

    def port(self, number: int) -> int:
        """By which a message leaves."""
        return 2 * self.program.senders[number] + self.program.inside[number]

    def ends(self, mark: int) -> tuple[Any, Any]:
        """Whence a flow goes, and where to."""
        number, kind = divmod(mark, 4)
        ranks = self.hosts.ranks
        sender, receiver = self.program.senders[number], self.program.receivers[number]
        if kind == _WHOLE:
            return ranks[sender], ranks[receiver]
        if kind == _ADDED:
            return ranks[receiver], ranks[receiver]
        buffer = self.hosts.buffers[self.port(number)]
        return (ranks[sender], buffer) if kind == _OUT else (buffer, ranks[receiver])


class _Watch:
    """An actor: waits for its flows, and does what each one's end makes possible."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.flows: list[Any] = []
        # Of each flow, its mark.
        self.marks: list[int] = []
        # To be started: marks of flows, and whatever ports may send.
        self.due: list[int] = []
        self.ports: list[int] = []

    def __call__(self) -> None:
        """Until no flow is left."""
        replay = self.replay
        self.start_all()
        while self.flows:
            self.share()
            first = replay.simgrid.Comm.wait_any(self.flows)
            flows, marks = self.flows, self.marks
            self.flows, self.marks = [], []
            over = []
            # Where ranks are alike, many end at once: one wait for all.
            for at, (flow, mark) in enumerate(zip(flows, marks, strict=True)):
                if at == first or flow.finish_time >= 0:
                    over.append(mark)
                else:
                    self.flows.append(flow)
                    self.marks.append(mark)
            for mark in over:
                replay.ended(mark, self)
            self.start_all()

    def start_all(self) -> None:
        """Start what may be."""
        for mark in self.due:
            self.start(mark)
        self.due.clear()
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
        if mark % 4 == _OUT and not early:
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

    def share(self) -> None:
        """Leave to new actors what is too much for one."""
        while len(self.flows) > 2 * _WATCHED:
            other = _Watch(self.replay)
            other.flows, self.flows = self.flows[:_WATCHED], self.flows[_WATCHED:]
            other.marks, self.marks = self.marks[:_WATCHED], self.marks[_WATCHED:]
            self.replay.simgrid.Actor.create("ranks", self.replay.hosts.ranks[0], other)
