"""Double binary tree: two trees, each for half of the buffer, both at once and in a pipeline.

Whoever has children in one tree is a leaf in the other (at odd p, one rank is inside both), so no
rank moves more than 2n each way: about the bandwidth of a ring with the latency of a tree. Sanders,
Speck and Traeff (Parallel Computing 35, 2009); NCCL 2.4 brought it to GPUs. With h = ceil(log2 p),
about (2h+C-1)*(alpha + 2n/C*beta + n/C*gamma).

In the first tree the ranks stand in order, odd ones as leaves: moving a rank's lowest bit up by one
gives its parent, or removing it, where there is no such rank. Rank 0 is above all. The second tree
is the mirror image, rank p-1-r in the place of r, or at odd p the first moved on by one rank.

* ``segments=C`` (default 4): chunks of each half.

Rounds 2h+C-1. Messages 4(p-1)C. The busiest rank sends and receives 2n (at p = 2 n, at 3 1.5n).
Any number of ranks.
"""

from fractions import Fraction

from commbench.compose import (
    backwards,
    on_ranks,
    segmented,
    segmented_rounds,
    then,
    together,
    within,
)
from commbench.schedule import ClosedForm, Piece, Schedule
from commbench.topologies import tree


def schedule(rank: int, size: int, *, segments: int = 4) -> Schedule:
    """Reduce and broadcast half of the buffer along either tree.

    Raises:
        ValueError: fewer than one segment.
    """
    mirrored, moved = range(size)[::-1], [*range(1, size), 0]
    halves = []
    for half, ranks in enumerate([range(size), moved if size % 2 else mirrored]):
        up = on_ranks(_reduce(ranks.index(rank), size), ranks)
        halves.append(within(segmented(then(up, backwards(up)), segments), Piece(half, 2)))
    return together(*halves)


def _reduce(rank: int, size: int) -> Schedule:
    """Leave the sum on rank 0, along the tree in order."""
    bit = tree.lowest_bit(rank)
    above = (rank - bit) | (2 * bit)
    parent = above if above < size else rank - bit
    # Below: rank - bit/2, and of rank + bit/2, rank + bit/4 ... the first to exist.
    reach = bit or 2 ** tree.height(size)
    steps = [reach >> level for level in range(1, reach.bit_length())]
    left = [rank - step for step in steps[:1] if rank]
    right = [rank + step for step in steps if rank + step < size][:1]
    return tree.upwards(rank, size, parent, left + right)


def closed_form(size: int, *, segments: int = 4) -> ClosedForm:
    """Twice the buffer for a rank with two children and a parent here, and one more parent there.

    Half of the buffer goes over each of its links, both ways; from p = 4 on, rank 2 is such a rank.
    """
    busiest = Fraction(min(size, 4), 2) if size > 1 else Fraction(0)
    return ClosedForm(
        rounds=segmented_rounds(2 * tree.height(size), segments),
        messages=4 * (size - 1) * segments,
        sent=busiest,
        received=busiest,
        total=Fraction(2 * (size - 1)),
    )
