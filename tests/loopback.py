"""Ranks as threads: runs the executor without MPI, over a transport as adverse as allowed.

A message is read from the sender's own memory at the last moment, when the receiver takes it. So a
schedule or an executor that overwrites what is still being sent gets a wrong sum here, every time.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from commbench.arrays import Array, Arrays
from commbench.cutting import Cut
from commbench.exchange import Exchange
from commbench.schedule import Schedule

TIMEOUT_S = 20.0


@dataclass(eq=False)
class Message:
    data: Array
    lent: bool = False
    answered: bool = False
    taken: threading.Event = field(default_factory=threading.Event)


class Wires:
    """The messages between all pairs of ranks, in order."""

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int], list[Message]] = defaultdict(list)
        self.lock = threading.Lock()


class Incoming:
    def __init__(self, wire: list[Message], number: int, into: Array, count: int) -> None:
        self.wire, self.number, self.into, self.count = wire, number, into, count

    def ready(self) -> bool:
        return len(self.wire) > self.number

    @property
    def lent(self) -> Array | None:
        message = self.wire[self.number]
        return message.data if message.lent else None

    def data(self) -> Array:
        message = self.wire[self.number]
        assert len(message.data) == self.count, "sender and receiver cut messages differently"
        if not message.answered:
            self.into[:] = message.data
            message.taken.set()
        return self.into

    def release(self) -> None:
        self.wire[self.number].taken.set()


class LoopbackTransport:
    name = "loopback"

    def __init__(
        self, rank: int, size: int, arrays: Arrays, wires: Wires, loans: bool = True
    ) -> None:
        self.rank, self.size, self.arrays, self.wires = rank, size, arrays, wires
        self.loans = loans
        self.copiers = size
        self.received: dict[int, int] = defaultdict(int)
        self.longest = self.messages = self.answered = 0

    def allocate(self, count: int) -> Array:
        return self.arrays.wire_empty(count)

    def segment_bytes(self, peer: int) -> int:
        return 1 << 20

    def beside(self, buffer: Array) -> Array:
        return self.arrays.wire_empty(len(buffer))

    def lends(self, peer: int) -> bool:
        return self.loans

    def sender(
        self, data: Array, to: int, *, lend: bool = False
    ) -> Callable[[bool], Callable[[], bool]]:
        def start(answered: bool) -> Callable[[], bool]:
            message = Message(data, lend, answered)
            with self.wires.lock:
                self.wires.sent[self.rank, to].append(message)
            self.longest = max(self.longest, len(data))
            self.messages += 1
            self.answered += answered
            return message.taken.is_set

        return start

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        return lambda: self.receive(count, source, into)

    def receive(self, count: int, source: int, into: Array | None) -> Incoming:
        with self.wires.lock:
            wire = self.wires.sent[source, self.rank]
        number = self.received[source]
        self.received[source] += 1
        if into is None:
            into = self.arrays.wire_empty(count)
        return Incoming(wire, number, into, count)

    def program(self, plan: Cut, wire: Array, work: Array) -> None:
        return None

    def all_reduce(self, data: Array) -> None:
        raise AssertionError("there is no library to call")


def run_all(
    schedules: Sequence[Schedule],
    buffers: Sequence[Array],
    arrays: Callable[[], Arrays],
    *,
    times: int = 1,
    loans: bool = True,
    **options: Any,
) -> list[LoopbackTransport]:
    """Run every rank's exchange in a thread of its own, `times` over; the buffers are changed."""
    wires = Wires()
    size = len(schedules)
    transports = [LoopbackTransport(rank, size, arrays(), wires, loans) for rank in range(size)]
    errors: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            exchange = Exchange(
                schedules[rank],
                buffers[rank],
                transports[rank],
                **{"timeout_s": TIMEOUT_S, **options},
            )
            for _ in range(times):
                exchange.run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
        assert not thread.is_alive(), "a rank hangs"
    if errors:
        raise errors[0]
    return transports
