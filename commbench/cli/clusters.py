"""What `commbench info --clusters` tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.network.cluster import Cluster


def cluster_facts() -> list[dict[str, Any]]:
    """Every shipped cluster in base units: seconds, and bytes a second."""
    from dataclasses import asdict

    from commbench.network.cluster import cluster_names, load_cluster

    told = []
    for cluster in map(load_cluster, cluster_names()):
        facts = asdict(cluster)
        facts["layout"] = {
            key: value for key, value in facts["layout"].items() if value not in (None, (), 0)
        }
        told.append({**facts, "most_ranks": cluster.most_ranks, "wiring": _wiring(cluster)})
    return told


def _wiring(cluster: Cluster) -> str:
    """The layout in a few words."""
    layout = cluster.layout
    if layout.kind == "torus":
        return f"torus {' x '.join(map(str, layout.dims))}"
    if layout.kind == "fat-tree":
        told = " x ".join(map(str, layout.down))
        worst = max(layout.oversubscription, default=1.0)
        return f"fat tree {told}" + (f", {worst:g} to 1" if worst > 1 else "")
    if layout.nodes == 1:
        return "one node"
    return f"{layout.kind}, {layout.nodes} nodes" if layout.nodes else layout.kind


def cluster_table(clusters: list[dict[str, Any]]) -> Table:
    """One line a cluster."""
    from rich.table import Table

    table = Table(box=None)
    table.add_column("cluster", no_wrap=True)
    for heading in ("ranks a node", "inside a node", "between nodes", "adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout", no_wrap=True)
    table.add_column("rates known of")
    for one in clusters:
        shared = one["ranks_per_node"] > 1
        table.add_row(
            one["name"],
            str(one["ranks_per_node"]),
            _link(one["inside"]) if shared else "",
            _link(one["between"]) if one["layout"].get("nodes") != 1 else "",
            f"{one['reduce_rate'] / 1e9:g} GB/s",
            one["wiring"],
            ", ".join(one["images_per_s"]),
        )
    return table


def _link(link: dict[str, float]) -> str:
    return f"{link['latency_s'] * 1e6:g} us, {link['bandwidth'] / 1e9:g} GB/s"
