"""Replays an exchange's messages in SimGrid: each a flow between two hosts, begun when it may.

As in `network.cost`: a rank takes what it receives one by one, in the order listed, is busy while
it adds, and begins a round when it has all of the round before; its sends go out one at a time, to
other nodes and within its own independently. A message travels once its receiver waits for it and
its sender's port is free, and of several that may go, the one that was listed first goes.

SimGrid's Python runs an actor as a thread, and a thousand that wake each other for every message
are slow. So hosts are one a rank, but actors few: each watches some flows, whosever they are, and
begins those that may follow.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from typing import Any

from commbench.matching import ProofError
from commbench.network.program import Program

# An actor's wait costs as much as it watches flows, a new actor as much as some waits.
_WATCHED = 64


class Replay:
    """The state of all ranks of one exchange; to be run once."""

    def __init__(
        self, simgrid: Any, program: Program, hosts: list[Any], n_bytes: float, adds: bool
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
        messages = len(program.senders)
        self.sent = bytearray(messages)
        self.awaited = bytearray(messages)
        self.turn = [0] * len(hosts)
        self.taken = [0] * len(hosts)
        # Ports to send by, two a rank: messages that may go, and whether one is going.
        self.busy = bytearray(2 * len(hosts))
        self.may_go: dict[int, list[int]] = defaultdict(list)

    def run(self, engine: Any) -> float:
        """Simulate; how many seconds the exchange takes.

        Raises:
            ProofError: some ranks wait for ever.
        """
        self.simgrid.Actor.create("ranks", self.hosts[0], self.begin_all)
        engine.run()
        steps = self.program.steps
        if any(turn < len(own) for turn, own in zip(self.turn, steps, strict=True)):
            raise ProofError("ranks wait for each other for ever: `commbench verify` tells which")
        return float(engine.clock)

    def begin_all(self) -> None:
        """The first actor."""
        watch = _Watch(self)
        for rank in range(len(self.hosts)):
            self.begin(rank, watch)
        watch()

    # SimGrid may let another actor go on wherever a flow is started. So each method below leaves
    # the state whole before it starts one, and looks at it anew after.

    def begin(self, rank: int, watch: _Watch) -> None:
        """Send; a round that receives nothing is over at once."""
        steps = self.program.steps[rank]
        while self.turn[rank] < len(steps):
            step = steps[self.turn[rank]]
            for number in step.sends:
                self.sent[number] = True
                if self.awaited[number]:
                    self.offer(number, watch)
            if step.recvs:
                self.listen(rank, watch)
                return
            self.turn[rank] += 1

    def listen(self, rank: int, watch: _Watch) -> None:
        """Wait for the next message of the round."""
        number = self.program.steps[rank][self.turn[rank]].recvs[self.taken[rank]]
        self.awaited[number] = True
        if self.sent[number]:
            self.offer(number, watch)

    def offer(self, number: int, watch: _Watch) -> None:
        """A message may go: now, or when its sender's port is free."""
        port = self.port(number)
        if self.busy[port]:
            heappush(self.may_go[port], number)
        else:
            self.go(number, port, watch)

    def go(self, number: int, port: int, watch: _Watch) -> None:
        """A message goes."""
        self.busy[port] = True
        program = self.program
        watch.start(program.senders[number], program.receivers[number], self.sizes[number], number)

    def arrived(self, number: int, watch: _Watch) -> None:
        """A message is there: the port it came from is free, and its receiver may add it."""
        port, rank = self.port(number), self.program.receivers[number]
        self.busy[port] = False
        if self.may_go[port]:
            self.go(heappop(self.may_go[port]), port, watch)
        if self.adds and self.program.steps[rank][self.turn[rank]].adds[self.taken[rank]]:
            watch.start(rank, rank, self.sizes[number], -1 - rank)
        else:
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


class _Watch:
    """An actor: waits for its flows, and does what each one's end makes possible."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.flows: list[Any] = []
        # Of each flow: the number of its message, or -1 - rank of an addition.
        self.marks: list[int] = []

    def start(self, sender: int, receiver: int, n_bytes: int, mark: int) -> None:
        """Begin a flow."""
        hosts = self.replay.hosts
        flow = self.replay.simgrid.Comm.sendto_async(hosts[sender], hosts[receiver], n_bytes)
        self.flows.append(flow)
        self.marks.append(mark)

    def __call__(self) -> None:
        """Until no flow is left."""
        replay = self.replay
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
                if mark >= 0:
                    replay.arrived(mark, self)
                else:
                    replay.took(-1 - mark, self)

    def share(self) -> None:
        """Leave to new actors what is too much for one."""
        while len(self.flows) > 2 * _WATCHED:
            other = _Watch(self.replay)
            other.flows, self.flows = self.flows[:_WATCHED], self.flows[_WATCHED:]
            other.marks, self.marks = self.marks[:_WATCHED], self.marks[_WATCHED:]
            self.replay.simgrid.Actor.create("ranks", self.replay.hosts[0], other)
