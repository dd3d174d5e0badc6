"""Clusters as files: what is shipped, what is read, what is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli.info import command
from commbench.errors import UserError
from commbench.network.cluster import Cluster, cluster_names, load_cluster
from commbench.units import RATE, TIME

PLAIN = """
reduce = "10 GB/s"
[between]
latency = "1.5 us"
bandwidth = "50 Gbit/s"
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def load(tmp_path: Path, text: str) -> Cluster:
    return load_cluster(written(tmp_path, text))


def test_the_shipped_clusters_are_whole_and_tell_their_sources() -> None:
    expected = {"titan-gemini", "dgx1-pascal", "big-basin", "p40-100g", "ethernet-1g", "local"}
    assert expected < set(cluster_names())
    for name in cluster_names():
        cluster = load_cluster(name)
        assert cluster.name == name
        assert cluster.description
        assert cluster.source
        assert cluster.between.latency_s < 1e-3
        assert 1e8 < cluster.between.bandwidth < 1e11


def test_a_file_is_read_in_base_units(tmp_path: Path) -> None:
    cluster = load(tmp_path, PLAIN)
    assert cluster.name == "mine"
    assert (cluster.between.latency_s, cluster.between.bandwidth) == (1.5e-6, 6.25e9)
    assert cluster.between.beta_s == 1.6e-10
    assert cluster.gamma_s == 1e-10
    assert cluster.inside == cluster.between
    assert cluster.most_ranks is None
    assert cluster.nodes(3) == [0, 1, 2]


def test_ranks_fill_one_node_after_another() -> None:
    cluster = load_cluster("p40-100g")
    assert cluster.nodes(17) == [0] * 8 + [1] * 8 + [2]
    assert cluster.most_ranks == 2048
    with pytest.raises(UserError, match=r"has 2048 ranks \(256 nodes of 8\): it cannot hold 2049"):
        cluster.nodes(2049)
    with pytest.raises(UserError, match="0 ranks"):
        cluster.nodes(0)


def test_layouts(tmp_path: Path) -> None:
    assert load_cluster("titan-gemini").layout.nodes == 25 * 16 * 24
    tree = load_cluster("fat-tree").layout
    assert (tree.nodes, tree.oversubscription) == (128, (4.0,))
    dragonfly = """
[layout]
kind = "dragonfly"
groups = [3, 4]
chassis = [3, 2]
routers = [4, 1]
router_nodes = 2
"""
    assert load(tmp_path, PLAIN + dragonfly).layout.nodes == 3 * 3 * 4 * 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("reduce = 3\n", "reduce = 3: must be a rate in bits or bytes"),
        ('reduce = "3 GB"\n', "reduce = '3 GB': must be a rate in bits or bytes"),
        ('reduce = "0 GB/s"\n', "must be a rate"),
        (PLAIN.replace("us", "Gbit/s"), "between.latency = '1.5 Gbit/s': must be a time such as"),
        (PLAIN + "jitter = 1\n", "unknown key between.jitter: use between.bandwidth, between.l"),
        ("colour = 1\n" + PLAIN, "unknown key colour: use between, calibration, description, imag"),
        ('reduce = "1 GB/s"\n', "between = None: must be a table with the link between nodes"),
        ("ranks_per_node = 2\n" + PLAIN, "inside = None: must be a table with the link of a node"),
        ("ranks_per_node = 0\n" + PLAIN, "ranks_per_node = 0: must be a whole number, 1 or more"),
        (PLAIN + '[layout]\nkind = "mesh"\n', "must be one of star, torus, fat-tree, dragonfly"),
        (
            PLAIN + '[layout]\nkind = "torus"\ndims = []\n',
            "layout.dims = .*: must be a list of who",
        ),
        (
            PLAIN + '[layout]\nkind = "fat-tree"\ndown = [4, 4]\nup = [1]\nparallel = [1, 1]\n',
            "layout.up = .*: must be as long as down, 2 levels",
        ),
        (
            PLAIN + '[layout]\nkind = "dragonfly"\ngroups = [3]\nchassis = [1]\nrouters = [1]\n',
            "layout.groups = .*: must be a list of two",
        ),
        (PLAIN + "[images_per_s]\nresnet51 = { 32 = 1 }\n", "under the name of a model: alexnet, "),
        (PLAIN + "[images_per_s]\nnin = { fast = 1 }\n", "nin.fast = 1: must be under a number"),
        (PLAIN + "[images_per_s]\nnin = { 32 = 0 }\n", "nin.32 = 0: must be a number above 0"),
        (PLAIN + "[images_per_s]\nnin = 32\n", "nin = 32: must be a table"),
        ("between 3", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load(tmp_path, text)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_clusters() -> None:
    with pytest.raises(
        UserError, match=r"unknown cluster 'titan'.*big-basin.*titan-gemini.*\.toml"
    ):
        load_cluster("titan")
    with pytest.raises(UserError, match=r"cannot read cluster none\.toml"):
        load_cluster("none.toml")


def test_info_lists_them() -> None:
    runner = CliRunner()
    told = json.loads(runner.invoke(command, ["--clusters", "--json"]).stdout)
    assert [one["name"] for one in told] == cluster_names()
    text = runner.invoke(command, ["--clusters"]).stdout
    assert all(name in text for name in cluster_names())
    assert "torus 25 x 16 x 24" in text
    with pytest.raises(UserError, match=r"drop run\.h5"):
        runner.invoke(command, ["--clusters", "run.h5"], catch_exceptions=False)
    with pytest.raises(UserError, match="one at a time"):
        runner.invoke(command, ["--clusters", "--models"], catch_exceptions=False)


def test_units_are_exact_and_read_back() -> None:
    assert TIME.read("10us") == 1e-5
    assert RATE.read("100 Gbit/s") == 12.5e9
    assert RATE.read("1.5e3 MB/s") == 1.5e9
    assert RATE.read("-1 MB/s") is None
    assert RATE.text(6.25e9, "GB/s") == "6.25 GB/s"
    assert TIME.read(TIME.text(1.234e-6, "us")) == 1.234e-6
