"""How an exchange's bytes move between ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from commbench.arrays import Array, Arrays
from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.job import Job


class Incoming(Protocol):
    """A message on its way to this rank.

    Attributes:
        lent: once it has arrived, the sender's own elements where the answer may be written into
            them until `release` (see `commbench.loans`); else None.
    """

    lent: Array | None

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

    def beside(self, buffer: Array) -> Array:
        """A wire array as long as an allocated one, to send copies of its elements from."""

    def lends(self, peer: int) -> bool:
        """Whether this rank and `peer` can write into each other's allocated arrays."""

    def sender(
        self, data: Array, to: int, *, lend: bool = False
    ) -> Callable[[bool], Callable[[], bool]]:
        """Prepare to send a wire array, as often as wanted.

        Args:
            data: some elements of an allocated array.
            to: the receiver.
            lend: whether the receiver may write its answer into `data`.

        Returns:
            What starts sending ``data`` as it is then, and returns the question whether it may be
            overwritten. Its argument tells whether the elements have been written into the
            receiver's memory already, because it had lent them.
        """

    def receive(self, count: int, source: int, into: Array | None = None) -> Incoming:
        """Start receiving `count` wire elements, into `into` or memory of the transport's own."""

    def all_reduce(self, data: Array) -> None:
        """Sum a wire array over all ranks in place, by the library's own algorithm."""


TRANSPORTS = ("mpi", "shared-memory")


def transport_name(name: str, device: str) -> str:
    """The transport that a name stands for, of buffers on "cpu" or a GPU.

    ``auto`` is shared memory between ranks of a node and MPI between nodes, for buffers on the
    CPU, and MPI for buffers on GPUs.

    Raises:
        UserError: there is none of this name, or it cannot serve such buffers.
    """
    if name not in ("auto", *TRANSPORTS):
        raise UserError(f"no transport {name!r}: choose from auto, {', '.join(TRANSPORTS)}")
    if name == "shared-memory" and device != "cpu":
        raise UserError("--transport shared-memory is for --device cpu: use auto or mpi")
    if name == "auto":
        return "shared-memory" if device == "cpu" else "mpi"
    return name


def open_transport(name: str, job: Job, arrays: Arrays) -> Transport:
    """Open a transport by name over all ranks of the job; collective.

    Raises:
        UserError: as of `transport_name`.
    """
    if transport_name(name, arrays.device) == "mpi":
        from commbench.transport.mpi import MPITransport

        return MPITransport(job, arrays)
    from commbench.transport.shared_memory import SharedMemoryTransport

    return SharedMemoryTransport(job, arrays)
