"""Messages and all-reduce of GPU arrays by NCCL, where every rank has a GPU of its own.

NCCL has no messages that come and go by themselves: `commbench.grouped` hands it a round at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from commbench.arrays import Array, Arrays
from commbench.errors import UserError
from commbench.transport.device import Device, Stream
from commbench.transport.waiting import PeerTimeout, wait_until

if TYPE_CHECKING:
    from commbench.cutting import Cut
    from commbench.job import Job
    from commbench.transport import Incoming, Question

# ncclDataType_t and ncclRedOp_t of nccl.h; CuPy names them not all.
_UINT8 = 1
_TYPES = {"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9}
_SUM = 0
# NCCL's limit is 2048 operations a group.
_LARGEST_GROUP = 2048

Messages = Sequence[tuple[Array, int]]


class Library(Protocol):
    """NCCL, as the transport sees it: a communicator of all ranks."""

    def group(self, sends: Messages, recvs: Messages, stream: Stream) -> None:
        """Hand the stream some messages that go on beside one another."""

    def all_reduce(self, data: Array, stream: Stream) -> None:
        """Hand the stream a sum over all ranks, in place."""

    def check(self) -> None:
        """Raise what went wrong since, if anything."""

    def abort(self) -> None:
        """Take everything off the stream and give the communicator up."""


class NcclTransport:
    """The `nccl` transport."""

    name = "nccl"
    copiers = 1

    def __init__(self, job: Job, arrays: Arrays, device: Device, library: Library) -> None:
        """Open it; collective over all ranks. `why_not` has found that it can be."""
        self.rank = job.rank
        self.size = job.size
        self.arrays = arrays
        self._job = job
        self._device = device
        self._library = library

    def allocate(self, count: int) -> Array:
        """A new wire array of zeros; NCCL reaches all of the GPU's memory."""
        array = self.arrays.from_values(np.zeros(count))
        self.arrays.synchronize()
        return array

    def segment_bytes(self, peer: int) -> int:
        """NCCL cuts messages itself."""
        return 1 << 62

    def beside(self, buffer: Array) -> Array:
        """Another array."""
        return self.arrays.wire_empty(len(buffer))

    def lends(self, peer: int) -> bool:
        """No rank reaches another's memory."""
        return False

    def sender(self, data: Array, to: int, *, lend: bool = False) -> Callable[[bool], Question]:
        """Not by NCCL: a message of one round would wait for those of others."""
        raise NotImplementedError("NCCL moves messages in rounds: commbench.grouped")

    def receiver(
        self, count: int, source: int, into: Array | None = None
    ) -> Callable[[], Incoming]:
        """As `sender`."""
        raise NotImplementedError("NCCL moves messages in rounds: commbench.grouped")

    def group(self, sends: Messages, recvs: Messages) -> None:
        """Hand the stream a round: messages that go on beside one another, in order per peer."""
        if not sends and not recvs:
            return
        if len(sends) + len(recvs) > _LARGEST_GROUP:
            raise UserError(
                f"--transport nccl: a round of {len(sends) + len(recvs)} messages of rank "
                f"{self.rank} is too large, {_LARGEST_GROUP} at most: use cuda-aware or staged"
            )
        # The first messages to a peer connect to it, which blocks the host.
        with self._job.watchdog.guard(f"rank {self.rank} waits in NCCL to reach its peers"):
            self._library.group(sends, recvs, self._device.main)

    def program(self, plan: Cut, wire: Array, work: Array) -> None:
        """There is no other way than message by message."""

    def all_reduce(self, data: Array) -> None:
        """NCCL's own all-reduce; 16-bit elements are rounded after every addition."""
        with self._job.watchdog.guard(f"rank {self.rank} waits in NCCL's all-reduce for its peers"):
            self._library.all_reduce(data, self._device.main)
        self.finish(self._job.timeout_s)

    def finish(self, timeout_s: float) -> None:
        """Wait until the stream is through with all it was given.

        Raises:
            PeerTimeout: it was not in time; NCCL is given up.
        """
        event = self._device.record(self._device.main)

        def done() -> bool:
            self._library.check()
            return self._device.done(event)

        try:
            wait_until(done, timeout_s, lambda: f"rank {self.rank} waits for its peers in NCCL")
        except PeerTimeout:
            with self._job.watchdog.guard(f"rank {self.rank} gives up waiting in NCCL"):
                self._library.abort()
            raise


class CupyNccl:
    """NCCL by CuPy, in a communicator of all ranks."""

    def __init__(self, job: Job, arrays: Arrays) -> None:
        """Open it; collective over all ranks."""
        from cupy.cuda import nccl

        self._nccl = nccl
        self._type = _TYPES[arrays.kind.name]
        unique = job.on_root(nccl.get_unique_id)
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to open NCCL"):
            self._comm = nccl.NcclCommunicator(job.size, unique, job.rank)

    def group(self, sends: Messages, recvs: Messages, stream: Stream) -> None:  # noqa: D102
        self._nccl.groupStart()
        try:
            for data, to in sends:
                self._comm.send(data.data.ptr, data.nbytes, _UINT8, to, stream.ptr)
            for data, source in recvs:
                self._comm.recv(data.data.ptr, data.nbytes, _UINT8, source, stream.ptr)
        finally:
            self._nccl.groupEnd()

    def all_reduce(self, data: Array, stream: Stream) -> None:  # noqa: D102
        self._comm.allReduce(data.data.ptr, data.data.ptr, data.size, self._type, _SUM, stream.ptr)

    def check(self) -> None:  # noqa: D102
        self._comm.check_async_error()

    def abort(self) -> None:  # noqa: D102
        self._comm.abort()


def library_missing() -> str:
    """Why CuPy cannot use NCCL here; empty if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy tells how to install what it does not find
        try:
            nccl: Any = __import__("cupy.cuda.nccl", fromlist=["nccl"])
        except ImportError as error:
            return f"CuPy does not find NCCL: {error}"
    return "" if nccl.available else "CuPy does not find NCCL (libnccl.so.2)"


def why_not(gpus: Sequence[str], rank: int) -> str:
    """Why a rank cannot take part in NCCL; empty if it can.

    Args:
        gpus: for every rank, what names its GPU among all nodes' GPUs.
        rank: this rank.
    """
    sharing = [other for other, gpu in enumerate(gpus) if gpu == gpus[rank] and other != rank]
    if sharing:
        return f"it shares its GPU with rank {sharing[0]}, and NCCL wants one GPU a rank"
    return library_missing()
