"""How an exchange's bytes move between ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.arrays import Array, Arrays
    from commbench.cutting import Cut, Receiving, Sending
    from commbench.job import Job
    from commbench.transport.link import Link

Question = Callable[[], bool]
"""Asked again and again until it is true; never blocks."""


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


class Program(Protocol):
    """All of a rank's part of an exchange, done by other means than message by message."""

    def begin(self) -> None:
        """Begin a run."""

    def go_on(self, yields: int | None = None) -> int | None:
        """Go on until the end, or until a message does not come.

        Args:
            yields: how often to wait for one by giving way; None: as often as any other wait.

        Returns:
            None at the end, or the number of the step that could not be done; never blocks.
        """

    def waits_for(self, step: int) -> tuple[Sending | Receiving, int]:
        """What a step that could not be done waits for, and which rank."""


class Transport(Protocol):
    """Point-to-point messages of whole arrays, and the library's own all-reduce.

    Messages from one rank to another arrive in the order they were sent. Neither call blocks on a
    peer except `all_reduce`.

    Attributes:
        copiers: how many ranks of this one's node can copy at once, each as fast as alone.
    """

    name: str
    rank: int
    size: int
    copiers: int
    arrays: Arrays

    def allocate(self, count: int) -> Array:
        """A wire array of zeros where this transport moves it best; collective over all ranks."""

    def segment_bytes(self, peer: int) -> int:
        """The longest message to or from `peer`; both sides cut longer ones alike."""

    def beside(self, buffer: Array) -> Array:
        """A wire array as long as an allocated one, to send copies of its elements from."""

    def lends(self, peer: int) -> bool:
        """Whether this rank and `peer` can write into each other's allocated arrays."""

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
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

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        """Prepare to receive `count` wire elements, as often as wanted.

        Args:
            count: how many.
            source: the sender.
            into: where they are wanted; None leaves it to the transport.

        Returns:
            What starts receiving. It may give the same object every time: each message is released
            before the next one of the same preparation is begun.
        """

    def program(self, plan: Cut, wire: Array, work: Array) -> Program | None:
        """What runs a plan over an array, if this transport can do better than by messages.

        Args:
            plan: of this rank, with its loans.
            wire: ``(n,)``, as its elements travel.
            work: ``(n,)``, as they are added; `wire` itself where the two types are one.
        """

    def all_reduce(self, data: Array) -> None:
        """Sum a wire array over all ranks in place, by the library's own algorithm."""


CPU_TRANSPORTS = ("mpi", "shared-memory")
GPU_TRANSPORTS = ("cuda-ipc", "nccl", "cuda-aware", "staged")
TRANSPORTS = CPU_TRANSPORTS + GPU_TRANSPORTS
# Not a way of its own: an ordinary transport behind links of a speed, emulated@100mbit,50us.
EMULATED = "emulated"


def transport_name(name: str, device: str) -> str:
    """The transport that a name stands for, of buffers on "cpu" or a GPU.

    For buffers on the CPU, ``auto`` is shared memory between ranks of a node and MPI between nodes.
    For buffers on GPUs it depends on what the job finds and stays ``auto``, and ``mpi`` is
    ``staged``. ``emulated@100mbit,50us`` is itself.

    Raises:
        UserError: there is none of this name, or it cannot serve such buffers.
    """
    if is_emulated(name):
        link_of(name)
        if device != "cpu":
            raise UserError("--transport emulated is for --device cpu: GPUs' links are their own")
        return name
    if name not in ("auto", *TRANSPORTS):
        raise UserError(f"no transport {name!r}: choose from auto, {', '.join(TRANSPORTS)}")
    if name == "shared-memory" and device != "cpu":
        raise UserError(
            "--transport shared-memory is for --device cpu: use auto or cuda-ipc for GPUs"
        )
    if name in GPU_TRANSPORTS and device == "cpu":
        raise UserError(f"--transport {name} is for --device cuda: use auto, mpi or shared-memory")
    if device != "cpu":
        return "staged" if name == "mpi" else name
    return "shared-memory" if name == "auto" else name


def is_emulated(name: str) -> bool:
    """Whether a name is of an ordinary transport behind slow links."""
    return name.partition("@")[0] == EMULATED


def link_of(name: str) -> Link:
    """The link that the name of an emulated transport tells.

    Raises:
        UserError: it tells none, or one that is not understood.
    """
    from commbench.transport.link import Link

    text = name.partition("@")[2]
    if not text:
        raise UserError("--transport emulated needs a link: give --link 100mbit,50us, for instance")
    return Link.parse(text)


def open_transport(
    name: str,
    job: Job,
    arrays: Arrays,
    *,
    library_only: bool = False,
    rounds: bool = True,
) -> Transport:
    """Open a transport by name over all ranks of the job; collective.

    Args:
        name: of `transport_name`.
        job: the ranks.
        arrays: for the elements.
        library_only: whether nothing but `all_reduce` will be used; ``auto`` heeds it.
        rounds: whether only schedules will be run, round by round; ``auto`` heeds it.

    Raises:
        UserError: as of `transport_name`, or the GPUs or libraries here cannot do it; says why.
    """
    known = transport_name(name, arrays.device)
    if arrays.device != "cpu":
        from commbench.transport.device import device_of
        from commbench.transport.gpus import open_gpu_transport

        device = device_of(arrays)
        return open_gpu_transport(
            known, job, arrays, device, library_only=library_only, rounds=rounds
        )
    if is_emulated(known):
        from commbench.transport.emulated import EmulatedTransport, refuse_library

        if library_only:
            refuse_library()
        return EmulatedTransport(job, open_transport("auto", job, arrays), link_of(known))
    # The library gets memory of the kind that it is used to: shared pages slow it down.
    if known == "mpi" or (name == "auto" and library_only):
        from commbench.transport.mpi import MPITransport

        return MPITransport(job, arrays)
    from commbench.transport.shared_memory import SharedMemoryTransport

    return SharedMemoryTransport(job, arrays)


def library_transport(transport: Transport, job: Job, arrays: Arrays) -> Transport:
    """What the library's own all-reduce is to use where others use `transport`; collective.

    That is `transport`, unless its memory is shared between ranks: such pages slow the library
    down, which would get memory of the ordinary kind if it were alone.

    Raises:
        UserError: links are emulated, which the library would not know of.
    """
    if transport.name.startswith(EMULATED):
        from commbench.transport.emulated import refuse_library

        refuse_library()
    if transport.name not in ("shared-memory", "cuda-ipc"):
        return transport
    return open_transport("auto", job, arrays, library_only=True)
