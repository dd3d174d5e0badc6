"""Prices of exchanges: against the literature's formulas, and by hand where there is none."""

import math
from fractions import Fraction

import pytest

from commbench.errors import UserError
from commbench.network.cluster import Cluster, Link, load_cluster
from commbench.network.cost import _program, price
from commbench.registry import parse_exchange, topology_names
from commbench.schedule import WHOLE, Grid, Op, Recv, Round, Schedule, Send

SIZES = [1, 2, 3, 5, 6, 7, 12, 16, 44, 100, 128]


def cluster(alpha: float, beta: float, gamma: float, ranks_per_node: int = 1) -> Cluster:
    """Links all alike, of so many seconds and seconds a byte."""
    link = Link(alpha, 1 / beta if beta else math.inf)
    added = 1 / gamma if gamma else math.inf
    return Cluster("test", "", (), (), ranks_per_node, link, link, added)


def coefficients(spec: str, size: int) -> tuple[float, float, float]:
    """What a buffer of one byte takes when latency, sending and adding count alone."""
    alone = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    alpha, beta, gamma = (price(spec, size, 1, cluster(*units)).seconds for units in alone)
    return alpha, beta, gamma


def log2_up(size: int) -> int:
    return (size - 1).bit_length()


# As in the literature, for a buffer of one byte: alpha, beta, gamma.
LITERATURE = {
    "none": lambda p: (0, 0, 0),
    "parameter-server": lambda p: (2 * (p - 1), 2 * (p - 1), p - 1),
    "tree": lambda p: (2 * log2_up(p), 2 * log2_up(p), log2_up(p)),
    "ring": lambda p: (2 * (p - 1), 2 * (p - 1) / p, (p - 1) / p),
    "sharded-server": lambda p: (2 * (p - 1), 2 * (p - 1) / p, (p - 1) / p),
}


@pytest.mark.parametrize("spec", LITERATURE)
@pytest.mark.parametrize("size", SIZES)
def test_the_formulas_of_the_literature(spec: str, size: int) -> None:
    assert coefficients(spec, size) == pytest.approx(LITERATURE[spec](size))


@pytest.mark.parametrize("size", [2, 16, 128])
def test_halving_and_doubling(size: int) -> None:
    levels = size.bit_length() - 1
    expected = 2 * levels, 2 * (size - 1) / size, (size - 1) / size
    assert coefficients("halving-doubling", size) == pytest.approx(expected)
    assert coefficients("binary-blocks", size) == pytest.approx(expected)


# From a simulation of the algorithm that shares no code with this one.
@pytest.mark.parametrize(
    ("size", "alpha", "beta", "gamma"),
    [
        *((3, 4, 2, 1), (5, 7, 2, 1), (6, 6, 2, 1), (7, 7, 2.75, 1.25), (9, 12, 2, 1)),
        *((12, 8, 2, 1), (13, 10, 2.375, 1.125), (15, 10, 3.125, 1.375), (24, 10, 2, 1)),
        *((31, 13, 3.3125, 1.4375), (33, 38, 2, 1), (44, 14, 2.15625, 1.03125)),
        *((48, 12, 2, 1), (100, 19, 2.046875, 1.015625)),
    ],
)
def test_binary_blocks(size: int, alpha: float, beta: float, gamma: float) -> None:
    assert coefficients("binary-blocks", size) == pytest.approx((alpha, beta, gamma))


@pytest.mark.parametrize(("size", "x"), [(6, 2), (12, 3), (12, 4), (44, 4), (100, 10), (128, 8)])
def test_the_torus(size: int, x: int) -> None:
    expected = 2 * (x - 1) + 2 * (size // x - 1), 2 * (size - 1) / size, (size - 1) / size
    assert coefficients(f"torus@x={x}", size) == pytest.approx(expected)


@pytest.mark.parametrize(("size", "k"), [(6, 2), (12, 4), (44, 4), (100, 10), (128, 8), (1024, 16)])
def test_jias_hierarchy(size: int, k: int) -> None:
    m = size // k
    expected = (
        4 * (k - 1) + 2 * (m - 1),
        4 * (k - 1) / k + 2 * (m - 1) / m,
        (k - 1) / k + (m - 1) / m,
    )
    assert coefficients(f"hierarchical@group={k}", size) == pytest.approx(expected)


def test_a_pipeline_fills_and_drains() -> None:
    # A chain of two: reduce, then broadcast. The second half's reduction runs beside the first's
    # broadcast, so three rounds of half the buffer, not two of all of it.
    assert coefficients("tree@segments=2", 2) == pytest.approx((3, 1.5, 1))


PLAIN = [name for name in topology_names() if name != "native" and parse_exchange(name).plain]
SPECS = [*PLAIN, "parameter-server@server=dedicated", "hierarchical@group=4", "torus@x=2"]


@pytest.mark.parametrize("spec", SPECS)
def test_terms_are_what_playing_comes_to(spec: str) -> None:
    choice, found = parse_exchange(spec), 0
    for size in SIZES:
        try:
            choice.schedule(0, size)
        except UserError:
            continue
        terms = choice.terms(size)
        if terms is None:
            continue
        found += 1
        for alpha, beta, gamma in [(3e-6, 1e-9, 4e-10), (1e-3, 1e-12, 1e-8)]:
            seconds = price(choice, size, 1e6, cluster(alpha, beta, gamma)).seconds
            expected = terms.seconds(1e6, alpha, beta, gamma)
            assert seconds == pytest.approx(expected, rel=1e-9), f"{spec} on {size}"
    assert found or spec == "double-tree"


@pytest.mark.parametrize("spec", [*SPECS, "hierarchical@group=4@outer=torus", "ring@segments=2"])
@pytest.mark.parametrize("ranks_per_node", [1, 2, 4])
def test_ranks_that_are_alike_stand_for_each_other(
    spec: str, ranks_per_node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = parse_exchange(spec)
    far = Link(5e-6, 1e9)
    shared = Cluster("test", "", (), (), ranks_per_node, Link(1e-6, 8e9), far, 5e9)
    for size in (4, 8, 12, 16):
        try:
            choice.schedule(0, size)
        except UserError:
            continue
        together = price(choice, size, 1e6, shared)
        with monkeypatch.context() as patch:
            patch.setattr("commbench.registry.Choice.symmetry", lambda _, p: Grid((p,), (p,)))
            patch.setattr("commbench.network.cost._program", _program.__wrapped__)
            apart = price(choice, size, 1e6, shared)
        # Where messages come to a shared port at once, who is first may differ.
        assert together.seconds == pytest.approx(apart.seconds, rel=1e-9)


def moved(op: Op, grid: Grid, by: list[int]) -> tuple[str, int]:
    assert isinstance(op, Send | Recv)
    peer = op.to if isinstance(op, Send) else op.source
    return type(op).__name__, grid.moved(peer, by)


@pytest.mark.parametrize("spec", [*SPECS, "hierarchical@group=4@outer=torus", "ring@segments=2"])
def test_symmetries_hold(spec: str) -> None:
    choice = parse_exchange(spec)
    for size in (1, 2, 6, 8, 12, 16):
        try:
            schedules = choice.schedules(size)
        except UserError:
            continue
        grid = choice.symmetry(size)
        assert math.prod(grid.dims) == size
        for rank in range(size):
            home, by = grid.home(rank)
            assert home in grid.homes()
            assert grid.moved(home, by) == rank
            assert _told(schedules[rank], grid, [0] * len(by)) == _told(schedules[home], grid, by)


def _told(schedule: Schedule, grid: Grid, by: list[int]) -> list[list[tuple[str, int]]]:
    return [[moved(op, grid, by) for op in turn.ops] for turn in schedule.rounds]


def test_the_ranks_of_a_node_share_its_port() -> None:
    # Every rank of one node swaps with its like on the other: one port carries four buffers.
    far, near = Link(0.0, 1.0), Link(0.0, math.inf)
    shared = Cluster("test", "", (), (), 4, near, far, math.inf)
    assert price("recursive-doubling", 8, 1, shared).seconds == 4
    # A ring crosses between nodes by one message at a time.
    assert price("ring", 8, 1, shared).seconds == pytest.approx(14 / 8)
    assert price("hierarchical@group=4", 8, 1, shared).seconds == pytest.approx(1)


def test_what_a_price_is_made_of() -> None:
    told = price("tree", 8, 1000, cluster(2.0, 0.5, 0.25))
    assert (told.alpha_count, told.beta_bytes, told.gamma_bytes) == (6, 6000, 3000)
    assert (told.latency_s, told.transfer_s, told.reduce_s) == (12.0, 3000.0, 750.0)
    assert told.seconds == 3762.0


def test_by_size_by_node_and_asynchronous() -> None:
    links = cluster(1e-6, 1e-9, 0.0, ranks_per_node=4)
    mixed = "tree:1K:ring"
    assert price(mixed, 8, 1024, links) == price("tree", 8, 1024, links)
    assert price(mixed, 8, 2048, links) == price("ring", 8, 2048, links)
    by_node = price("hierarchical@group=node", 8, 2048, links)
    assert by_node == price("hierarchical@group=4", 8, 2048, links)
    served = price("sharded-server@servers=2", 8, 2048, links)
    assert price("ps-async@servers=2", 8, 2048, links) == served


@pytest.mark.parametrize(
    ("rank_0", "told"),
    [
        ([Round((Recv(WHOLE, 1),)), Round((Send(WHOLE, 1),))], "wait for each other for ever"),
        ([Round((Recv(WHOLE, 1),))], "receives from 0 what it never sends"),
        ([Round((Send(WHOLE, 1),))], "are sent and never received"),
    ],
)
def test_schedules_that_do_not_fit(
    rank_0: list[Round], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank_1 = [Round((Recv(WHOLE, 0),)), Round((Send(WHOLE, 0),))]
    both = [Schedule(tuple(rank_0)), Schedule(tuple(rank_1))]
    monkeypatch.setattr("commbench.registry.Choice.schedule", lambda _, rank, size: both[rank])
    monkeypatch.setattr("commbench.network.cost._program", _program.__wrapped__)
    with pytest.raises(UserError, match=f"exchange tree is wrong on 2 ranks: .*{told}"):
        price("tree", 2, 1024, cluster(1, 1, 1))


def test_what_has_no_price() -> None:
    with pytest.raises(UserError, match="native leaves its work to the MPI library"):
        price("native", 4, 1024, cluster(1, 1, 1))
    with pytest.raises(UserError, match="powers of two"):
        price("halving-doubling", 6, 1024, cluster(1, 1, 1))
    with pytest.raises(UserError, match="cannot hold 129"):
        price("ring", 129, 1024, load_cluster("fat-tree"))


def test_thousands_of_ranks_are_one() -> None:
    links = cluster(5e-6, 1 / 6e9, 0.0)
    for spec in ("ring", "torus", "halving-doubling", "hierarchical@group=16"):
        terms = parse_exchange(spec).terms(4096)
        assert terms is not None
        told = price(spec, 4096, 1e8, links).seconds
        assert told == pytest.approx(terms.seconds(1e8, 5e-6, 1 / 6e9, 0.0), rel=1e-9)
    assert parse_exchange("ring").terms(100_000).alpha == Fraction(199_998)


@pytest.mark.parametrize("spec", ["tree", "ring", "torus", "parameter-server", "hierarchical"])
def test_beyond_thousands_a_formula_is_as_good(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    links = cluster(5e-6, 1 / 6e9, 1 / 5e9)
    played = price(spec, 100, 1e8, links)
    monkeypatch.setattr("commbench.network.cost._PLAYED", 99)
    told = price(spec, 100, 1e8, links)
    assert vars(told) == pytest.approx(vars(played))
    assert price(spec, 100_000, 1e8, links).seconds > told.seconds
