"""Hierarchical: sum in groups, all-reduce over the groups' masters, broadcast in groups.

Jia et al. ("Highly Scalable Deep Learning Training System", arXiv 1807.11205, 2018): with m = p/k
groups of k, 4(k-1)+2(m-1) rounds where the ring has 2(p-1): at p = 1024 and k = 16, 186 instead of
2046. It takes the time of about 6n where the ring moves 2n, so it is for small buffers. Cost
(4(k-1)+2(m-1))*alpha + (4(k-1)/k+2(m-1)/m)*n*beta + ((k-1)/k+(m-1)/m)*n*gamma.

* ``group=k`` (default 0: the divisor of p nearest to sqrt(p/2), but not 1 or p; if p is prime, the
  nearest number). Where k does not divide p, the last group is smaller.
* ``inner=ring`` (default): the group reduce-scatters in a ring and its master, the first rank,
  gathers; afterwards the same backwards. ``inner=tree``: a binomial tree, of ceil(log2 k) rounds.
* ``outer=ring`` (default) or ``tree``: the exchange between the masters.

With both rings: rounds 4(k-1)+2(m-1), messages 2(k^2-1) in each group and 2m(m-1) outside, and a
master sends and receives 3n(k-1)/k + 2n(m-1)/m. Any number of ranks.
"""

from fractions import Fraction
from math import sqrt
from typing import Literal

from commbench.compose import IDLE, backwards, lasting, on_ranks, then
from commbench.schedule import ClosedForm, Recv, Round, Schedule, Send
from commbench.topologies import ring, tree

OUTER = {"ring": ring, "tree": tree}
Inner = Literal["ring", "tree"]
Outer = Literal["ring", "tree"]


def schedule(
    rank: int, size: int, *, group: int = 0, inner: Inner = "ring", outer: Outer = "ring"
) -> Schedule:
    """Groups are neighbours: ranks 0 to k-1, k to 2k-1 and so on.

    Raises:
        ValueError: a negative group.
    """
    width = group_size(size, group)
    number, place = divmod(rank, width)
    members = range(size)[number * width : (number + 1) * width]
    masters = range(0, size, width)
    reduce = tree.reduce if inner == "tree" else _reduce
    up = lasting(
        on_ranks(reduce(place, len(members)), members), rounds=len(reduce(0, width).rounds)
    )
    across = on_ranks(OUTER[outer].schedule(number, len(masters)), masters)
    return then(up, lasting(IDLE, len(across.rounds)) if place else across, backwards(up))


def _reduce(place: int, size: int) -> Schedule:
    """Leave a group's sum on its master: a ring, then one piece after the other."""
    gather = [Recv(ring.finished(giver, size), giver, reduce=False) for giver in range(1, size)]
    if place:
        mine = Send(ring.finished(place, size), to=0)
        rounds = [Round((mine,) if recv.source == place else ()) for recv in gather]
    else:
        rounds = [Round((recv,)) for recv in gather]
    return then(ring.reduce_scatter(place, size), Schedule(tuple(rounds)))


def closed_form(
    size: int, *, group: int = 0, inner: Inner = "ring", outer: Outer = "ring"
) -> ClosedForm:
    """What the groups cost, twice, and what the masters cost; a master carries the most."""
    width = group_size(size, group)
    groups = [min(width, size - first) for first in range(0, size, width)]
    across: ClosedForm = OUTER[outer].closed_form(len(groups))
    if inner == "tree":
        rounds, busiest = tree.height(width), Fraction(tree.height(width))
        messages, total = size - len(groups), Fraction(size - len(groups))
    else:
        rounds, busiest = 2 * (width - 1), Fraction(3 * (width - 1), width)
        messages = sum(k * k - 1 for k in groups)
        total = sum((Fraction(k * k - 1, k) for k in groups), Fraction(0))
    return ClosedForm(
        rounds=2 * rounds + across.rounds,
        messages=2 * messages + across.messages,
        sent=busiest + across.sent,
        received=busiest + across.received,
        total=2 * total + across.total,
    )


def group_size(size: int, group: int) -> int:
    """The number of ranks k of a group, all but perhaps the last: `group`, or its default."""
    if group < 0:
        raise ValueError(f"group={group}: give the number of ranks of a group, or 0 to choose it")
    if group:
        return min(group, size)
    divisors = [k for k in range(2, size) if size % k == 0]
    return min(divisors or [round(sqrt(size / 2))], key=lambda k: abs(k - sqrt(size / 2)))
