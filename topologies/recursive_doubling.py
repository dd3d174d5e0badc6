"""Recursive doubling: swap whole buffers with rank ^ 1, rank ^ 2, rank ^ 4 ..., adding each time.

The fewest rounds, for buffers so small that only latency counts; the bytes grow with log2 p
(Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH",
IJHPCA 19, 2005). With L = floor(log2 p), cost L*(alpha + n*beta + n*gamma). Where p is not a power
of two, the surplus ranks, from 2**L on, give their buffers to ranks 0, 1, 2 ... before, and get the
sum afterwards: 2*alpha + 2n*beta + n*gamma more.

Rounds L or, with a surplus, L+2. Messages L * 2**L + 2(p - 2**L). The busiest rank sends and
receives L*n or (L+1)*n. Any number of ranks.
"""

from fractions import Fraction

from commbench.compose import backwards, lasting, then
from commbench.schedule import WHOLE, ClosedForm, Grid, Recv, Round, Schedule, Send, Terms
from commbench.topologies import halving_doubling


def schedule(rank: int, size: int) -> Schedule:
    """Fold the surplus ranks in, swap with rank ^ 1, rank ^ 2 ..., and send the sum back out."""
    levels = size.bit_length() - 1
    inside = 1 << levels
    fold: tuple[Round, ...] = ()
    if rank >= inside:
        fold = (Round((Send(WHOLE, rank - inside),)),)
    elif rank + inside < size:
        fold = (Round((Recv(WHOLE, rank + inside),)),)
    swaps = tuple(
        Round((Send(WHOLE, rank ^ 1 << level), Recv(WHOLE, rank ^ 1 << level)))
        for level in range(levels)
        if rank < inside
    )
    around = lasting(Schedule(fold), int(size > inside))
    return then(around, lasting(Schedule(swaps), levels), backwards(around))


def closed_form(size: int) -> ClosedForm:
    """L whole buffers, and one more for a rank that a surplus rank gave its own."""
    levels = size.bit_length() - 1
    surplus = size - (1 << levels)
    messages = levels * (1 << levels) + 2 * surplus
    busiest = Fraction(levels + (surplus > 0))
    return ClosedForm(
        rounds=levels + 2 * (surplus > 0),
        messages=messages,
        sent=busiest,
        received=busiest,
        total=Fraction(messages),
    )


def terms(size: int) -> Terms:
    """The docstring's cost."""
    levels = size.bit_length() - 1
    surplus = size > 1 << levels
    busiest = Fraction(levels + 2 * surplus)
    return Terms(busiest, busiest, Fraction(levels + surplus))


def symmetry(size: int) -> Grid | None:
    """All ranks are alike on a power of two."""
    return halving_doubling.symmetry(size) if size.bit_count() == 1 else None
