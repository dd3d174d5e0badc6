"""One parameter server: it gathers and adds every worker's gradient, then sends the sum to each.

With p ranks and a buffer of n bytes the server's link carries (p-1)n in and (p-1)n out: time grows
linearly in p. That is the FireCaffe paper's case against it (Iandola et al., CVPR 2016, section
4.2, which counts one direction only).

* ``server=colocated`` (default): rank 0 is a worker as well and adds to its own gradient.
* ``server=dedicated``: rank 0 only serves; it has no data and contributes nothing.

Rounds 2. Messages 2(p-1). The server sends and receives (p-1)n, a worker n each way. Any number of
ranks; a dedicated server needs at least two.
"""

from fractions import Fraction
from typing import Literal

from commbench.schedule import WHOLE, ClosedForm, Recv, Round, Schedule, Send, Terms

SERVER = 0


def schedule(
    rank: int, size: int, *, server: Literal["colocated", "dedicated"] = "colocated"
) -> Schedule:
    """Gather to rank 0, then send the sum to every other rank.

    Raises:
        ValueError: a dedicated server without a worker.
    """
    dedicated = server == "dedicated"
    if dedicated and size < 2:
        raise ValueError("a dedicated server needs at least 2 ranks, one of them a worker")
    if size == 1:
        return Schedule(rounds=())
    if rank != SERVER:
        return Schedule(
            (Round((Send(WHOLE, SERVER),)), Round((Recv(WHOLE, SERVER, reduce=False),)))
        )
    # A dedicated server holds nothing to add to: the first gradient takes the buffer's place.
    gather = Round(
        tuple(Recv(WHOLE, worker, reduce=not dedicated or worker > 1) for worker in range(1, size))
    )
    publish = Round(tuple(Send(WHOLE, worker) for worker in range(1, size)))
    return Schedule((gather, publish), contributes=not dedicated)


def closed_form(
    size: int, *, server: Literal["colocated", "dedicated"] = "colocated"
) -> ClosedForm:
    """The server's link carries everything."""
    others = size - 1
    return ClosedForm(
        rounds=2 if others else 0,
        messages=2 * others,
        sent=Fraction(others),
        received=Fraction(others),
        total=Fraction(2 * others),
    )


def terms(size: int, *, server: Literal["colocated", "dedicated"] = "colocated") -> Terms:
    """The server's port carries one message after the other, in and then out."""
    added = max(0, size - 1 - (server == "dedicated"))
    return Terms(Fraction(2 * (size - 1)), Fraction(2 * (size - 1)), Fraction(added))
