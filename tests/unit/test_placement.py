"""Where ranks are placed."""

from collections import Counter
from dataclasses import replace

import pytest

from commbench.errors import UserError
from commbench.network.cluster import Cluster, Layout, Link, load_cluster
from commbench.network.placement import PLACES, place_ranks, renumbered

LINK = Link(1e-6, 1e9)
RACKS = Layout("fat-tree", 16, down=(4, 4), up=(1, 1), parallel=(1, 1))
CLUSTER = Cluster("racks", "", (), (), 1, LINK, LINK, 1e9, RACKS)


def test_block_fills_one_after_another() -> None:
    assert place_ranks(replace(CLUSTER, ranks_per_node=2), 5) == [0, 0, 1, 1, 2]


def test_round_robin_deals_out_over_racks() -> None:
    assert place_ranks(CLUSTER, 8, "round-robin") == [0, 4, 1, 5, 2, 6, 3, 7]
    assert place_ranks(CLUSTER, 5, "round-robin") == [0, 4, 1, 5, 2]
    shared = replace(CLUSTER, ranks_per_node=2)
    assert place_ranks(shared, 16, "round-robin") == [0, 4, 1, 5, 2, 6, 3, 7] * 2


def test_round_robin_on_a_star_deals_out_over_nodes() -> None:
    star = replace(CLUSTER, layout=Layout(), ranks_per_node=3)
    assert place_ranks(star, 7, "round-robin") == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("name", ["titan-gemini", "fat-tree", "p40-100g", "ethernet-1g"])
@pytest.mark.parametrize("place", PLACES)
def test_no_node_has_too_many(name: str, place: str) -> None:
    cluster = load_cluster(name)
    for ranks in (1, 3, 8, 100, 128):
        nodes = place_ranks(cluster, ranks, place)
        assert len(nodes) == ranks
        assert max(Counter(nodes).values()) <= cluster.ranks_per_node
        assert min(nodes) >= 0
        assert cluster.layout.nodes is None or max(nodes) < cluster.layout.nodes
        assert len(set(nodes)) == -(-ranks // cluster.ranks_per_node)


def test_random_is_repeatable() -> None:
    first, again, other = (place_ranks(CLUSTER, 9, "random", seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_dragonfly_is_dealt_out_over_groups() -> None:
    fly = Layout("dragonfly", 16, groups=(2, 1), chassis=(2, 1), routers=(2, 1), router_nodes=2)
    assert place_ranks(replace(CLUSTER, layout=fly), 10, "round-robin")[:4] == [0, 8, 1, 9]


def test_numbered_as_they_come() -> None:
    assert renumbered([7, 3, 7, 0]) == [0, 1, 0, 2]


def test_refusals() -> None:
    with pytest.raises(UserError, match="choose from block, round-robin, random"):
        place_ranks(CLUSTER, 2, "anywhere")
    with pytest.raises(UserError, match="cannot hold 17"):
        place_ranks(CLUSTER, 17, "random")
