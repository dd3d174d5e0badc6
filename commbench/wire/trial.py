"""A sweep's exchanges of gradients in another form: what they cost, and how far off their sums are.

Inputs are white noise: standard normal numbers, others on every rank. No few entries and no few
directions stand out in it, so top-k and PowerSGD lose more of it than of a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Array, Arrays, arrays_for, to_torch
from commbench.errors import UserError
from commbench.gathering import least_gathered
from commbench.job import Job
from commbench.load import least, loads, only_by_library
from commbench.plans import Plans
from commbench.registry import Choice
from commbench.transport import library_transport, open_transport
from commbench.wire import WireBuffer, WireFormat, refusal
from commbench.wire.codec import Codec, lane, open_codec


def matrix_shapes(count: int) -> list[tuple[int, ...]]:
    """A buffer as PowerSGD sees it: the squarest matrix that fits, and what is over, a vector."""
    rows = math.isqrt(count)
    columns = count // rows if rows else 0
    return [(rows, columns), (count - rows * columns,)]


@dataclass(frozen=True)
class Cell:
    """What one exchange of `count` elements comes to.

    Attributes:
        buffers: what travels.
        specs: for each of them the plain exchange that moves it.
        workers: the ranks that contribute.
    """

    wire: WireFormat
    count: int
    buffers: Sequence[WireBuffer]
    specs: Sequence[str]
    workers: Sequence[int]

    @property
    def algorithm(self) -> str:
        """The exchange, or where the buffers go by several, all of them."""
        return "+".join(dict.fromkeys(self.specs))

    def hottest_bytes(self, plans: Plans) -> float:
        """Bytes through the busiest rank, the greater direction; NaN if unknown. On rank 0."""
        total: NDArray[np.float64] | float = 0.0
        for one, spec in zip(self.buffers, self.specs, strict=True):
            moved = loads(plans.everyone[spec], one.count)
            if moved is None:
                return math.nan
            both = [(rank.elements_sent, rank.elements_received) for rank in moved]
            total = total + np.array(both, np.float64) * one.itemsize
        return float(np.max(total))

    def bound_bytes(self, plans: Plans) -> float:
        """The least that any exchange moves through its busiest rank. On rank 0."""
        bound = least_gathered if self.wire.gathers else least
        return sum(
            float(bound(plans.everyone[spec]) * one.nbytes)
            for one, spec in zip(self.buffers, self.specs, strict=True)
        )


def cell_of(
    choice: Choice, count: int, *, wire: WireFormat, dtype: str, plans: Plans, ranks: int
) -> Cell:
    """How `count` elements of type `dtype` are exchanged.

    Raises:
        UserError: the exchange cannot carry this form.
    """
    # All parts of an exchange have the same workers.
    workers = plans.workers[choice.parts(ranks)[0].spec]
    buffers = [WireBuffer(count, dtype)]
    if not wire.plain:
        buffers = wire.buffers(matrix_shapes(count), len(workers))
    specs = [choice.for_bytes(one.nbytes, ranks).spec for one in buffers]
    for spec in specs:
        if spec not in plans.own:
            raise UserError(refusal(wire, spec))
    return Cell(wire, count, buffers, specs, workers)


class Trials:
    """Memory and transports of a sweep's codecs, shared by candidates that take turns."""

    def __init__(
        self,
        job: Job,
        cells: Iterable[Cell],
        plans: Plans,
        *,
        device: str,
        transport: str,
        timeout_s: float,
    ) -> None:
        """Open them; collective.

        Args:
            job: the ranks.
            cells: all that will be tried, of one form.
            plans: their schedules.
            device: "cpu" or "cuda".
            transport: by name.
            timeout_s: the longest wait for a peer, in seconds.
        """
        cells = list(cells)
        self._job = job
        self._own = plans.own
        self._timeout_s = timeout_s
        self._arrays = arrays_for(device, cells[0].buffers[0].dtype, job.local_rank)
        longest: dict[int, int] = {}
        for one in cells:
            for number, buffer in enumerate(one.buffers):
                longest[number] = max(longest.get(number, 0), buffer.count)
        self.transport = self._library = open_transport(transport, job, self._arrays)
        self._memory = self._private = [self.transport.allocate(n) for n in longest.values()]
        library = (only_by_library([plans.own[spec]]) for one in cells for spec in one.specs)
        if any(library):
            self._library = library_transport(self.transport, job, self._arrays)
        if self._library is not self.transport:
            self._private = [self._library.allocate(n) for n in longest.values()]
        most = max(one.count for one in cells)
        own = np.random.default_rng(job.rank).normal(size=most)
        #: ``(n,)`` float32: what this rank contributes.
        self.floats: Arrays = arrays_for(device, "float32", job.local_rank)
        self.inputs: Array = self.floats.from_values(own)
        self._values = own.astype(np.float32)

    def transport_of(self, spec: str) -> str:
        """The transport that an exchange goes by."""
        return (self._library if only_by_library([self._own[spec]]) else self.transport).name

    def codec(self, one: Cell, gradient: Array) -> Codec:
        """A codec for `gradient`, ``(count,)`` float32."""
        lanes = []
        for number, (buffer, spec) in enumerate(zip(one.buffers, one.specs, strict=True)):
            library = only_by_library([self._own[spec]])
            memory = (self._private if library else self._memory)[number][: buffer.count]
            transport = self._library if library else self.transport
            lanes.append(
                lane(memory, self._own[spec], transport, self._timeout_s, self._synchronize)
            )
        return open_codec(
            one.wire,
            to_torch(gradient),
            matrix_shapes(one.count),
            lanes,
            workers=one.workers,
            rank=self._job.rank,
        )

    def error(self, one: Cell, codec: Codec, gradient: Array) -> float:
        """How far one exchange, without a past, is from the exact sum; collective.

        Returns:
            The norm of the difference over that of the sum, the largest of all workers'.
        """
        codec.reset()
        worker = self._job.rank in one.workers
        own = self._values[: one.count].astype(np.float64)
        exact = self._job.all_sum(own * worker)
        self.floats.assign(gradient, self.inputs[: one.count])
        self.floats.synchronize()
        (codec.exchange if worker else codec.relay)()
        found = to_torch(gradient).cpu().numpy()
        norm = np.linalg.norm(exact)
        missed = float(np.linalg.norm(found - exact) / norm) if worker and norm else 0.0
        return float(self._job.all_gather(np.array([missed])).max())

    def _synchronize(self) -> None:
        if self._arrays.device != "cpu":
            import torch

            torch.cuda.current_stream().synchronize()
