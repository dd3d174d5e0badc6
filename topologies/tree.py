"""Binomial tree: reduce to rank 0, then broadcast from it.

FireCaffe's reduction tree (Iandola et al., CVPR 2016, section 4.2). With h = ceil(log2 p), the root
takes part in every one of the 2h rounds, a whole buffer each: time grows with log2 p where the
parameter server's grows with p. Cost 2h*alpha + 2h*n*beta + h*n*gamma.

Rounds 2h. Messages 2(p-1). The root sends and receives h*n. Any number of ranks.
"""

from fractions import Fraction

from commbench.schedule import WHOLE, ClosedForm, Recv, Round, Schedule, Send


def schedule(rank: int, size: int) -> Schedule:
    """Send to the parent once the children's sums are in; take the total back the same way."""
    children = []
    distance = 1
    while distance < size and not rank & distance:
        if rank + distance < size:
            children.append(rank + distance)
        distance *= 2
    reduce = [Round((Recv(WHOLE, child),)) for child in children]
    broadcast = [Round((Send(WHOLE, child),)) for child in reversed(children)]
    if rank == 0:
        return Schedule((*reduce, *broadcast))
    parent = rank - distance
    up = Round((Send(WHOLE, parent),))
    down = Round((Recv(WHOLE, parent, reduce=False),))
    return Schedule((*reduce, up, down, *broadcast))


def closed_form(size: int) -> ClosedForm:
    """2*ceil(log2 p) rounds of whole buffers through the root."""
    height = (size - 1).bit_length()
    return ClosedForm(
        rounds=2 * height,
        messages=2 * (size - 1),
        sent=Fraction(height),
        received=Fraction(height),
        total=Fraction(2 * (size - 1)),
    )
