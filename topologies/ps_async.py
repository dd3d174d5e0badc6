"""Asynchronous parameter server: workers do not wait for each other, or only so far.

A worker pushes its gradient to the servers, each of which keeps a shard of the weights with its
optimizer, and pulls the weights to go on with. There is no schedule: who comes first is served
first (Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012, Downpour SGD). A worker may
begin step t only when every worker's gradient of step t-1-s has been applied (Ho et al., "More
Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013).

* ``staleness=s`` (default 1): with 0 the result is bitwise that of ``sharded-server@servers=k``,
  and with ``inf`` there is no bound.
* ``servers=k`` (default 1): ranks 0 to k-1 only serve, without data; the others are workers.

Each step moves what a step of ``sharded-server@servers=k`` moves, whatever the staleness. At least
k+1 ranks. docs/ARCHITECTURE.md tells the rules of updates, and `commbench.asynchronous` runs it.
"""

from typing import Literal

from commbench.units import Staleness


def synchronous(
    size: int,
    *,
    servers: int = 1,
    staleness: Staleness = Staleness(1),  # noqa: B008
    server: Literal["dedicated", "colocated"] = "dedicated",
) -> str:
    """The exchange that this one is with staleness 0.

    Raises:
        ValueError: no such number of servers, servers without a worker, or colocated ones.
    """
    if server == "colocated":
        raise ValueError(
            "a rank cannot serve at any moment while it computes its own gradients, so servers "
            "are dedicated: give --servers k, and k more ranks"
        )
    if servers < 1:
        raise ValueError(f"servers={servers}: it takes at least 1, and they are dedicated")
    if servers >= size:
        raise ValueError(
            f"servers={servers} leaves no worker: that takes at least {servers + 1} ranks"
        )
    return f"sharded-server@servers={servers}"
