"""What all codecs have in common, and which format has which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from commbench.arrays import Array, arrays_for
from commbench.grouped import exchange_over
from commbench.job import Job
from commbench.load import only_by_library
from commbench.schedule import Schedule
from commbench.transport import Transport, open_transport
from commbench.wire import WireBuffer, WireFormat

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Lane:
    """A buffer that is exchanged.

    Attributes:
        buffer: of the transport's element type.
        run: exchanges it: afterwards it holds the sum, or everybody's slots, on every worker.
    """

    buffer: Array
    run: Callable[[], None]


class Codec(Protocol):
    """Turns a flat float32 gradient into what its lanes carry, and that into the sum."""

    def exchange(self) -> None:
        """Replace this worker's gradient by the sum of all workers', or what the format keeps."""

    def relay(self) -> None:
        """Take part in an exchange without a gradient, as a dedicated server does."""

    def reset(self) -> None:
        """Forget what earlier exchanges left: as new."""


class Plain:
    """The gradient itself lies in the lane."""

    def __init__(self, lane: Lane) -> None:
        """Take the only lane."""
        self.exchange = self.relay = lane.run

    def reset(self) -> None:
        """Nothing stays."""


def lane(
    buffer: Array,
    schedule: Schedule,
    transport: Transport,
    timeout_s: float,
    synchronize: Callable[[], None],
) -> Lane:
    """Prepare the exchange of a buffer; `synchronize` waits until the device has filled it."""
    exchange = exchange_over(transport, schedule, buffer, timeout_s=timeout_s)

    def run() -> None:
        synchronize()
        exchange.run()

    return Lane(buffer, run)


@dataclass(frozen=True, eq=False)
class Lanes:
    """The lanes of all buckets, which share one transport and one allocation.

    Attributes:
        memory: the buffers of all lanes, side by side.
        of: the lanes of each bucket.
        transport: that they go over.
    """

    memory: Array
    of: list[list[Lane]]
    transport: Transport


def open_lanes(
    buckets: Sequence[Sequence[WireBuffer]],
    schedule_for: Callable[[int], Schedule],
    *,
    job: Job,
    transport: str,
    device: str,
    timeout_s: float,
    synchronize: Callable[[], None],
    rounds: bool = True,
) -> Lanes:
    """Allocate the buffers and prepare their exchanges; collective.

    Args:
        buckets: the buffers of each, all of one element type.
        schedule_for: this rank's schedule for a buffer of so many bytes.
        job: the ranks.
        transport: by name.
        device: "cpu" or "cuda".
        timeout_s: the longest wait for a peer, in seconds.
        synchronize: waits until the device has filled the buffers.
        rounds: whether only schedules will be run over the transport, round by round.
    """
    every = [one for buffers in buckets for one in buffers]
    arrays = arrays_for(device, every[0].dtype, job.local_rank)
    opened = open_transport(
        transport,
        job,
        arrays,
        library_only=all(only_by_library([schedule_for(one.nbytes)]) for one in every),
        rounds=rounds,
    )
    memory = opened.allocate(sum(one.count for one in every))
    made, used = [], 0
    for buffers in buckets:
        lanes = []
        for one in buffers:
            part, used = memory[used : used + one.count], used + one.count
            lanes.append(lane(part, schedule_for(one.nbytes), opened, timeout_s, synchronize))
        made.append(lanes)
    return Lanes(memory, made, opened)


def open_codec(
    wire: WireFormat,
    gradient: torch.Tensor,
    shapes: Sequence[Sequence[int]],
    lanes: Sequence[Lane],
    *,
    workers: Sequence[int],
    rank: int,
) -> Codec:
    """The codec of a format.

    Args:
        wire: the format.
        gradient: ``(n,)`` float32; of float32, the first lane's own memory.
        shapes: of the parameters whose gradients lie in it side by side.
        lanes: with the buffers that the format asks for.
        workers: the ranks with a gradient, in order.
        rank: this rank.
    """
    if wire.name == "topk":
        from commbench.wire.topk import TopK

        slot = workers.index(rank) if rank in workers else None
        entries = wire.entries(len(gradient))
        return TopK(gradient, entries, lanes[0], slot=slot, workers=len(workers))
    if wire.name == "powersgd":
        from commbench.wire.powersgd import PowerSGD

        return PowerSGD(gradient, shapes, wire.rank, lanes)
    if wire.plain:
        return Plain(lanes[0])
    from commbench.wire.half import Half

    return Half(gradient, wire.name, lanes[0], workers=len(workers))
