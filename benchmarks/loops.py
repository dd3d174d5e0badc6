"""Ring and tree straight on mpi4py, as somebody would write them by hand: what an engine may cost.

The same rounds and pieces as `commbench.topologies.ring` and `tree` without options. Every receive
is posted before the send of its round; scratch memory is made once, outside; sums are NumPy's; and
the waits are the library's own. Messages go out whole: cut into segments of 1 MiB that are added as
they come, both loops were as fast or slower here (docs/PERFORMANCE.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

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
        arrived = scratch[: len(mine)]
        receiving = comm.Irecv(arrived, left)
        sending = comm.Isend(piece(rank - step), right)
        receiving.Wait()
        np.add(mine, arrived, out=mine)
        sending.Wait()
    for step in range(size - 1):
        receiving = comm.Irecv(piece(rank - step), left)
        sending = comm.Isend(piece(rank - step + 1), right)
        receiving.Wait()
        sending.Wait()


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
    arrived = scratch[: len(buffer)]
    for child in children:
        comm.Irecv(arrived, child).Wait()
        np.add(buffer, arrived, out=buffer)
    if rank:
        parent = rank - own_bit
        comm.Isend(buffer, parent).Wait()
        comm.Irecv(buffer, parent).Wait()
    for child in reversed(children):
        comm.Isend(buffer, child).Wait()
