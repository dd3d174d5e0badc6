"""Ring and tree straight on mpi4py, as somebody would write them by hand: what an engine may cost.

The same rounds and pieces as `commbench.topologies.ring` and `tree` without options, and the same
segments as the transport `mpi`: each is added as it comes, while the next ones are on their way.
Every receive is posted before the send of its round; scratch memory is made once, outside; sums are
NumPy's; and the waits are the library's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from commbench.transport.mpi import SEGMENT_BYTES

Buffer = NDArray[Any]


def ring(comm: MPI.Intracomm, buffer: Buffer, scratch: Buffer) -> None:
    """Sum ``buffer`` ``(n,)`` over all ranks in place; ``scratch`` holds n/p elements or more."""
    rank, size, count = comm.rank, comm.size, len(buffer)
    right, left = (rank + 1) % size, (rank - 1) % size

    def piece(number: int) -> Buffer:
        number %= size
        return buffer[number * count // size : (number + 1) * count // size]

    for step in range(size - 1):
        mine = piece(rank - step - 1)
        receiving = _receive(comm, scratch[: len(mine)], left)
        sending = _send(comm, piece(rank - step), right)
        _add(mine, scratch, receiving)
        MPI.Request.Waitall(sending)
    for step in range(size - 1):
        receiving = _receive(comm, piece(rank - step), left)
        sending = _send(comm, piece(rank - step + 1), right)
        MPI.Request.Waitall(receiving + sending)


def tree(comm: MPI.Intracomm, buffer: Buffer, scratch: Buffer) -> None:
    """Sum ``buffer`` ``(n,)`` to rank 0 and broadcast it; ``scratch`` holds n elements or more."""
    rank, size = comm.rank, comm.size
    own_bit = rank & -rank or 1 << (size - 1).bit_length()
    children = []
    distance = 1
    while distance < own_bit:
        if rank + distance < size:
            children.append(rank + distance)
        distance *= 2
    for child in children:
        _add(buffer, scratch, _receive(comm, scratch[: len(buffer)], child))
    if rank:
        parent = rank - own_bit
        MPI.Request.Waitall(_send(comm, buffer, parent))
        MPI.Request.Waitall(_receive(comm, buffer, parent))
    for child in reversed(children):
        MPI.Request.Waitall(_send(comm, buffer, child))


def _segments(buffer: Buffer) -> list[Buffer]:
    step = SEGMENT_BYTES // buffer.itemsize
    return [buffer[first : first + step] for first in range(0, len(buffer), step)]


def _receive(comm: MPI.Intracomm, into: Buffer, source: int) -> list[MPI.Request]:
    return [comm.Irecv(segment, source) for segment in _segments(into)]


def _send(comm: MPI.Intracomm, data: Buffer, to: int) -> list[MPI.Request]:
    return [comm.Isend(segment, to) for segment in _segments(data)]


def _add(mine: Buffer, scratch: Buffer, receiving: list[MPI.Request]) -> None:
    """Add each segment of ``scratch`` to ``mine`` as soon as it has arrived, in order."""
    arrived = _segments(scratch[: len(mine)])
    for target, segment, request in zip(_segments(mine), arrived, receiving, strict=True):
        request.Wait()
        np.add(target, segment, out=target)
