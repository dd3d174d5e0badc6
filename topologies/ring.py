"""Ring: p-1 rounds of reduce-scatter and p-1 of all-gather, each moving n/p to the next rank.

Bandwidth-optimal: every rank sends and receives 2n(p-1)/p, the least an all-reduce can; the price
is 2(p-1) latencies (Patarasuk and Yuan, JPDC 2009). Cost 2(p-1)*alpha + 2n(p-1)/p*beta +
n(p-1)/p*gamma.

* ``segments=C`` (default 1) runs C rings on n/C each, one round apart, so that up to C of them are
  in flight: adding one may hide behind the travel of the next, for C-1 more rounds.

Rounds 2(p-1)+C-1. Messages 2p(p-1)C. Any number of ranks.
"""

from fractions import Fraction

from commbench.compose import segmented, segmented_rounds, then
from commbench.schedule import (
    ClosedForm,
    Grid,
    Piece,
    Recv,
    Round,
    Schedule,
    Send,
    Terms,
)


def schedule(rank: int, size: int, *, segments: int = 1) -> Schedule:
    """Pass partial sums round the ring, then the finished pieces.

    Raises:
        ValueError: fewer than one segment.
    """
    return segmented(then(reduce_scatter(rank, size), all_gather(rank, size)), segments)


def finished(rank: int, size: int) -> Piece:
    """The piece of which a rank holds the sum after the reduce-scatter."""
    return Piece((rank + 1) % size, size)


def reduce_scatter(rank: int, size: int) -> Schedule:
    """Start with the piece of one's own number; after p-1 rounds the next one is finished."""
    return _round_trip(rank, size, first=rank, reduce=True)


def all_gather(rank: int, size: int) -> Schedule:
    """Start with the piece that `finished` tells; end with all of them."""
    return _round_trip(rank, size, first=rank + 1, reduce=False)


def _round_trip(rank: int, size: int, first: int, reduce: bool) -> Schedule:
    right, left = (rank + 1) % size, (rank - 1) % size
    pieces = [Piece((first - turn) % size, size) for turn in range(size)]
    return Schedule(
        tuple(
            Round((Send(pieces[turn], right), Recv(pieces[turn + 1], left, reduce)))
            for turn in range(size - 1)
        )
    )


def closed_form(size: int, *, segments: int = 1) -> ClosedForm:
    """Every rank carries the same 2(p-1)/p of the buffer."""
    share = Fraction(2 * (size - 1), size)
    return ClosedForm(
        rounds=segmented_rounds(2 * (size - 1), segments),
        messages=2 * size * (size - 1) * segments,
        sent=share,
        received=share,
        total=share * size,
    )


def terms(size: int, *, segments: int = 1) -> Terms | None:
    """The docstring's cost; of a pipeline it depends on which of the three counts most."""
    share = Fraction(size - 1, size)
    return Terms(Fraction(2 * (size - 1)), 2 * share, share) if segments == 1 else None


def symmetry(size: int, *, segments: int = 1) -> Grid:
    """All ranks are alike."""
    return Grid((size,), (1,))
