"""Binomial tree: reduce to rank 0, then broadcast from it.

FireCaffe's reduction tree (Iandola et al., CVPR 2016, section 4.2). With h = ceil(log2 p), the root
takes part in every one of the 2h rounds, a whole buffer each: time grows with log2 p where the
parameter server's grows with p. Cost 2h*alpha + 2h*n*beta + h*n*gamma.

* ``segments=C`` (default 1) sends n/C at a time, C of them in a pipeline, so that the reduction of
  one runs beside the broadcast of another; the root still moves h*n each way.

Rounds 2h+C-1. Messages 2(p-1)C. The root sends and receives h*n. Any number of ranks.
"""

from collections.abc import Iterable
from fractions import Fraction

from commbench.compose import backwards, segmented, segmented_rounds, then
from commbench.schedule import WHOLE, ClosedForm, Recv, Round, Schedule, Send, Terms


def schedule(rank: int, size: int, *, segments: int = 1) -> Schedule:
    """Send to the parent once the children's sums are in; take the total back the same way.

    Raises:
        ValueError: fewer than one segment.
    """
    up = reduce(rank, size)
    return segmented(then(up, backwards(up)), segments)


def reduce(rank: int, size: int) -> Schedule:
    """Leave the sum on rank 0: the parent of a rank has its bits without the lowest."""
    reach = lowest_bit(rank) or size
    distances = (1 << level for level in range((reach - 1).bit_length()))
    children = [rank + distance for distance in distances if rank + distance < size]
    return upwards(rank, size, rank - lowest_bit(rank), children)


def upwards(rank: int, size: int, parent: int, children: Iterable[int]) -> Schedule:
    """Reduce along any tree of root 0 in which a parent's lowest bit is above its children's.

    Rank r sends in round log2(lowest_bit(r)); by then its children have sent.
    """
    ops: list[list[Send | Recv]] = [[] for _ in range(height(size))]
    for child in children:
        ops[lowest_bit(child).bit_length() - 1].append(Recv(WHOLE, child))
    if rank:
        ops[lowest_bit(rank).bit_length() - 1].append(Send(WHOLE, parent))
    return Schedule(tuple(Round(tuple(turn)) for turn in ops))


def lowest_bit(rank: int) -> int:
    """The lowest power of two in the binary form of a rank; 0 for rank 0."""
    return rank & -rank


def height(size: int) -> int:
    """Rounds of a reduction: ceil(log2 p)."""
    return (size - 1).bit_length()


def closed_form(size: int, *, segments: int = 1) -> ClosedForm:
    """2*ceil(log2 p) rounds of whole buffers through the root."""
    return ClosedForm(
        rounds=segmented_rounds(2 * height(size), segments),
        messages=2 * (size - 1) * segments,
        sent=Fraction(height(size)),
        received=Fraction(height(size)),
        total=Fraction(2 * (size - 1)),
    )


def terms(size: int, *, segments: int = 1) -> Terms | None:
    """The docstring's cost; of a pipeline it depends on which of the three counts most."""
    if segments > 1:
        return None
    rounds = Fraction(height(size))
    return Terms(2 * rounds, 2 * rounds, rounds)
