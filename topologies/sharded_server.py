"""Sharded parameter server: the buffer is cut into shards, and each has a server of its own.

What one server's link carried is spread over many (Dean et al., "Large Scale Distributed Deep
Networks", NIPS 2012; Li et al., "Scaling Distributed Machine Learning with the Parameter Server",
OSDI 2014). Ranks begin with different peers, so no server hears from everybody at once.

* ``servers=0`` (default): every worker serves one of p shards. As few bytes as the ring, but p-1
  messages a rank and round; all are in flight together, yet where ranks send one at a time, and
  receive one, the cost is 2(p-1)*alpha + 2n(p-1)/p*beta + n(p-1)/p*gamma, the ring's as well.
* ``servers=k``: ranks 0 to k-1 only serve, without data; the other w = p-k are workers. Cost, for
  w >= k, 2w*alpha + 2nw/k*beta + n(w-1)/k*gamma.

Rounds 2. Messages 2p(p-1) or 2wk. Every rank sends and receives 2n(p-1)/p; a worker n, a server
nw/k. Any number of ranks; with k servers at least k+1.
"""

from fractions import Fraction

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


def schedule(rank: int, size: int, *, servers: int = 0) -> Schedule:
    """Send each shard to its server, then each sum to every worker.

    All send upwards from their own place, so all hear from below first: so a server adds.

    Raises:
        ValueError: no such number of servers, or servers without a worker.
    """
    hosts, workers = _roles(size, servers)
    push: list[Send | Recv] = []
    pull: list[Send | Recv] = []
    if rank in workers:
        place = workers.index(rank)
        push += [Send(Piece(to, len(hosts)), to) for to in _upwards(place, hosts) if to != rank]
        pull += [
            Recv(Piece(host, len(hosts)), host, reduce=False)
            for host in _downwards(place, hosts, len(workers))
            if host != rank
        ]
    if rank in hosts:
        shard = Piece(rank, len(hosts))
        givers = [r for r in _downwards(rank, workers, len(hosts)) if r != rank]
        # A server without data holds nothing to add to: the first gradient takes its place.
        push += [Recv(shard, r, reduce=rank in workers or r != givers[0]) for r in givers]
        pull += [Send(shard, to) for to in _upwards(rank, workers) if to != rank]
    return Schedule((Round(tuple(push)), Round(tuple(pull))), contributes=rank in workers)


def _upwards(place: int, peers: range) -> list[int]:
    """The order to send in: the peer after one's own place first."""
    return [peers[(place + 1 + turn) % len(peers)] for turn in range(len(peers))]


def _downwards(place: int, peers: range, turns: int) -> list[int]:
    """The order in which peers that send upwards, in so many turns, come to one's own place."""
    return sorted(peers, key=lambda peer: (place - 1 - peers.index(peer)) % turns)


def closed_form(size: int, *, servers: int = 0) -> ClosedForm:
    """As the ring where everybody serves; else a server or a worker carries the most."""
    hosts, workers = _roles(size, servers)
    if servers == 0:
        busiest, pairs = Fraction(2 * (size - 1), size), size * (size - 1)
    else:
        busiest, pairs = max(Fraction(1), Fraction(len(workers), servers)), len(workers) * servers
    return ClosedForm(
        rounds=2 if size > 1 else 0,
        messages=2 * pairs,
        sent=busiest,
        received=busiest,
        total=Fraction(2 * pairs, len(hosts)),
    )


def terms(size: int, *, servers: int = 0) -> Terms | None:
    """The docstring's cost, where every worker serves."""
    if servers:
        return None
    share = Fraction(size - 1, size)
    return Terms(Fraction(2 * (size - 1)), 2 * share, share)


def symmetry(size: int, *, servers: int = 0) -> Grid | None:
    """All ranks are alike where every worker serves."""
    return None if servers else Grid((size,), (1,))


def _roles(size: int, servers: int) -> tuple[range, range]:
    """The ranks that serve a shard each, and the ranks that have data."""
    if servers == 0:
        return range(size), range(size)
    if servers < 0:
        raise ValueError(f"servers={servers}: give their number, or 0 to let every worker serve")
    if servers >= size:
        raise ValueError(
            f"servers={servers} leaves no worker: that takes at least {servers + 1} ranks, or "
            "servers=0, where every worker serves"
        )
    return range(servers), range(servers, size)
