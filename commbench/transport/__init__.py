"""How an exchange's bytes move between ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from commbench.arrays import Array, Arrays
from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.job import Job


class Incoming(Protocol):
    """A message on its way to this rank."""

    def ready(self) -> bool:
        """Whether it has arrived; never blocks."""

    def data(self) -> Array:
        """The arrived elements, valid until `release`."""

    def release(self) -> None:
        """Give the message's memory back."""


class Transport(Protocol):
    """Point-to-point messages of whole arrays, and the library's own all-reduce.

    Messages from one rank to another arrive in the order they were sent. Neither call blocks on a
    peer except `all_reduce`.
    """

    name: str
    rank: int
    size: int
    arrays: Arrays

    def allocate(self, count: int) -> Array:
        """A wire array of zeros where this transport moves it best; collective over all ranks."""

    def segment_bytes(self, peer: int) -> int:
        """The longest message to or from `peer`; both sides cut longer ones alike."""

    def send(self, data: Array, to: int) -> Callable[[], bool]:
        """Start sending a wire array; returns the question whether `data` may be overwritten."""

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Start receiving `count` wire elements, into `into` or memory of the transport's own."""

    def all_reduce(self, data: Array) -> None:
        """Sum a wire array over all ranks in place, by the library's own algorithm."""


TRANSPORTS = ("mpi", "shared-memory")


def open_transport(name: str, job: Job, arrays: Arrays) -> Transport:
    """Open a transport by name over all ranks of the job; collective.

    ``auto`` is shared memory between ranks of a node and MPI between nodes, for buffers on the
    CPU, and MPI for buffers on GPUs.

    Raises:
        UserError: there is none of this name, or it cannot serve such buffers.
    """
    if name not in ("auto", *TRANSPORTS):
        raise UserError(f"no transport {name!r}: choose from auto, {', '.join(TRANSPORTS)}")
    if name == "shared-memory" and arrays.device != "cpu":
        raise UserError("--transport shared-memory is for --device cpu: use auto or mpi")
    if name == "mpi" or arrays.device != "cpu":
        from commbench.transport.mpi import MPITransport

        return MPITransport(job, arrays)
    from commbench.transport.shared_memory import SharedMemoryTransport

    return SharedMemoryTransport(job, arrays)
