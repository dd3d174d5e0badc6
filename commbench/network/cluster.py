"""Clusters from TOML files: links, layout, and how fast a rank computes. docs/CLUSTERS.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from commbench.errors import UserError
from commbench.spec import cut
from commbench.toml_table import Table, read_toml
from commbench.units import RATE, TIME
from commbench.workloads.models import model_names

_FOLDER = Path(__file__).parent / "clusters"
LAYOUTS = ("star", "torus", "fat-tree", "dragonfly")


@dataclass(frozen=True)
class Link:
    """What a message between two ranks crosses.

    Attributes:
        latency_s: alpha, of each message.
        bandwidth: bytes a second in each direction, both at once; beta is its inverse.
    """

    latency_s: float
    bandwidth: float

    @property
    def beta_s(self) -> float:
        """Seconds a byte."""
        return 1 / self.bandwidth


@dataclass(frozen=True)
class Layout:
    """How nodes are wired. The cost model knows only the links at their ends; replays know this.

    Attributes:
        kind: one of `LAYOUTS`.
        nodes: how many there can be; None for a star of any number.
        dims: of a torus, one router a node.
        down, up, parallel: of a fat tree, for each level from the nodes up: how many each switch
            has below, how many switches of this level each below is wired to, and by how many
            links each.
        groups, chassis, routers: of a dragonfly: each number, and by how many links each is wired
            to its equals; nodes of a router last, in `router_nodes`.
    """

    kind: str = "star"
    nodes: int | None = None
    dims: tuple[int, ...] = ()
    down: tuple[int, ...] = ()
    up: tuple[int, ...] = ()
    parallel: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    chassis: tuple[int, ...] = ()
    routers: tuple[int, ...] = ()
    router_nodes: int = 0

    @property
    def oversubscription(self) -> tuple[float, ...]:
        """Of a fat tree's switches but the top ones: links below over links above; 1 is none."""
        above = zip(self.up[1:], self.parallel[1:], strict=True)
        below = zip(self.down, self.parallel, strict=True)
        return tuple(
            low * links / (high * uplinks)
            for (low, links), (high, uplinks) in zip(below, above, strict=False)
        )


@dataclass(frozen=True)
class Cluster:
    """Machines and what joins them.

    Attributes:
        name: file name without `.toml`.
        description: one line.
        source: where the figures are from.
        ours: the keys whose values are our own, from no publication.
        ranks_per_node: ranks r*k to r*k+k-1 share node r.
        inside: between ranks of one node, each rank having a port of its own.
        between: between nodes, each node having one port, which its ranks share.
        reduce_rate: bytes a second at which a rank adds what it received; gamma is its inverse.
        layout: how nodes are wired.
        images_per_s: of a rank that computes alone, by model and by its share of the batch.
        calibration: of a measured cluster: how, when, and how well the lines fit.
    """

    name: str
    description: str
    source: tuple[str, ...]
    ours: tuple[str, ...]
    ranks_per_node: int
    inside: Link
    between: Link
    reduce_rate: float
    layout: Layout = Layout()
    images_per_s: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    calibration: Mapping[str, str] = field(default_factory=dict)

    @property
    def gamma_s(self) -> float:
        """Seconds a byte added."""
        return 1 / self.reduce_rate

    @property
    def most_ranks(self) -> int | None:
        """As many as there are; None for any number."""
        return None if self.layout.nodes is None else self.layout.nodes * self.ranks_per_node

    def nodes(self, size: int) -> list[int]:
        """The node of every rank, of a job of `size` ranks.

        Raises:
            UserError: the cluster is smaller, or there is no rank.
        """
        if size < 1:
            raise UserError(f"{size} ranks: give at least 1")
        if self.most_ranks is not None and size > self.most_ranks:
            raise UserError(
                f"cluster {self.name} has {self.most_ranks} ranks ({self.layout.nodes} nodes of "
                f"{self.ranks_per_node}): it cannot hold {size}"
            )
        return [rank // self.ranks_per_node for rank in range(size)]


def cluster_names() -> list[str]:
    """Names of the clusters shipped with commbench, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_cluster(name_or_path: str) -> Cluster:
    """Reads a shipped cluster by name, or any by the path of its TOML file.

    Args:
        name_or_path: anything ending in `.toml` or holding a path separator is a path.

    Raises:
        UserError: for an unknown name, an unreadable file, or an unknown key, a missing key or an
            impossible value in it; the line names file, key and choices.
    """
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = Path(name_or_path)
    elif name_or_path in cluster_names():
        path = _FOLDER / f"{name_or_path}.toml"
    else:
        raise UserError(
            f"unknown cluster {name_or_path!r}: choose from {', '.join(cluster_names())}, "
            "or give the path of a .toml file (docs/CLUSTERS.md tells its form)"
        )
    return _cluster(path.stem, read_toml(path, "cluster"))


def _cluster(name: str, table: Table) -> Cluster:
    ranks_per_node = table.whole("ranks_per_node", at_least=1, default=1)
    layout, reduce_rate = _layout(table), table.measure("reduce", RATE)
    # A cluster of one node has nothing between nodes, and one rank a node nothing inside.
    links = {key: _link(table.table(key)) for key in ("inside", "between") if table.has(key)}
    if ranks_per_node > 1 and "inside" not in links:
        raise table.refusal("inside", f"a table with the link of a node's {ranks_per_node} ranks")
    if layout.nodes != 1 and "between" not in links:
        raise table.refusal("between", "a table with the link between nodes")
    if not links:
        raise table.refusal("inside", "a table with a link")
    cluster = Cluster(
        name=name,
        description=table.text("description", default=name),
        source=table.words("source"),
        ours=table.words("ours"),
        ranks_per_node=ranks_per_node,
        inside=links.get("inside") or links["between"],
        between=links.get("between") or links["inside"],
        reduce_rate=reduce_rate,
        layout=layout,
        images_per_s=_compute(table),
        calibration=_calibration(table),
    )
    table.finish()
    return cluster


def _link(table: Table) -> Link:
    link = Link(table.measure("latency", TIME), table.measure("bandwidth", RATE))
    table.finish()
    return link


def _layout(parent: Table) -> Layout:
    if not parent.has("layout"):
        return Layout()
    table = parent.table("layout")
    kind = table.choice("kind", LAYOUTS)
    if kind == "star":
        nodes = table.whole("nodes", at_least=1) if table.has("nodes") else None
        layout = Layout(kind, nodes)
    elif kind == "torus":
        dims = table.wholes("dims", at_least=1)
        layout = Layout(kind, prod(dims), dims=dims)
    elif kind == "fat-tree":
        layout = _fat_tree(table)
    else:
        layout = _dragonfly(table)
    table.finish()
    return layout


def _fat_tree(table: Table) -> Layout:
    down = table.wholes("down", at_least=1)
    levels = {key: table.wholes(key, at_least=1) for key in ("up", "parallel")}
    for key, numbers in levels.items():
        if len(numbers) != len(down):
            raise table.refusal(key, f"as long as down, {len(down)} levels")
    return Layout("fat-tree", prod(down), down=down, up=levels["up"], parallel=levels["parallel"])


def _dragonfly(table: Table) -> Layout:
    pairs = {key: table.wholes(key, at_least=1) for key in ("groups", "chassis", "routers")}
    for key, numbers in pairs.items():
        if len(numbers) != 2:
            raise table.refusal(key, "a list of two: how many, and of how many links")
    nodes = table.whole("router_nodes", at_least=1)
    total = prod(numbers[0] for numbers in pairs.values()) * nodes
    return Layout(
        "dragonfly",
        total,
        groups=pairs["groups"],
        chassis=pairs["chassis"],
        routers=pairs["routers"],
        router_nodes=nodes,
    )


def _compute(parent: Table) -> dict[str, dict[int, float]]:
    if not parent.has("images_per_s"):
        return {}
    table = parent.table("images_per_s")
    rates = {}
    for model in table.names():
        if cut(model, "@")[0] not in model_names():
            raise table.refusal(model, f"under the name of a model: {', '.join(model_names())}")
        batches = table.table(model)
        for batch in batches.names():
            if not (batch.isdecimal() and int(batch)):
                raise batches.refusal(batch, "under a number of images, a rank's share of a batch")
        rates[model] = {int(batch): batches.number(batch, above=0.0) for batch in batches.names()}
        if not rates[model]:
            raise table.refusal(model, "a table such as { 32 = 138 }")
        batches.finish()
    table.finish()
    return rates


def _calibration(parent: Table) -> dict[str, str]:
    if not parent.has("calibration"):
        return {}
    table = parent.table("calibration")
    told = {key: table.text(key) for key in table.names()}
    table.finish()
    return told
