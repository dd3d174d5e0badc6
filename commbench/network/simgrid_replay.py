"""Replays an exchange's messages in SimGrid: each a flow between two hosts, begun when it may.

As in `network.cost`: a rank takes what it receives one by one, in the order listed, is busy while
it adds, and begins a round when it has all of the round before; its sends go out one at a time, in
the order listed, to other nodes and within its own independently.

A message whose receiver waits for it, when the ports at either end are free for it, is one flow
from end to end. Any other is early, and takes two: one as far as a buffer right behind the port it
left by, and one from there on, once it may come in. By the price, too, it leaves and comes in
independently; and the wires between carry it once, when it is wanted.

Ranks of a node take turns at its ports, as they come to them. A turn lasts no longer than a flow
takes that nothing slows: a message that waits for the wires beyond keeps nobody from a port that it
does not fill. Its rank sends no other before it is over.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from commbench.matching import ProofError
from commbench.network.cluster import Cluster
from commbench.network.program import Program
from commbench.network.simgrid_platform import Hosts
from commbench.network.simgrid_watch import ADDED, ONWARD, OUT, WHOLE, Watch

# A flow that nothing slows is over when its turn is; so much later it is past doubt.
_SLACK = 1 + 1e-6


class Replay:
    """The state of all ranks of one exchange; to be run once."""

    def __init__(
        self, simgrid: Any, program: Program, hosts: Hosts, n_bytes: float, cluster: Cluster
    ) -> None:
        """Prepare it.

        Args:
            simgrid: the module, its platform built.
            program: of every rank.
            hosts: every rank's.
            n_bytes: length of the buffer; SimGrid knows whole bytes, at least one a message.
            cluster: its links, and whether adding takes time.
        """
        self.simgrid = simgrid
        self.program = program
        self.hosts = hosts
        self.adds = cluster.gamma_s > 0
        self.between = cluster.between
        # A schedule has few sizes of pieces, and millions of messages.
        lengths = {share: max(1, round(share * n_bytes)) for share in set(program.shares)}
        self.sizes = [lengths[share] for share in program.shares]
        # Of a message that has begun to go: how many flows it still takes.
        self.left = bytearray(len(program.senders))
        ranks = len(hosts.ranks)
        self.turn = [0] * ranks
        self.taken = [0] * ranks
        self.awaits = [-1] * ranks
        # Of each rank, whether it is sending: to other nodes, within its own.
        self.busy = bytearray(2 * ranks)
        # Ports, of each rank and then of each node: messages that are to go out by one or to come
        # in, and the one whose turn it is, or -1.
        ports = ranks + max(program.nodes, default=0) + 1
        self.outgoing: dict[int, deque[int]] = defaultdict(deque)
        self.incoming: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
        self.goes_out = [-1] * ports
        self.comes_in = [-1] * ports
        # Where ranks share ports: in which order sends met the receives that waited for them.
        self.matched: dict[int, int] = {}
        self.order = count()
        self.shared = {node for node, number in Counter(program.nodes).items() if number > 1}

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
        watch = Watch(self)
        for rank in range(len(self.turn)):
            self.begin(rank, watch)
        watch()

    # No method below starts a flow, for SimGrid may then let another actor go on: the state is
    # whole after each. What may be started is left with the actor.

    def begin(self, rank: int, watch: Watch) -> None:
        """Send; a round that receives nothing is over at once."""
        steps = self.program.steps[rank]
        while self.turn[rank] < len(steps):
            step = steps[self.turn[rank]]
            for number in step.sends:
                port = self.way_out(number)
                self.outgoing[port].append(number)
                if self.shared and self.awaited(number):
                    self.matched[number] = next(self.order)
                watch.ports.append(port)
            if step.recvs:
                self.listen(rank, watch)
                return
            self.turn[rank] += 1

    def listen(self, rank: int, watch: Watch) -> None:
        """Wait for the next message of the round; one that is early may come in."""
        number = self.program.steps[rank][self.turn[rank]].recvs[self.taken[rank]]
        self.awaits[rank] = number
        if self.shared:
            self.matched[number] = next(self.order)
        if self.left[number]:
            port = self.way_in(number)
            self.join(number)
            self.admit(port, watch)

    def join(self, number: int) -> None:
        """An early message is awaited: of those that come at one moment, as they were matched."""
        now = float(self.simgrid.Engine.get_clock())
        heappush(self.incoming[self.way_in(number)], (now, self.matched.get(number, 0), number))

    def admit(self, port: int, watch: Watch) -> None:
        """The next of the early messages that are awaited comes in."""
        if self.comes_in[port] < 0 and self.incoming[port]:
            number = self.comes_in[port] = heappop(self.incoming[port])[2]
            watch.due.append(4 * number + ONWARD)

    def next(self, port: int) -> int | None:
        """The mark of the flow that a port would start now, if any."""
        if self.goes_out[port] >= 0:
            return None
        for number in self.outgoing[port]:
            if not self.busy[self.sending(number)]:
                ready = self.awaited(number) and self.comes_in[self.way_in(number)] < 0
                return 4 * number + (WHOLE if ready else OUT)
        return None

    def rank_of(self, port: int) -> int:
        """Ports that may start flows at one moment do so in this order."""
        mark = self.next(port)
        return 0 if mark is None else self.matched.get(mark // 4, 0)

    def goes(self, mark: int) -> None:
        """That flow is about to be started."""
        number, kind = divmod(mark, 4)
        port, onto = self.way_out(number), self.way_in(number)
        self.outgoing[port].remove(number)
        self.goes_out[port] = number
        self.busy[self.sending(number)] = True
        self.left[number] = 1 if kind == WHOLE else 2
        if kind == WHOLE:
            self.comes_in[onto] = number
        elif self.awaited(number):
            self.join(number)

    def passed(self, mark: int, watch: Watch) -> None:
        """A flow's turn is over at the ports that it has held."""
        number, kind = divmod(mark, 4)
        if kind in (WHOLE, OUT):
            port = self.way_out(number)
            if self.goes_out[port] == number:
                self.goes_out[port] = -1
            watch.ports.append(port)
        if kind in (WHOLE, ONWARD):
            port = self.way_in(number)
            if self.comes_in[port] == number:
                self.comes_in[port] = -1
                self.admit(port, watch)

    def ended(self, mark: int, watch: Watch) -> None:
        """A flow is over: ports may be free, a message there, and its receiver go on."""
        number, kind = divmod(mark, 4)
        rank = self.program.receivers[number]
        if kind != ADDED:
            if kind != ONWARD:
                self.busy[self.sending(number)] = False
            self.passed(mark, watch)
            self.left[number] -= 1
            if self.left[number]:
                return
            if self.adds and self.program.steps[rank][self.turn[rank]].adds[self.taken[rank]]:
                watch.due.append(4 * number + ADDED)
                return
        self.took(rank, watch)

    def took(self, rank: int, watch: Watch) -> None:
        """A rank is through with a message."""
        step = self.program.steps[rank][self.turn[rank]]
        self.taken[rank] += 1
        if self.taken[rank] < len(step.recvs):
            self.listen(rank, watch)
            return
        self.turn[rank] += 1
        self.taken[rank] = 0
        self.begin(rank, watch)

    def awaited(self, number: int) -> bool:
        """Whether a message's receiver waits for it."""
        return self.awaits[self.program.receivers[number]] == number

    def sending(self, number: int) -> int:
        """Two of each rank: to other nodes, within its own."""
        return 2 * self.program.senders[number] + self.program.inside[number]

    def way_out(self, number: int) -> int:
        """The port by which a message leaves."""
        return self.port(self.program.senders[number], number)

    def way_in(self, number: int) -> int:
        """The port by which it arrives."""
        return self.port(self.program.receivers[number], number)

    def port(self, rank: int, number: int) -> int:
        """Its own to the others of its node; its node's to other nodes."""
        return rank if self.program.inside[number] else len(self.turn) + self.program.nodes[rank]

    def turn_s(self, mark: int) -> float:
        """For how long a flow keeps other ranks of its nodes waiting; infinite where none do."""
        number, kind = divmod(mark, 4)
        program = self.program
        if not self.shared or kind == ADDED or program.inside[number]:
            return inf
        if self.shared.isdisjoint(
            (program.nodes[program.senders[number]], program.nodes[program.receivers[number]])
        ):
            return inf
        return (self.between.latency_s + self.sizes[number] * self.between.beta_s) * _SLACK

    def ends(self, mark: int) -> tuple[Any, Any]:
        """Whence a flow goes, and where to."""
        number, kind = divmod(mark, 4)
        ranks = self.hosts.ranks
        sender, receiver = self.program.senders[number], self.program.receivers[number]
        if kind == WHOLE:
            return ranks[sender], ranks[receiver]
        if kind == ADDED:
            return ranks[receiver], ranks[receiver]
        buffer = self.hosts.buffers[self.sending(number)]
        return (ranks[sender], buffer) if kind == OUT else (buffer, ranks[receiver])
