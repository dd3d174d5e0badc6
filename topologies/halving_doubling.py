"""Recursive halving and doubling: swap halves, quarters, eighths ..., then the same backwards.

The reduce-scatter and all-gather of Rabenseifner ("Optimization of Collective Reduction
Operations", ICCS 2004): in round t every rank swaps with the rank whose number differs in bit t, so
distances double as pieces halve. As few bytes as the ring, in 2*log2 p rounds instead of 2(p-1).
Cost 2*log2(p)*alpha + 2n(p-1)/p*beta + n(p-1)/p*gamma.

The first halves go by bit 0, so a rank ends with the piece of its number with the bits reversed.

Rounds 2*log2 p. Messages 2p*log2 p. Every rank sends and receives 2n(p-1)/p. Powers of two only;
``binary-blocks`` takes any number of ranks.
"""

from fractions import Fraction

from commbench.compose import backwards, then
from commbench.schedule import (
    WHOLE,
    ClosedForm,
    Grid,
    Piece,
    Recv,
    Round,
    Schedule,
    Send,
    Terms,
)


def schedule(rank: int, size: int) -> Schedule:
    """Scatter the sum over the ranks by halving, gather it by doubling.

    Raises:
        ValueError: the number of ranks is not a power of two.
    """
    scatter = reduce_scatter(rank, size)
    return then(scatter, backwards(scatter))


def reduce_scatter(rank: int, size: int) -> Schedule:
    """In round t, give one half of what is left to rank ^ 2**t and keep the other.

    Raises:
        ValueError: the number of ranks is not a power of two.
    """
    rounds, left = [], WHOLE
    for level in range(_levels(size)):
        peer = rank ^ 1 << level
        keep, give = (Piece(2 * left.index + (r >> level & 1), 2 * left.of) for r in (rank, peer))
        rounds.append(Round((Send(give, peer), Recv(keep, peer))))
        left = keep
    return Schedule(tuple(rounds))


def finished(rank: int, size: int) -> Piece:
    """The piece of which a rank holds the sum after the reduce-scatter."""
    bits = range(_levels(size))
    return Piece(sum((rank >> bit & 1) << bits[-1 - bit] for bit in bits), size)


def closed_form(size: int) -> ClosedForm:
    """Every rank carries the same 2(p-1)/p of the buffer."""
    share = Fraction(2 * (size - 1), size)
    return ClosedForm(
        rounds=2 * _levels(size),
        messages=2 * size * _levels(size),
        sent=share,
        received=share,
        total=share * size,
    )


def terms(size: int) -> Terms:
    """The docstring's cost."""
    share = Fraction(size - 1, size)
    return Terms(Fraction(2 * _levels(size)), 2 * share, share)


def symmetry(size: int) -> Grid:
    """All ranks are alike: any bit of all their numbers may be flipped."""
    return Grid((2,) * _levels(size), (1,) * _levels(size))


def _levels(size: int) -> int:
    """log2 p."""
    below = size.bit_length() - 1
    if size != 1 << below:
        raise ValueError(f"works on powers of two: {1 << below} or {2 << below}, not {size} ranks")
    return below
