"""The replay, on a network in which flows never meet: what it comes to must be the price."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from commbench.matching import ProofError
from commbench.network.cluster import Cluster, Link
from commbench.network.cost import price
from commbench.network.placement import place_ranks
from commbench.network.program import Program, Step, compile_program
from commbench.network.simgrid_platform import Hosts
from commbench.network.simgrid_replay import Replay
from commbench.registry import parse_exchange

LINK = Link(5e-6, 1e9)
STAR = Cluster("star", "", (), (), 1, LINK, LINK, 4e9)
N_BYTES = 16 * 27 * 25 * 49 * 11 * 13  # whole pieces at the sizes below


class Alone:
    """What the replay uses of SimGrid, for one actor: each flow takes what it takes alone."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clock = 0.0
        self.begun = 0
        self.Comm = SimpleNamespace(sendto_async=self.send, wait_any=self.wait)
        self.Engine = SimpleNamespace(get_clock=lambda: self.clock)
        self.this_actor = SimpleNamespace(yield_=lambda: None)
        self.Actor = SimpleNamespace(create=lambda _name, _host, body: self.run_first(body))

    def run_first(self, body: Callable[[], None]) -> None:
        assert not self.begun, "this fake has one actor"
        self.body = body

    def run(self) -> None:
        self.body()

    def send(self, sender: int | str, receiver: int | str, n_bytes: int) -> SimpleNamespace:
        self.begun += 1
        alone = self.cluster.between.latency_s + n_bytes * self.cluster.between.beta_s
        takes = n_bytes * self.cluster.gamma_s if sender == receiver else alone
        return SimpleNamespace(end=self.clock + takes, finish_time=-1.0)

    def wait(self, flows: list[Any]) -> int:
        self.clock = min(flow.end for flow in flows)
        for flow in flows:
            if flow.end <= self.clock:
                flow.finish_time = flow.end
        return next(at for at, flow in enumerate(flows) if flow.end <= self.clock)


def replayed(program: Program, cluster: Cluster, alone: Alone | None = None) -> float:
    alone = alone or Alone(cluster)
    ranks = len(program.nodes)
    hosts = Hosts(list(range(ranks)), [f"buffer of {port}" for port in range(2 * ranks)])
    return Replay(alone, program, hosts, N_BYTES, cluster).run(alone)


@pytest.mark.parametrize(
    "spec",
    [
        *("tree", "ring", "parameter-server", "parameter-server@server=dedicated"),
        *("sharded-server", "sharded-server@servers=1", "recursive-doubling", "torus"),
        *("hierarchical", "ring@segments=2", "binary-blocks", "double-tree", "tree@segments=4"),
    ],
)
@pytest.mark.parametrize("size", [2, 3, 7, 12, 16, 25])
def test_without_contention_it_is_the_price(spec: str, size: int) -> None:
    program = compile_program(parse_exchange(spec), size, range(size), each=True)
    told = price(spec, size, N_BYTES, STAR).seconds
    assert replayed(program, STAR) == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("size", [2, 8, 32])
def test_powers_of_two(size: int) -> None:
    for spec in ("halving-doubling", "binary-blocks"):
        program = compile_program(parse_exchange(spec), size, range(size), each=True)
        told = price(spec, size, N_BYTES, STAR).seconds
        assert replayed(program, STAR) == pytest.approx(told, rel=1e-6)


def test_only_an_early_message_is_two_flows() -> None:
    # A server takes one after another, and so all but the first of those that send at once wait.
    assert flows("parameter-server", 8) == 2 * 7 + 6
    # In a ring each receives when it sends; where nothing is added, for then it takes longer.
    assert flows("ring", 8) == 2 * 7 * 8


def flows(spec: str, size: int) -> int:
    free = Cluster("star", "", (), (), 1, LINK, LINK, float("inf"))
    program = compile_program(parse_exchange(spec), size, range(size), each=True)
    alone = Alone(free)
    replayed(program, free, alone=alone)
    return alone.begun


def test_adding_takes_time_where_it_does() -> None:
    free = Cluster("star", "", (), (), 1, LINK, LINK, float("inf"))
    program = compile_program(parse_exchange("tree"), 4, range(4), each=True)
    added = 2 * N_BYTES * STAR.gamma_s
    assert replayed(program, STAR) - replayed(program, free) == pytest.approx(added)


def test_who_waits_for_ever_is_found() -> None:
    # Each of two sends what it would first have to receive from the other.
    steps = [
        [Step((), (1,), (True,)), Step((0,), (), ())],
        [Step((), (0,), (True,)), Step((1,), (), ())],
    ]
    program = Program([0, 1], steps, [0, 1], [1, 0], [1.0, 1.0], [False, False])
    with pytest.raises(ProofError, match="wait for each other"):
        replayed(program, STAR)


def test_every_rank_is_there_for_itself() -> None:
    ring = parse_exchange("ring")
    assert len(compile_program(ring, 8, range(8)).nodes) == 1
    assert len(compile_program(ring, 8, range(8), each=True).nodes) == 8


def test_a_price_knows_where_ranks_are() -> None:
    far, near = Link(0.0, 1.0), Link(0.0, 1e9)
    pairs = Cluster("pairs", "", (), (), 2, near, far, float("inf"))
    dealt = place_ranks(pairs, 4, "round-robin")
    # A ring that leaves its node at every step shares the port with the other rank there.
    assert price("ring", 4, 1, pairs, dealt).seconds == pytest.approx(3)
    assert price("ring", 4, 1, pairs).seconds == pytest.approx(1.5)
