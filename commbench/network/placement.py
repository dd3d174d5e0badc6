"""Which node every rank of a job is on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.network.cluster import Cluster, Layout

PLACES = ("block", "round-robin", "random")


def place_ranks(cluster: Cluster, ranks: int, place: str = "block", seed: int = 0) -> list[int]:
    """The node of every rank, numbered as in the layout.

    Nodes beside each other have numbers beside each other: along a torus' first dimension, under
    one switch of a fat tree, in one group of a dragonfly. These are its neighbourhoods.

    Args:
        cluster: each of its nodes takes `ranks_per_node`.
        ranks: how many; as few nodes are used as hold them.
        place: ``block`` fills one node after another; ``round-robin`` deals ranks out one by one,
            to nodes that are themselves dealt out over as few neighbourhoods as hold them;
            ``random`` fills nodes drawn from the whole cluster, as a scheduler may leave them.
        seed: of the drawing.

    Raises:
        UserError: the cluster is smaller, there is no rank, or no such way to place them.
    """
    block = cluster.nodes(ranks)
    count = block[-1] + 1
    if place == "block":
        return block
    if place == "round-robin":
        dealt = _dealt(count, _neighbours(cluster.layout))
        return [dealt[rank % count] for rank in range(ranks)]
    if place == "random":
        drawn = random.Random(seed).sample(range(cluster.layout.nodes or count), count)
        return [drawn[node] for node in block]
    raise UserError(f"no placement {place!r}: choose from {', '.join(PLACES)}")


def renumbered(nodes: Sequence[int]) -> list[int]:
    """The same with nodes numbered from 0 as they come; what a price depends on."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(node, len(numbers)) for node in nodes]


def _neighbours(layout: Layout) -> int:
    """How many nodes make a neighbourhood."""
    if layout.kind == "torus":
        return layout.dims[0]
    if layout.kind == "fat-tree":
        return layout.down[0]
    if layout.kind == "dragonfly":
        return layout.chassis[0] * layout.routers[0] * layout.router_nodes
    return 1


def _dealt(count: int, width: int) -> list[int]:
    """So many nodes, one of each neighbourhood in turn."""
    neighbourhoods = -(-count // width)
    return [at % neighbourhoods * width + at // neighbourhoods for at in range(count)]
