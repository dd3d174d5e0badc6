"""A cluster as SimGrid's platform: every rank a host, every node a zone, wired as in the layout.

Nodes are joined by SimGrid's own zones, with their routing: shortest way round in each dimension of
a torus in turn, D-mod-k in a fat tree, minimal in a dragonfly. A star's switch is ideal.

A message between nodes crosses its node's port, the network, and the other node's port; each port
is a link in either direction, of the cluster's bandwidth between nodes and half its latency. Links
of the network have that bandwidth too (a dragonfly's as many times as the layout says), and no
latency: so a message that meets no other takes what it costs in `network.cost`, however far it
goes. Within a node every rank has such a port of its own.

Behind its port a node has one more host, and where ranks share it another behind theirs: buffers
for messages that leave before they may come in. The way to a buffer has the port to send by, the
way from there the network and the port to receive by. Either has the latency of a whole message,
for in `network.cost` that is how long a message holds either port.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commbench.errors import UserError
from commbench.network.cluster import Cluster, Layout, Link

# CM02 shares each link fairly and corrects nothing: a cluster's figures are what MPI sees already,
# so no share of the bandwidth is taken off for headers, none for acknowledgements going back
# (crosstraffic), and no TCP window bounds what a long way carries (gamma).
CONFIGURATION = (
    "--cfg=network/model:CM02",
    "--cfg=network/crosstraffic:0",
    "--cfg=network/TCP-gamma:0",
    "--log=root.thresh:warning",
)
_ZONES = {"torus": "torus", "fat-tree": "fatTree", "dragonfly": "dragonfly"}
# A host's speed; nothing is computed on it.
_FLOPS = 1e9


def require_shape(cluster: Cluster) -> None:
    """Refuse a layout that SimGrid cannot route in.

    Raises:
        UserError: a dragonfly of more groups than a chassis has routers.
    """
    layout = cluster.layout
    # The way to group g goes through router g of a chassis; SimGrid 3.32 does not look whether
    # there is one, and ends in a segmentation fault.
    if layout.kind == "dragonfly" and layout.groups[0] > layout.routers[0]:
        raise UserError(
            f"cluster {cluster.name} cannot be simulated: SimGrid's dragonfly has at most as many "
            f"groups as a chassis has routers, {layout.routers[0]}, not {layout.groups[0]}"
        )


@dataclass(frozen=True)
class Hosts:
    """Between what flows may be.

    Attributes:
        ranks: the host of each.
        buffers: two of each rank, where its messages go that may not come in yet: those to other
            nodes, then those within; None where it can have no such messages.
    """

    ranks: list[Any]
    buffers: list[Any]


def build(simgrid: Any, cluster: Cluster, nodes: Sequence[int]) -> Hosts:
    """All hosts, in a new platform; there can be one a process.

    Args:
        simgrid: the module, its engine made.
        cluster: layout, links, and how fast a rank adds.
        nodes: the node of every rank.
    """
    return _Builder(simgrid, cluster, nodes).build()


class _Builder:
    """Makes zones; SimGrid calls it back for every place of a layout."""

    def __init__(self, simgrid: Any, cluster: Cluster, nodes: Sequence[int]) -> None:
        self.simgrid = simgrid
        self.cluster = cluster
        self.ranks: dict[int, list[int]] = defaultdict(list)
        for rank, node in enumerate(nodes):
            self.ranks[node].append(rank)
        self.hosts = Hosts([None] * len(nodes), [None] * (2 * len(nodes)))

    def build(self) -> Hosts:
        """Everything, sealed."""
        layout, zones = self.cluster.layout, self.simgrid.NetZone
        if layout.kind == "star":
            root = zones.create_star_zone("cluster")
            for node in sorted(self.ranks):
                inside, gate = self.node(root, [], node)
                root.add_route(inside, None, gate, None, [], True)
        else:
            make = getattr(zones, f"create_{_ZONES[layout.kind]}_zone")
            # SimGrid multiplies by the numbers of parallel links itself.
            root = make(
                "cluster",
                None,
                self.shape(layout),
                self.simgrid.ClusterCallbacks(self.place, None, None),
                self.cluster.between.bandwidth,
                0.0,
                self.simgrid.Link.SPLITDUPLEX,
            )
        root.seal()
        return self.hosts

    def shape(self, layout: Layout) -> Any:
        """A layout in SimGrid's words."""
        if layout.kind == "torus":
            return list(layout.dims)
        if layout.kind == "fat-tree":
            levels = (list(numbers) for numbers in (layout.down, layout.up, layout.parallel))
            return self.simgrid.FatTreeParams(len(layout.down), *levels)
        return self.simgrid.DragonflyParams(
            layout.groups, layout.chassis, layout.routers, layout.router_nodes
        )

    def place(self, zone: Any, place: list[int], number: int) -> tuple[Any, Any]:
        """What is at a place of the layout: a node, or next to nothing, where no rank is."""
        if number in self.ranks:
            return self.node(zone, place, number)
        # SimGrid makes zones in a time that grows with the square of their number; hosts cost
        # nothing, and a torus of thousands of nodes is built for the sake of a few.
        return zone.create_host(f"unused-{number}", _FLOPS).netpoint, None

    def node(self, parent: Any, _place: list[int], number: int) -> tuple[Any, Any]:
        """A zone with the hosts of a node's ranks, and the gate by which messages leave it."""
        simgrid = self.simgrid
        up, down = simgrid.LinkInRoute.UP, simgrid.LinkInRoute.DOWN
        zone = simgrid.NetZone.create_full_zone(f"node-{number}").set_parent(parent)
        gate = zone.create_router(f"gate-{number}")
        port = self.port(zone, f"port of node {number}", self.cluster.between)
        others: list[tuple[Any, Any]] = []
        for rank in self.ranks[number]:
            host = zone.create_host(f"rank-{rank}", _FLOPS)
            point = host.netpoint
            own = self.port(zone, f"port of rank {rank} in node {number}", self.cluster.inside)
            zone.add_route(point, gate, None, None, [simgrid.LinkInRoute(port, up)], True)
            for other, its in others:
                way = [simgrid.LinkInRoute(its, up), simgrid.LinkInRoute(own, down)]
                zone.add_route(other, point, None, None, way, True)
            if self.cluster.gamma_s:
                self.adder(zone, point, rank)
            others.append((point, own))
            self.hosts.ranks[rank] = host
        if len(self.ranks) > 1:
            ports = [(point, port) for point, _ in others]
            buffer, onward = self.buffer(zone, number, ports, inside=False)
            zone.add_route(buffer, gate, None, None, [onward], False)
        if len(others) > 1:
            buffer, onward = self.buffer(zone, number, others, inside=True)
            for point, own in others:
                way = [onward, simgrid.LinkInRoute(own, down)]
                zone.add_route(buffer, point, None, None, way, False)
        zone.seal()
        return zone.netpoint, gate

    def port(self, zone: Any, name: str, link: Link) -> Any:
        """A link in either direction, with half the latency of a message."""
        made = zone.create_split_duplex_link(name, link.bandwidth)
        return made.set_latency(link.latency_s / 2).seal()

    def buffer(
        self, zone: Any, number: int, ports: Sequence[tuple[Any, Any]], *, inside: bool
    ) -> tuple[Any, Any]:
        """What lies behind the ports of a node's ranks; and half the latency, for the way on."""
        simgrid, link = self.simgrid, self.cluster.inside if inside else self.cluster.between
        name = f"buffer {'in' if inside else 'of'} node {number}"
        host = zone.create_host(name, _FLOPS)
        # Each flow may have all of its bandwidth, for it is only a latency.
        half = zone.create_link(f"latency of {name}", link.bandwidth)
        half.set_sharing_policy(simgrid.Link.FATPIPE, None).set_latency(link.latency_s / 2).seal()
        onward = simgrid.LinkInRoute(half)
        for rank, (point, port) in zip(self.ranks[number], ports, strict=True):
            out = [simgrid.LinkInRoute(port, simgrid.LinkInRoute.UP), onward]
            zone.add_route(point, host.netpoint, None, None, out, False)
            self.hosts.buffers[2 * rank + inside] = host
        return host.netpoint, onward

    def adder(self, zone: Any, point: Any, rank: int) -> None:
        """The way from a rank to itself, as fast as it adds: adding n bytes is sending them."""
        link = zone.create_link(f"adder of rank {rank}", self.cluster.reduce_rate)
        way = [self.simgrid.LinkInRoute(link.set_latency(0).seal())]
        zone.add_route(point, point, None, None, way, False)


def carried(
    hosts: Sequence[Any], sent: Mapping[tuple[int, int], float]
) -> dict[str, tuple[float, float]]:
    """What each link of the platform carries, a direction counted as a link.

    Args:
        hosts: of every rank.
        sent: bytes from rank to rank.

    Returns:
        For each link that carries any, by name: its bandwidth, and the bytes.
    """
    links: dict[str, tuple[float, float]] = {}
    for (sender, receiver), n_bytes in sent.items():
        way, _ = hosts[sender].route_to(hosts[receiver])
        for link in way:
            name = link.name
            bandwidth, before = links.get(name) or (link.bandwidth, 0.0)
            links[name] = bandwidth, before + n_bytes
    return links
