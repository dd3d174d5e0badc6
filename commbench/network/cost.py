"""Prices an exchange on a cluster: its schedule played on latency, bandwidth and addition.

The alpha-beta-gamma model, event by event. A rank has one port to send and one to receive, both at
once; towards other nodes it is its node's, which the ranks there share.

* A message of n bytes holds the port it leaves by, and then or later the port it arrives by, for
  alpha + n beta each; and the receiver, where it adds, for n gamma more.
* A rank sends in the order listed, takes what it receives in the order listed, and begins a round
  when it has received all of the round before. It does not wait for its own sends: their values
  were taken as the round began.
* Messages of several ranks take turns at a node's port as they come to it.

Nothing is known of switches between nodes: `layout` is for replays.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from commbench.errors import UserError
from commbench.matching import ProofError
from commbench.network.cluster import Cluster, Link
from commbench.network.program import Program, compile_program, without_collector
from commbench.registry import Choice, parse_exchange
from commbench.schedule import Terms

# How a moment came to be, along the chain of messages that led to it: seconds, of them latencies,
# messages, bytes sent, bytes added. Compared by seconds.
Moment = tuple[float, float, int, float, float]
_ZERO: Moment = (0.0, 0.0, 0, 0.0, 0.0)

# Beyond so many ranks a formula, where a topology has one, stands for playing its schedules.
_PLAYED = 4096


@dataclass(frozen=True)
class Price:
    """What an exchange takes, and why: the chain of messages that decides when it is over.

    Attributes:
        seconds: until the last rank has the sum; the sum of the three that follow.
        latency_s, transfer_s, reduce_s: spent on that chain in alpha, beta and gamma.
        alpha_count: its messages.
        beta_bytes: sent in them, by one port after another.
        gamma_bytes: of these, added on the way.
    """

    seconds: float
    latency_s: float
    transfer_s: float
    reduce_s: float
    alpha_count: int
    beta_bytes: float
    gamma_bytes: float


def price(
    exchange: str | Choice,
    ranks: int,
    n_bytes: float,
    cluster: Cluster,
    nodes: Sequence[int] | None = None,
) -> Price:
    """What one exchange of a buffer takes on a cluster.

    Args:
        exchange: as on the command line; one by size is priced as what sums this buffer, and an
            asynchronous one as what moves the same in a step.
        ranks: how many.
        n_bytes: length of the buffer; its pieces may be fractions of a byte.
        cluster: links and how fast a rank adds.
        nodes: the node of every rank; None where they fill one node after another.

    Raises:
        UserError: an exchange without a schedule, one that does not run on so many ranks or whose
            schedules do not fit together, or a cluster with fewer.
    """
    nodes = cluster.nodes(ranks) if nodes is None else nodes
    choice = _named(exchange) if isinstance(exchange, str) else exchange
    chosen = choice.placed(nodes).scheduled(ranks).for_bytes(int(n_bytes), ranks)
    alike = len(set(nodes)) == ranks  # no two share a node: all links are those between
    if ranks > _PLAYED and alike and (terms := chosen.terms(ranks)):
        return _told(terms, n_bytes, cluster)
    try:
        with without_collector():
            return _played(_program(chosen.spec, ranks, tuple(nodes)), n_bytes, cluster)
    except ProofError as error:
        raise UserError(f"exchange {chosen.spec} is wrong on {ranks} ranks: {error}") from error


@functools.lru_cache(maxsize=256)
def _named(spec: str) -> Choice:
    """Looking through all installed packages takes longer than most prices."""
    return parse_exchange(spec)


def _told(terms: Terms, n_bytes: float, cluster: Cluster) -> Price:
    """What playing would come to, on links all alike."""
    link, sent, added = cluster.between, float(terms.beta) * n_bytes, float(terms.gamma) * n_bytes
    parts = (float(terms.alpha) * link.latency_s, sent * link.beta_s, added * cluster.gamma_s)
    return Price(sum(parts), *parts, int(terms.alpha), sent, added)


@functools.lru_cache(maxsize=8)
def _program(spec: str, ranks: int, nodes: tuple[int, ...]) -> Program:
    """Schedules do not depend on the buffer's length, and take longest to make."""
    return compile_program(_named(spec), ranks, nodes)


def _played(program: Program, n_bytes: float, cluster: Cluster) -> Price:
    seconds, latency_s, messages, sent, added = _Play(program, n_bytes, cluster).run()
    reduce_s = added * cluster.gamma_s
    return Price(
        seconds=seconds,
        latency_s=latency_s,
        transfer_s=max(0.0, seconds - latency_s - reduce_s),
        reduce_s=reduce_s,
        alpha_count=messages,
        beta_bytes=sent,
        gamma_bytes=added,
    )


class _Play:
    """The events of one exchange, in the order of time."""

    def __init__(self, program: Program, n_bytes: float, cluster: Cluster) -> None:
        self.program = program
        self.n_bytes = n_bytes
        self.links = (cluster.between, cluster.inside)
        self.gamma_s = cluster.gamma_s
        ranks = len(program.nodes)
        # Ports by number: one of each rank to the others of its node, then one of each node.
        ports = ranks + max(program.nodes, default=0) + 1
        self.out_free = [_ZERO] * ports
        self.in_free = [_ZERO] * ports
        self.turn = [0] * ranks
        self.taken = [0] * ranks
        self.free = [_ZERO] * ranks
        self.awaits: list[int | None] = [None] * ranks
        self.sent: dict[int, Moment] = {}
        self.events: list[tuple[float, int, bool, int, Moment]] = []
        self.order = count()

    def run(self) -> Moment:
        """Play until nothing happens any more; the moment at which the last rank is through.

        Raises:
            ProofError: some wait for ever.
        """
        for rank in range(len(self.free)):
            self.at(_ZERO, rank, begins=True)
        while self.events:
            _, _, begins, which, moment = heapq.heappop(self.events)
            if begins:
                self.begin(which, moment)
            else:
                self.take(which, moment)
        steps = self.program.steps
        if any(turn < len(own) for turn, own in zip(self.turn, steps, strict=True)):
            raise ProofError("ranks wait for each other for ever: `commbench verify` tells which")
        return max(self.free, default=_ZERO)

    def at(self, moment: Moment, which: int, *, begins: bool) -> None:
        """A rank begins a round then, or a message is taken; what was told first comes first."""
        heapq.heappush(self.events, (moment[0], next(self.order), begins, which, moment))

    def begin(self, rank: int, moment: Moment) -> None:
        """Send; a round that receives nothing is over at once."""
        steps = self.program.steps[rank]
        while self.turn[rank] < len(steps):
            step = steps[self.turn[rank]]
            for number in step.sends:
                self.send(number, moment)
            if step.recvs:
                self.listen(rank)
                return
            self.turn[rank] += 1

    def send(self, number: int, moment: Moment) -> None:
        """A message goes out as soon as its port is free."""
        program = self.program
        inside, receiver = program.inside[number], program.receivers[number]
        port = self.port(program.senders[number], inside)
        n_bytes = program.shares[number] * self.n_bytes
        leaves = max(moment, self.out_free[port])
        self.out_free[port] = _carried(leaves, n_bytes, self.links[inside])
        self.sent[number] = leaves
        if self.awaits[receiver] == number:
            self.listen(receiver)

    def listen(self, rank: int) -> None:
        """Take the next message of the round, or wait for it."""
        number = self.program.steps[rank][self.turn[rank]].recvs[self.taken[rank]]
        leaves = self.sent.pop(number, None)
        self.awaits[rank] = number if leaves is None else None
        if leaves is not None:
            self.at(max(leaves, self.free[rank]), number, begins=False)

    def take(self, number: int, moment: Moment) -> None:
        """A message comes in as soon as its port is free, and is added or put in place."""
        rank, inside = self.program.receivers[number], self.program.inside[number]
        step = self.program.steps[rank][self.turn[rank]]
        port = self.port(rank, inside)
        n_bytes = self.program.shares[number] * self.n_bytes
        here = _carried(max(moment, self.in_free[port]), n_bytes, self.links[inside])
        self.in_free[port] = here
        if step.adds[self.taken[rank]]:
            now, latency, messages, sent, added = here
            here = now + n_bytes * self.gamma_s, latency, messages, sent, added + n_bytes
        self.free[rank] = here
        self.taken[rank] += 1
        if self.taken[rank] < len(step.recvs):
            self.listen(rank)
            return
        self.turn[rank] += 1
        self.taken[rank] = 0
        self.at(self.free[rank], rank, begins=True)

    def port(self, rank: int, inside: bool) -> int:
        """Which port a rank uses for those of its node, or for others."""
        return rank if inside else len(self.free) + self.program.nodes[rank]


def _carried(moment: Moment, n_bytes: float, link: Link) -> Moment:
    """When a port is free again that a message holds from `moment`."""
    now, latency, messages, sent, added = moment
    now += link.latency_s + n_bytes * link.beta_s
    return now, latency + link.latency_s, messages + 1, sent + n_bytes, added
