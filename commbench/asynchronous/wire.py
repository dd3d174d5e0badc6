"""The messages between workers and servers: a short notice over MPI, elements by the transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from commbench.asynchronous.ledger import Message
from commbench.schedule import Recv, Schedule, Send
from commbench.transport import Transport

TAG = 31
_WORDS = 3
_NO_GRADIENT = -1

Question = Callable[[], bool]


@dataclass(frozen=True)
class Share:
    """A server and the elements ``[start, stop)`` of the flat buffer that it keeps."""

    server: int
    start: int
    stop: int


def shares_of(schedule: Schedule, count: int) -> list[Share]:
    """To whom a worker sends what, in the order of its schedule in the synchronous exchange."""
    pushes = [op for op in schedule.rounds[0].ops if isinstance(op, Send)]
    return [Share(push.to, *push.piece.bounds(count)) for push in pushes]


def sources_of(schedule: Schedule, count: int) -> tuple[list[int], tuple[int, int]]:
    """Whose gradients a server adds, in the order of its schedule, and to which elements."""
    pushes = [op for op in schedule.rounds[0].ops if isinstance(op, Recv)]
    return [push.source for push in pushes], pushes[0].piece.bounds(count)


def cuts(bounds: tuple[int, int], peer: int, transport: Transport) -> Iterator[tuple[int, int]]:
    """Elements in messages no longer than the transport allows, alike on both sides."""
    start, stop = bounds
    longest = max(1, transport.segment_bytes(peer) // transport.arrays.kind.itemsize)
    for first in range(start, stop, longest):
        yield first, min(first + longest, stop)


def encode(message: Message) -> NDArray[np.int64]:
    """The words of a notice; its sender is known to MPI."""
    step = _NO_GRADIENT if message.step is None else message.step
    return np.array([step, message.following, message.meets], np.int64)


def next_notice(comm: MPI.Intracomm) -> Message | None:
    """A notice that has arrived from any worker, or None."""
    status = MPI.Status()
    if not comm.Iprobe(MPI.ANY_SOURCE, TAG, status):
        return None
    words = np.empty(_WORDS, np.int64)
    comm.Recv(words, status.Get_source(), TAG)
    step = None if words[0] == _NO_GRADIENT else int(words[0])
    return Message(status.Get_source(), step, int(words[1]), bool(words[2]))
