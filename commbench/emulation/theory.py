"""What an exchange should take on an emulated cluster: its schedule on latency and bandwidth alone.

The alpha-beta model with ports. Messages stand in levels, each a link of the longest chain of
rounds that wait for one another (`proof.Counts.rounds` of them). A level takes the latency, and as
long as the busiest link needs for its messages in one direction: a host's own or a rack's uplink.
Without racks that gives the closed forms: 2(p-1)n/B for the parameter server, 2 log2(p) n/B for the
tree, 2(p-1)/p n/B for the ring.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from commbench.emulation.layout import Layout
from commbench.matching import match
from commbench.schedule import Schedule, Send


@dataclass(frozen=True)
class Theory:
    """What an exchange needs of the links, for a buffer of known length.

    Attributes:
        levels: messages of the longest chain, one after the other: each costs a latency.
        transfer_s: time on the busiest link of each level, over all levels.
        received_bytes: what each rank receives, ``(ranks,)``.
        shortest_message_bytes: the shortest message that is not empty; 0 if there is none.
    """

    levels: int
    transfer_s: float
    received_bytes: tuple[int, ...]
    shortest_message_bytes: int

    def seconds(self, latency_s: float) -> float:
        """The time of the exchange, where a message takes so long to begin to arrive."""
        return self.levels * latency_s + self.transfer_s


def theory(schedules: Sequence[Schedule], count: int, itemsize: int, layout: Layout) -> Theory:
    """Price the schedules of ranks that run on the first hosts of a cluster."""
    busy: dict[int, dict[tuple[str, int], float]] = defaultdict(lambda: defaultdict(float))
    host_rate, uplink_rate = layout.net(layout.rate), layout.net(layout.uplink())
    received = [0] * len(schedules)
    lengths = []
    for level, sender, receiver, send in _levels(schedules):
        start, stop = send.piece.bounds(count)
        nbytes = (stop - start) * itemsize
        if not nbytes:
            continue
        lengths.append(nbytes)
        received[receiver] += nbytes
        links = busy[level]
        links["out", sender] += nbytes / host_rate
        links["in", receiver] += nbytes / host_rate
        here, there = layout.rack(sender), layout.rack(receiver)
        if here != there:
            links["up", here] += nbytes / uplink_rate
            links["down", there] += nbytes / uplink_rate
    transfer_s = sum(max(links.values()) for links in busy.values())
    return Theory(len(busy), transfer_s, tuple(received), min(lengths, default=0))


def _levels(schedules: Sequence[Schedule]) -> list[tuple[int, int, int, Send]]:
    """Every message, as (level, sender, receiver, send), of schedules that have been proved.

    A rank begins a round when it has all that it received in the one before, as in
    `commbench.proof`; here no values are played, which for 128 ranks takes most of the time.
    """
    messages = match(schedules)
    begun: dict[int, int] = {}  # by message: the level it was sent at
    start = [0] * len(schedules)
    turn = [0] * len(schedules)
    sleepers: dict[int, list[int]] = defaultdict(list)
    found = []
    ready = list(range(len(schedules)))
    while ready:
        rank = ready.pop()
        rounds = schedules[rank].rounds
        while turn[rank] < len(rounds):
            places = [(rank, turn[rank], at) for at in range(len(rounds[turn[rank]].ops))]
            own = [messages[place] for place in places if place in messages]
            for message in own:
                if message.sender == rank and id(message) not in begun:
                    begun[id(message)] = start[rank]
                    found.append((start[rank], rank, message.receiver, message.send))
                    ready += sleepers.pop(id(message), [])
            awaited = [message for message in own if message.receiver == rank]
            late = next((one for one in awaited if id(one) not in begun), None)
            if late is not None:
                sleepers[id(late)].append(rank)
                break
            ends = [begun[id(one)] + 1 for one in awaited]
            start[rank] = max([start[rank] + bool(own), *ends])
            turn[rank] += 1
    return found
