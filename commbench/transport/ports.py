"""A link model without a clock of its own: a port to send by and one to receive by, both at once.

A message of n bytes holds the sender's port for n/rate seconds, begins to arrive a latency later,
and then holds the receiver's port for as long. A port serves one message after another, those to be
received in the order in which they begin to arrive. All times are in seconds on one common clock.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from commbench.transport.link import Link


@dataclass(order=True)
class Ticket:
    """A message on its way in.

    Attributes:
        arrival: when its first byte arrives.
        number: which of this port, in the order in which they were told.
        nbytes: its length.
        due: when its last byte has been taken in; infinite while that is open.
    """

    arrival: float
    number: int
    nbytes: int = field(compare=False)
    due: float = field(default=math.inf, compare=False)


class Ports:
    """The two ports of one rank."""

    def __init__(self, link: Link) -> None:
        """Both are free."""
        self._link = link
        self._out_free = self._in_free = -math.inf
        self._coming: list[Ticket] = []
        self._told = 0
        # The moments at which something ends, in order, of each port.
        self._ends: tuple[deque[float], deque[float]] = (deque(), deque())

    def send(self, now: float, nbytes: int) -> tuple[float, float]:
        """Put a message in line; when it begins to leave, and when it has left."""
        begin = max(now, self._out_free)
        self._out_free = begin + nbytes / self._link.rate.bytes_per_s
        self._ends[0].append(self._out_free)
        return begin, self._out_free

    def expect(self, left: float, nbytes: int) -> Ticket:
        """A message that began to leave its sender at `left`."""
        self._told += 1
        ticket = Ticket(left + self._link.latency_s, self._told, nbytes)
        heapq.heappush(self._coming, ticket)
        return ticket

    def passed(self, ticket: Ticket, now: float) -> bool:
        """Whether a message is in."""
        # What arrives later may still be told of, and goes first if it arrives sooner.
        while self._coming and self._coming[0].arrival <= now:
            first = heapq.heappop(self._coming)
            begin = max(first.arrival, self._in_free)
            self._in_free = first.due = begin + first.nbytes / self._link.rate.bytes_per_s
            self._ends[1].append(first.due)
        return ticket.due <= now

    def next_event(self, now: float) -> float:
        """The next known moment at which something begins to arrive or ends; else infinite."""
        for ends in self._ends:
            while ends and ends[0] <= now:
                ends.popleft()
        moments = [ends[0] for ends in self._ends if ends]
        if self._coming and self._coming[0].arrival > now:
            moments.append(self._coming[0].arrival)
        return min(moments, default=math.inf)
