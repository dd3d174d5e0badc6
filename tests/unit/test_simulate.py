"""`commbench simulate`: prices where messages do not meet, and what becomes of those that do."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from commbench.cli.info import command as info
from commbench.cli.simulate import command
from commbench.errors import UserError
from commbench.network import simgrid
from commbench.network.cluster import Cluster, Layout, Link, load_cluster
from commbench.network.simgrid import Simulated, TooLongError, find_simgrid, simulate, simulate_all
from commbench.network.simgrid_file import SimulationFile
from commbench.record import summary
from commbench.registry import parse_exchange

needs_simgrid = pytest.mark.skipif(
    find_simgrid() is None, reason="SimGrid is not installed (Debian's python3-simgrid)"
)
NONE = Link(0.0, 1e9)
# Four racks of four; a rack's one uplink is as fast as each of its nodes' links.
RACKS = Layout("fat-tree", 16, down=(4, 4), up=(1, 1), parallel=(1, 1))
FLY = Layout("dragonfly", 16, groups=(2, 1), chassis=(2, 1), routers=(2, 1), router_nodes=2)
RACKED = Cluster("racks", "", (), (), 1, NONE, NONE, float("inf"), RACKS)


# Every plain exchange, on numbers of ranks that are hard for it.
PLAIN = [
    *((spec, 7) for spec in ("parameter-server", "parameter-server@server=dedicated", "ring")),
    *((spec, 12) for spec in ("sharded-server", "sharded-server@servers=3", "torus")),
    *((spec, 12) for spec in ("hierarchical", "recursive-doubling", "ring@segments=2")),
    *((spec, size) for spec in ("tree", "tree@segments=4", "double-tree") for size in (6, 21)),
    *(("binary-blocks", size) for size in (3, 5, 6, 7, 12, 44)),
    ("halving-doubling", 16),
]


@needs_simgrid
@pytest.mark.parametrize("reduce_rate", [5e9, 5e8], ids=["network", "adding"])
def test_without_contention_it_is_the_price(reduce_rate: float) -> None:
    star = replace(load_cluster("ethernet-10g"), reduce_rate=reduce_rate)
    cases = [(parse_exchange(spec), ranks) for spec, ranks in PLAIN]
    for (choice, ranks), one in zip(cases, simulate_all(cases, 3e6, star), strict=True):
        assert isinstance(one, Simulated)
        assert one.seconds == pytest.approx(one.predicted_s, rel=1e-3), f"{choice.spec} {ranks}"
        assert one.hottest_link.startswith("port")


@needs_simgrid
@pytest.mark.parametrize("place", ["block", "round-robin"])
@pytest.mark.parametrize("ranks_per_node", [4, 64])
def test_ranks_of_a_node_without_contention(ranks_per_node: int, place: str) -> None:
    # Who comes to a shared port at one moment takes a turn in an order that is not always the
    # price's, and then some ranks go on earlier or later.
    by_order = {("double-tree", 21): 0.02, ("binary-blocks", 5): 0.08}
    near, far = Link(5e-6, 5e9), Link(20e-6, 1e9)
    cluster = Cluster("nodes", "", (), (), ranks_per_node, near, far, 2e9)
    cases = [(parse_exchange(spec), ranks) for spec, ranks in PLAIN]
    simulated = simulate_all(cases, 3e6, cluster, place=place)
    for (choice, ranks), one in zip(cases, simulated, strict=True):
        assert isinstance(one, Simulated)
        within = by_order.get((choice.spec, ranks), 1e-3)
        assert one.seconds == pytest.approx(one.predicted_s, rel=within), f"{choice.spec} {ranks}"


@needs_simgrid
def test_ranks_of_a_node_meet_on_the_wires() -> None:
    # As with one rank a node; a ring of twice as many has pieces of half the length.
    pairs = replace(RACKED, ranks_per_node=2)
    told = simulate("ring", 32, 32e6, pairs, place="round-robin")
    assert told.hottest_link.startswith("link")
    assert told.hottest_share == pytest.approx(1, rel=0.02)


@needs_simgrid
def test_early_messages_do_not_crowd_the_wires() -> None:
    # All send to the server at once; they reach its rack's one uplink when it takes them.
    server = simulate("parameter-server", 16, 16e6, RACKED)
    assert server.ratio == pytest.approx(1, rel=1e-3)


@needs_simgrid
def test_racks_are_as_slow_as_their_uplinks() -> None:
    # Dealt out, every rank of a ring sends to the next rack: four share an uplink all the time.
    ring = simulate("ring", 16, 16e6, RACKED, place="round-robin")
    assert ring.ratio == pytest.approx(4, rel=1e-3)
    assert ring.hottest_link.startswith("link")
    assert ring.hottest_share == pytest.approx(1, rel=1e-3)
    # Of a tree's rounds, two cross between racks, where four senders share one uplink.
    tree = simulate("tree", 16, 16e6, RACKED, place="round-robin")
    assert tree.ratio == pytest.approx((4 + 4 + 1 + 1) / 4, rel=1e-3)
    assert simulate("tree", 16, 16e6, RACKED).ratio == pytest.approx(1, rel=1e-3)


@needs_simgrid
@pytest.mark.parametrize(
    ("layout", "ratio"),
    [
        # All four of a row send to the next row, by links of their own.
        (Layout("torus", 16, dims=(4, 4)), 1.0),
        # All eight of a group send to the other, by the one link there is between the two.
        (FLY, 8.0),
    ],
    ids=["torus", "dragonfly"],
)
def test_other_layouts(layout: Layout, ratio: float) -> None:
    cluster = replace(RACKED, layout=layout)
    told = simulate("ring", 16, 16e6, cluster, place="round-robin")
    assert told.ratio == pytest.approx(ratio, rel=1e-3)


@needs_simgrid
def test_the_ranks_of_a_node_share_its_port() -> None:
    pairs = Cluster("pairs", "", (), (), 4, Link(0.0, 1e12), NONE, float("inf"))
    # Every rank of one node swaps with its like on the other: one port carries four buffers.
    told = simulate("recursive-doubling", 8, 1e6, pairs)
    assert told.seconds == pytest.approx(4e-3, rel=0.01)
    assert told.ratio == pytest.approx(1, rel=0.01)


@needs_simgrid
def test_groups_are_the_ranks_of_a_node() -> None:
    words = ["--cluster", "big-basin", "--ranks", "32", "--place", "round-robin"]
    result = CliRunner().invoke(command, ["--exchange", "hierarchical@group=node", *words])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith("hierarchical@group=node     32")


@needs_simgrid
def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.h5"
    words = ["--exchange", "tree,ring", "--cluster", "fat-tree", "--ranks", "2", "--bytes", "1M"]
    result = CliRunner().invoke(command, [*words, "--json", "-o", str(file)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [one["exchange"] for one in told["simulations"]] == ["tree", "ring"]
    with h5py.File(file) as run:
        assert (run.attrs["kind"], run.attrs["status"]) == ("simulate", "completed")
        assert run.attrs["simgrid_version"].startswith("3.")
        assert run["simulation/seconds"][1, 0] == told["simulations"][1]["seconds"]


@needs_simgrid
def test_it_ends_in_time() -> None:
    with pytest.raises(TooLongError, match=r"ring on 128 ranks: not simulated within 0.01 s"):
        simulate("ring", 128, 1e6, load_cluster("fat-tree"), limit_s=0.01)


def test_a_run_file_keeps_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    file = SimulationFile(path, (["tree", "ring"], [4, 8]), 1024, RACKED, {"seed": 1})
    file.add("ring", Simulated("ring", 8, 1024, 3.0, 2.0, 112, "a link", 0.5, 1.5, "3.32.0"))
    assert summary(path)["status"] == "running"
    file.finish()
    told = summary(path)["simulation"]
    numbers = {"seconds": 3.0, "predicted_s": 2.0, "hottest_share": 0.5, "wall_s": 1.5}
    assert told == [{"exchange": "ring", "ranks": 8, **numbers, "ratio": 1.5}]
    shown = CliRunner().invoke(info, [str(path)])
    assert "3000.000 ms" in shown.output


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simgrid, "find_simgrid", lambda: None)
    with pytest.raises(UserError, match="apt install python3-simgrid"):
        simulate("ring", 4, 1024, RACKED)


def test_a_shape_that_simgrid_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simgrid, "require_simgrid", lambda: Path("simgrid.so"))
    three = replace(RACKED, layout=replace(FLY, groups=(3, 1), nodes=24))
    with pytest.raises(UserError, match="as many groups as a chassis has routers, 2, not 3"):
        simulate("ring", 4, 1024, three)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--exchange", "native"], "leaves its work to the MPI library"),
        (["--exchange", "halving-doubling", "--ranks", "6"], "powers of two"),
        (["--ranks", "64,129"], "cannot hold 129"),
        (["--bytes", "0"], "--bytes 0: give at least 1"),
        (["--output", "/nowhere/run.h5"], "no folder /nowhere"),
    ],
)
def test_refusals(words: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simgrid, "require_simgrid", lambda: Path("simgrid.so"))
    default = ["--exchange", "ring", "--cluster", "fat-tree", "--ranks", "4"]
    result = CliRunner().invoke(command, [*default, *words])
    assert isinstance(result.exception, UserError)
    assert complaint in str(result.exception)
