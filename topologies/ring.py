"""Ring: p-1 rounds of reduce-scatter and p-1 of all-gather, each moving n/p to the next rank.

Bandwidth-optimal: every rank sends and receives 2n(p-1)/p, the least an all-reduce can; the price
is 2(p-1) latencies (Patarasuk and Yuan, JPDC 2009). Cost 2(p-1)*alpha + 2n(p-1)/p*beta +
n(p-1)/p*gamma.

Rounds 2(p-1). Messages 2p(p-1). Any number of ranks.
"""

from fractions import Fraction

from commbench.schedule import ClosedForm, Piece, Recv, Round, Schedule, Send


def schedule(rank: int, size: int) -> Schedule:
    """Pass partial sums round the ring, then the finished pieces."""
    right, left = (rank + 1) % size, (rank - 1) % size
    rounds = []
    for turn in range(2 * (size - 1)):
        # Rank r starts with piece r; after size-1 rounds it has finished piece r+1.
        send, recv = Piece((rank - turn) % size, size), Piece((rank - turn - 1) % size, size)
        rounds.append(Round((Send(send, right), Recv(recv, left, reduce=turn < size - 1))))
    return Schedule(tuple(rounds))


def closed_form(size: int) -> ClosedForm:
    """Every rank carries the same 2(p-1)/p of the buffer."""
    share = Fraction(2 * (size - 1), size)
    return ClosedForm(
        rounds=2 * (size - 1),
        messages=2 * size * (size - 1),
        sent=share,
        received=share,
        total=share * size,
    )
