"""An ordinary transport behind slow links, without privileges: messages wait for modelled ports.

Elements move as fast as the transport below moves them, but a message counts as arrived, or taken,
only when the ports of `commbench.transport.ports` have had the time for it. Until then ranks sleep.
Ports are booked by the moment at which a message was handed over, not by when somebody looks, so
that no error adds up while ranks sleep.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from commbench.arrays import Array, Arrays
from commbench.clocks import clock_offset
from commbench.cutting import Cut
from commbench.errors import UserError
from commbench.job import Job
from commbench.transport import Incoming, Question, Transport
from commbench.transport.link import Link
from commbench.transport.ports import Ports, Ticket
from commbench.transport.waiting import be_patient

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 31
# The longest message: a link's message should not be longer than what it overlaps with.
_SEGMENT_BYTES = 1 << 20
_LONGEST_SLEEP_S = 1e-3


class _Arriving:
    """A message that has arrived when its elements and the port's time are both there."""

    __slots__ = ("_below", "_moment", "_nbytes", "_ticket", "_told", "_transport")
    lent = None

    def __init__(
        self, transport: EmulatedTransport, below: Incoming, nbytes: int, source: int
    ) -> None:
        self._transport = transport
        self._below = below
        self._nbytes = nbytes
        self._moment = np.empty(1)
        self._told: MPI.Request = transport.comm.Irecv(self._moment, source, _TAG)
        self._ticket: Ticket | None = None

    def ready(self) -> bool:
        """Whether it has arrived; never blocks."""
        here = self._below.ready()
        transport = self._transport
        if self._ticket is None:
            if not self._told.Test():
                return False
            self._ticket = transport.ports.expect(float(self._moment[0]), self._nbytes)
        return transport.ports.passed(self._ticket, transport.now()) and here

    def data(self) -> Array:
        """Its elements."""
        return self._below.data()

    def release(self) -> None:
        """Give its memory back."""
        self._below.release()


class EmulatedTransport:
    """The `emulated` transport: another one, with a slow link at every rank."""

    def __init__(self, job: Job, below: Transport, link: Link) -> None:
        """Open it; collective over all ranks.

        Args:
            job: the ranks.
            below: moves the elements.
            link: of every rank, each way.
        """
        self.name = f"emulated({below.name})"
        self.rank = below.rank
        self.size = below.size
        self.copiers = below.copiers
        self.arrays: Arrays = below.arrays
        self.ports = Ports(link)
        self._below = below
        # One clock for all ranks: a message tells its receiver when it left.
        self._offset_s = clock_offset(job)
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open the transport"):
            self.comm: MPI.Intracomm = job.comm.Dup()
        self._telling: deque[tuple[MPI.Request, object]] = deque()
        be_patient(_LONGEST_SLEEP_S, self._next_event)

    def now(self) -> float:
        """The common clock, in seconds."""
        return perf_counter() + self._offset_s

    def allocate(self, count: int) -> Array:
        """As the transport below."""
        return self._below.allocate(count)

    def segment_bytes(self, peer: int) -> int:
        """1 MiB at most, also where the transport below never cuts messages."""
        return min(_SEGMENT_BYTES, self._below.segment_bytes(peer))

    def beside(self, buffer: Array) -> Array:
        """As the transport below."""
        return self._below.beside(buffer)

    def lends(self, peer: int) -> bool:
        """No link lets a rank write into another's memory."""
        return False

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
        """Prepare to send: the elements at once, and with them when they leave the port."""
        below = self._below.sender(data, to)

        def start(answered: bool) -> Question:
            begin, end = self.ports.send(self.now(), data.nbytes)
            self._tell(begin, to)
            taken = below(False)
            return lambda: taken() and self.now() >= end

        return start

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        """Prepare to receive."""
        below = self._below.receiver(count, source, into)
        nbytes = count * self.arrays.kind.itemsize
        return lambda: _Arriving(self, below(), nbytes, source)

    def program(self, plan: Cut, wire: Array, work: Array) -> None:
        """There is no other way than message by message."""

    def all_reduce(self, data: Array) -> None:
        """Refused: nobody knows what the library sends.

        Raises:
            UserError: always, on every rank.
        """
        refuse_library()

    def _tell(self, begin: float, to: int) -> None:
        while self._telling and self._telling[0][0].Test():
            self._telling.popleft()
        moment = np.array([begin])
        self._telling.append((self.comm.Isend(moment, to, _TAG), moment))

    def _next_event(self) -> float:
        return self.ports.next_event(self.now()) - self._offset_s


def refuse_library() -> None:
    """Say that the library's own all-reduce cannot be slowed down.

    Raises:
        UserError: always.
    """
    raise UserError(
        "--transport emulated shapes the messages of schedules, and nobody knows what the MPI "
        "library's own all-reduce sends: leave out native, or use `commbench emulate`"
    )
