"""Hierarchical: sum in groups, all-reduce over the groups' masters, broadcast in groups.

Jia et al. ("Highly Scalable Deep Learning Training System", arXiv 1807.11205, 2018): with m = p/k
groups of k, 4(k-1)+2(m-1) rounds where the ring has 2(p-1): at p = 1024 and k = 16, 186 instead of
2046. It takes the time of about 6n where the ring moves 2n, so it is for small buffers. Cost
(4(k-1)+2(m-1))*alpha + (4(k-1)/k+2(m-1)/m)*n*beta + ((k-1)/k+(m-1)/m)*n*gamma.

* ``group=k`` (default 0: the divisor of p nearest to sqrt(p/2), but not 1 or p; if p is prime, the
  nearest number): k neighbours each. Where k does not divide p, the last group is smaller.
  ``group=node``: the ranks of each node. ``group=0-3/4-6``, ``0+2/1+3``: these ranks.
* ``inner=ring`` (default): the group reduce-scatters in a ring and its master, the first rank,
  gathers; afterwards the same backwards. ``inner=tree``: a binomial tree, of ceil(log2 k) rounds.
  ``inner=parameter-server``: all send to the master at once.
* ``outer=ring`` (default): the exchange between the masters, or any other of `OUTER`.

With both rings: rounds 4(k-1)+2(m-1), messages 2(k^2-1) in each group and 2m(m-1) outside, and a
master sends and receives 3n(k-1)/k + 2n(m-1)/m. Any number of ranks; ``outer=halving-doubling``
needs a power of two of groups.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt
from types import ModuleType
from typing import Literal

from commbench.compose import IDLE, backwards, lasting, on_ranks, then
from commbench.groups import Groups
from commbench.schedule import ClosedForm, Grid, Recv, Round, Schedule, Send, Terms
from commbench.topologies import (
    binary_blocks,
    double_tree,
    halving_doubling,
    parameter_server,
    recursive_doubling,
    ring,
    sharded_server,
    torus,
    tree,
)

_OUTER = (
    *(ring, tree, double_tree, halving_doubling, binary_blocks, recursive_doubling),
    *(torus, sharded_server, parameter_server),
)
OUTER = {one.__name__.rpartition(".")[2].replace("_", "-"): one for one in _OUTER}
Inner = Literal["ring", "tree", "parameter-server"]
OPEN = Groups(0)


def schedule(
    rank: int, size: int, *, group: Groups = OPEN, inner: Inner = "ring", outer: str = "ring"
) -> Schedule:
    """All groups take as many rounds as the largest.

    Raises:
        ValueError: groups that do not have each rank once, or too many or few for `outer`.
    """
    groups = settle(size, group).of(size)
    number, members = next((at, ranks) for at, ranks in enumerate(groups) if rank in ranks)
    place = members.index(rank)
    widest = max(map(len, groups))
    up = lasting(
        on_ranks(_reduce(inner, place, len(members)), members),
        rounds=len(_reduce(inner, 0, widest).rounds),
    )
    exchange = _between(outer, len(groups), size)
    across = on_ranks(exchange.schedule(number, len(groups)), [ranks[0] for ranks in groups])
    return then(up, lasting(IDLE, len(across.rounds)) if place else across, backwards(up))


def _reduce(inner: Inner, place: int, size: int) -> Schedule:
    """Leave a group's sum on its master."""
    if inner == "tree":
        return tree.reduce(place, size)
    if inner == "parameter-server":
        return Schedule(parameter_server.schedule(place, size).rounds[:1])
    # A ring, then one piece after the other.
    gather = [Recv(ring.finished(giver, size), giver, reduce=False) for giver in range(1, size)]
    if place:
        mine = Send(ring.finished(place, size), to=0)
        rounds = [Round((mine,) if recv.source == place else ()) for recv in gather]
    else:
        rounds = [Round((recv,)) for recv in gather]
    return then(ring.reduce_scatter(place, size), Schedule(tuple(rounds)))


def _between(outer: str, groups: int, size: int) -> ModuleType:
    """The exchange between so many masters."""
    if outer not in OUTER:
        raise ValueError(f"outer={outer} is not one of {', '.join(OUTER)}")
    exchange = OUTER[outer]

    def refusal(masters: int) -> str | None:
        try:
            exchange.schedule(0, masters)
        except ValueError as error:
            return str(error)
        return None

    if why := refusal(groups):
        made = {-(-size // width): width for width in range(size - 1, 0, -1)}
        fitting = [f"group={width}" for masters, width in made.items() if not refusal(masters)]
        told = f"outer={outer} between {groups} groups {why}"
        raise ValueError(f"{told}: give {', '.join(fitting)} or another outer")
    return exchange


def closed_form(
    size: int, *, group: Groups = OPEN, inner: Inner = "ring", outer: str = "ring"
) -> ClosedForm | None:
    """What the groups cost, twice, and what the masters cost; a master carries the most.

    None where groups other than the last differ in size: who carries the most depends on where the
    large ones stand.
    """
    groups = [len(ranks) for ranks in settle(size, group).of(size)]
    width = groups[0]
    if any(other != width for other in groups[:-1]) or groups[-1] > width:
        return None
    across: ClosedForm = _between(outer, len(groups), size).closed_form(len(groups))
    rounds, busiest = _busiest(inner, width)
    messages, total = _volume(inner, groups)
    return ClosedForm(
        rounds=2 * rounds + across.rounds,
        messages=2 * messages + across.messages,
        sent=busiest + across.sent,
        received=busiest + across.received,
        total=2 * total + across.total,
    )


def terms(
    size: int, *, group: Groups = OPEN, inner: Inner = "ring", outer: str = "ring"
) -> Terms | None:
    """The docstring's cost, for rings and equal groups."""
    groups = [len(ranks) for ranks in settle(size, group).of(size)]
    if inner != "ring" or outer != "ring" or len(set(groups)) > 1:
        return None
    across = ring.terms(len(groups))
    assert across is not None
    inside = Fraction(groups[0] - 1, groups[0])
    return Terms(
        4 * (groups[0] - 1) + across.alpha, 4 * inside + across.beta, inside + across.gamma
    )


def symmetry(
    size: int, *, group: Groups = OPEN, inner: Inner = "ring", outer: str = "ring"
) -> Grid | None:
    """Equal groups of neighbours are alike where their masters are."""
    groups = settle(size, group).of(size)
    width = len(groups[0])
    exchange = _between(outer, len(groups), size)
    neighbours = [rank for ranks in groups for rank in ranks] == list(range(size))
    if not neighbours or any(len(ranks) != width for ranks in groups):
        return None
    if not hasattr(exchange, "symmetry"):
        return None
    grid: Grid | None = exchange.symmetry(len(groups))
    return grid and Grid((*grid.dims, width), (*grid.steps, width))


def _busiest(inner: Inner, width: int) -> tuple[int, Fraction]:
    """Rounds of a group, and the buffers that its master receives and then sends."""
    if inner == "tree":
        return tree.height(width), Fraction(tree.height(width))
    if inner == "parameter-server":
        return int(width > 1), Fraction(width - 1)
    return 2 * (width - 1), Fraction(3 * (width - 1), width)


def _volume(inner: Inner, groups: Sequence[int]) -> tuple[int, Fraction]:
    """Messages and buffers of all groups, in one direction."""
    if inner == "ring":
        messages = [width * width - 1 for width in groups]
        shares = [Fraction(count, width) for count, width in zip(messages, groups, strict=True)]
        return sum(messages), sum(shares, Fraction(0))
    members = sum(groups) - len(groups)
    return members, Fraction(members)


def settle(size: int, group: Groups) -> Groups:
    """The groups, with the default in the place of 0."""
    if not group.open:
        return group
    divisors = [k for k in range(2, size) if size % k == 0]
    near = divisors or [round(sqrt(size / 2))]
    return Groups(min(near, key=lambda k: abs(k - sqrt(size / 2))))
