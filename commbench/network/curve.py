"""The time of one exchange over the size of its buffer, from as few prices as are needed.

Where every port has one rank, a chain of messages takes a time linear in the size, and the price is
the longest chain's: so between two sizes it lies under the line from one to the other, and above
the chains that were longest there. Where these agree nothing new is played. Where ranks share ports
that holds nearly, as who comes first may change with the size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from commbench.network.cluster import Cluster
from commbench.network.cost import price
from commbench.registry import Choice

_TOLERANCE = 0.005  # of the price


class Curve:
    """Seconds of an exchange on a cluster, by the bytes of its buffer."""

    def __init__(self, choice: Choice, ranks: int, cluster: Cluster) -> None:
        """Of any exchange that `price` takes."""
        self.choice = choice.scheduled(ranks).placed(cluster.nodes(ranks))
        self.ranks = ranks
        self.cluster = cluster
        # By part of a choice by size: sizes in order, and seconds and seconds a byte there.
        self._known: dict[str, list[tuple[float, float, float]]] = {}

    def of(self, sizes: Iterable[float]) -> dict[float, float]:
        """Seconds by size."""
        wanted = sorted(set(sizes))
        return {wanted[at]: self.seconds(wanted[at]) for at in _halving(len(wanted))}

    def seconds(self, n_bytes: float) -> float:
        """Of one size, to half a per cent; exact where nothing is known around it.

        Raises:
            UserError: as `price`.
        """
        part = self.choice.for_bytes(int(n_bytes), self.ranks)
        known = self._known.setdefault(part.spec, [])
        at = bisect_left(known, (n_bytes,))
        if at < len(known) and known[at][0] == n_bytes:
            return known[at][1]
        if 0 < at < len(known):
            low, high = _bounds(known[at - 1], known[at], n_bytes)
            if high - low <= _TOLERANCE * high:
                return (low + high) / 2
        told = price(part, self.ranks, n_bytes, self.cluster)
        slope = (told.transfer_s + told.reduce_s) / n_bytes if n_bytes else 0.0
        known.insert(at, (n_bytes, told.seconds, slope))
        return told.seconds


def _halving(count: int) -> list[int]:
    """Both ends first, then the middle, then the middles of both halves, and so on."""
    order = [0, count - 1][:count]
    gaps = [(0, count - 1)]
    for low, high in gaps:
        middle = (low + high) // 2
        if low < middle:
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return order


def _bounds(
    left: tuple[float, float, float], right: tuple[float, float, float], size: float
) -> tuple[float, float]:
    """Least and most of a convex function between two points at which its value is known."""
    chord = left[1] + (right[1] - left[1]) * (size - left[0]) / (right[0] - left[0])
    low = max(point[1] + point[2] * (size - point[0]) for point in (left, right))
    return min(low, chord), chord
