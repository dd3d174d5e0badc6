"""Double tree, hierarchical, torus and the pipelines: their shapes, options and costs."""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from commbench.arrays import NumpyArrays, element_type
from commbench.errors import UserError
from commbench.groups import Groups
from commbench.proof import prove
from commbench.registry import parse_exchange
from commbench.schedule import Piece, Recv, Schedule, Send
from commbench.topologies.hierarchical import OPEN, settle
from loopback import run_all

PIPELINES = ["ring", "tree", "double-tree"]
INNER = ["ring", "tree", "parameter-server"]
OUTER = [
    *("ring", "tree", "double-tree", "halving-doubling", "binary-blocks", "recursive-doubling"),
    *("torus", "sharded-server", "parameter-server"),
]
SIZES = [*range(1, 34), 44, 48, 64, 100, 128]


def grouped(size: int) -> Iterator[str]:
    """All choices of group and torus at one size."""
    for x in range(1, size + 1):
        if size % x == 0:
            yield f"torus@x={x}"
    for group in range(1, size + 2):
        for inner, outer in product(INNER, OUTER):
            groups = -(-size // min(group, size))
            if outer != "halving-doubling" or groups.bit_count() == 1:
                yield f"hierarchical@group={group}@inner={inner}@outer={outer}"


def volume(ops: Iterable[Send | Recv]) -> Fraction:
    return sum((Fraction(1, op.piece.of) for op in ops), Fraction(0))


def critical(schedules: list[Schedule]) -> tuple[Fraction, Fraction]:
    """Beta and gamma factors of schedules in lock-step: round by round, what the busiest rank does.

    Every rank sends and receives at once, but one message each at a time.
    """
    beta = gamma = Fraction(0)
    for turn in zip(*(schedule.rounds for schedule in schedules), strict=True):
        beta += max(max(volume(step.sends), volume(step.recvs)) for step in turn)
        gamma += max(volume(recv for recv in step.recvs if recv.reduce) for step in turn)
    return beta, gamma


def trees(size: int) -> list[list[list[int]]]:
    """For each of the two trees, the children of every rank."""
    adds = [
        [op for turn in schedule.rounds for op in turn.recvs if op.reduce]
        for schedule in parse_exchange("double-tree@segments=1").schedules(size)
    ]
    return [
        [sorted(op.source for op in own if op.piece == half) for own in adds]
        for half in (Piece(0, 2), Piece(1, 2))
    ]


@pytest.mark.parametrize("size", range(1, 14))
def test_every_option_is_proved_and_costs_what_its_formula_says(size: int) -> None:
    cut = [f"{name}@segments={number}" for name in PIPELINES for number in (1, 2, 3, 7)]
    for spec in [*cut, *grouped(size)]:
        choice = parse_exchange(spec)
        assert prove(choice.schedules(size)).closed_form() == choice.closed_form(size), spec


@pytest.mark.parametrize("size", range(2, 13))
def test_every_option_sums(size: int) -> None:
    # Odd lengths, among them fewer elements than pieces; messages cut as well.
    cut = [f"{name}@segments={number}" for name in PIPELINES for number in (2, 5)]
    chosen = [*cut, *list(grouped(size))[:: 1 + 2 * size]]
    for count, spec in zip([1, 3, 101, 257] * len(chosen), chosen, strict=False):
        buffers = [((np.arange(count) + 3 * r) % 7).astype(np.float32) for r in range(size)]
        expected = np.sum(buffers, axis=0)
        run_all(
            parse_exchange(spec).schedules(size),
            buffers,
            lambda: NumpyArrays(element_type("float32")),
            segment_bytes=64,
        )
        for buffer in buffers:
            np.testing.assert_array_equal(buffer, expected, spec)


@pytest.mark.parametrize("size", [*range(2, 70), 100, 127, 128])
def test_double_tree_nobody_works_twice(size: int) -> None:
    below = trees(size)
    inside = [rank for rank in range(size) if below[0][rank] and below[1][rank]]
    assert len(inside) == (size % 2 if size > 2 else 0)
    for children in below:
        assert max(map(len, children)) <= 2
        depth, reached = -1, set(range(size)) - {c for own in children for c in own}
        assert len(reached) == 1
        while reached:
            depth, reached = depth + 1, {child for rank in reached for child in children[rank]}
        assert depth <= (size - 1).bit_length()


def test_double_tree_is_nccls() -> None:
    even, odd = trees(12), trees(13)
    first = {0: [8], 8: [4, 10], 4: [2, 6], 2: [1, 3], 6: [5, 7], 10: [9, 11]}
    assert {rank: own for rank, own in enumerate(even[0]) if own} == first
    mirrored = {11 - rank: sorted(11 - child for child in own) for rank, own in first.items()}
    assert {rank: own for rank, own in enumerate(even[1]) if own} == mirrored
    assert odd[0][8] == [4, 12]
    assert odd[0][12] == [10]
    assert (odd[1][1], odd[1][9], odd[1][0]) == ([9], [0, 5], [11])


@pytest.mark.parametrize("size", [4, 5, 8, 13, 16])
def test_double_tree_approaches_twice_the_buffer_as_chunks_shrink(size: int) -> None:
    rounds = 2 * (size - 1).bit_length()
    for segments in (1, 8, 64):
        beta, gamma = critical(parse_exchange(f"double-tree@segments={segments}").schedules(size))
        assert 2 <= beta <= Fraction(2 * (rounds + segments - 1), segments)
        assert 1 <= gamma <= Fraction(rounds + segments - 1, segments)


def test_hierarchical_steps_and_bytes_of_the_paper() -> None:
    jia = parse_exchange("hierarchical@group=4")
    assert prove(jia.schedules(16)).rounds == 18
    assert prove(parse_exchange("ring").schedules(16)).rounds == 30
    assert critical(jia.schedules(16)) == (Fraction(9, 2), Fraction(3, 2))


def test_hierarchical_on_1024_ranks() -> None:
    jia = parse_exchange("hierarchical@group=16")
    cost = jia.closed_form(1024)
    assert cost is not None
    assert cost.rounds == 186
    beta, gamma = critical(jia.schedules(1024))
    assert (round(float(beta), 3), round(float(gamma), 3)) == (5.719, 1.922)
    assert jia.closed_form(1024) == parse_exchange("hierarchical").closed_form(1024)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
def test_hierarchical_is_proved_and_counted_at_every_size(inner: str, outer: str) -> None:
    choice = parse_exchange(f"hierarchical@inner={inner}@outer={outer}")
    for size in SIZES:
        groups = len(settle(size, OPEN).of(size))
        if outer == "halving-doubling" and groups.bit_count() > 1:
            told = f"{outer} between {groups} groups works on powers of two"
            with pytest.raises(UserError, match=told) as refused:
                choice.schedules(size)
            # The group sizes it names do work.
            named = re.findall(r"give (group=.*) or another outer", str(refused.value))[0]
            for group in named.split(", "):
                prove(parse_exchange(f"{choice.spec}@{group}").schedules(size))
            continue
        assert prove(choice.schedules(size)).closed_form() == choice.closed_form(size), size


@pytest.mark.parametrize(
    ("size", "group"),
    [
        (8, "0+2+4+6/1+3+5+7"),  # two nodes, ranks dealt out in turn
        (7, "0+2+4+6/1+3+5"),
        (12, "0+4+8/1+5+9/2+6+10/3+7+11"),
        (9, "0-1/2-6/7-8"),
        (9, "8/0-6/7"),
        (10, "5-9/0+2+4/3/1"),
        (6, "2+0+1/5-5/4+3"),
        (5, "0/1/2/3/4"),
        (5, "4+0-3"),
    ],
)
def test_hierarchical_on_any_placement(size: int, group: str) -> None:
    groups = Groups(group).of(size)
    masters = {ranks[0] for ranks in groups}
    home = {rank: number for number, ranks in enumerate(groups) for rank in ranks}
    for inner, outer in product(INNER, OUTER):
        if outer == "halving-doubling" and len(groups).bit_count() > 1:
            continue
        choice = parse_exchange(f"hierarchical@group={group}@inner={inner}@outer={outer}")
        schedules = choice.schedules(size)
        formula = choice.closed_form(size)
        assert formula in (None, prove(schedules).closed_form())
        widths = [len(ranks) for ranks in groups]
        assert (formula is None) == (len({*widths[:-1]}) > 1 or widths[-1] > widths[0])
        for rank, schedule in enumerate(schedules):
            abroad = {home[op.to] for turn in schedule.rounds for op in turn.sends} - {home[rank]}
            assert not abroad or rank in masters


def test_hierarchical_groups_of_one_and_of_all() -> None:
    assert parse_exchange("hierarchical@group=1").schedules(6) == parse_exchange("ring").schedules(
        6
    )
    alone = parse_exchange("hierarchical@group=6@inner=tree").schedules(6)
    assert alone == parse_exchange("tree").schedules(6)
    assert parse_exchange("hierarchical@group=99@inner=tree").schedules(6) == alone


def test_hierarchical_only_masters_leave_their_group() -> None:
    for rank, schedule in enumerate(parse_exchange("hierarchical@group=3").schedules(8)):
        abroad = {op.to // 3 for turn in schedule.rounds for op in turn.sends} - {rank // 3}
        assert bool(abroad) == (rank in (0, 3, 6))


@pytest.mark.parametrize("size", [2, 6, 7, 12, 16])
def test_torus_moves_as_little_as_the_ring(size: int) -> None:
    least = Fraction(2 * (size - 1), size)
    schedules = parse_exchange("torus").schedules(size)
    assert critical(schedules) == (least, least / 2)
    assert prove(schedules).rounds == {2: 2, 6: 6, 7: 12, 12: 10, 16: 12}[size]


def test_torus_of_a_prime_number_is_the_ring() -> None:
    assert parse_exchange("torus").schedules(7) == parse_exchange("ring").schedules(7)
    assert parse_exchange("torus@x=7").closed_form(7) == parse_exchange("ring").closed_form(7)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("torus@x=3", "torus@x=3 on 8 ranks: x=3 does not divide 8: choose one of 1, 2, 4, 8"),
        ("torus@x=-2", "x=-2 does not divide 8"),
        (
            "hierarchical@group=-1",
            "group=-1: '-1' is not a number of neighbours",
        ),
        ("hierarchical@group=node", "group=node is known only inside a job"),
        ("hierarchical@group=0-3/4-6", "must name each of the ranks 0 to 7 once"),
        ("hierarchical@group=0-3/3-6", "must name each of the ranks 0 to 7 once"),
        ("hierarchical@group=0-999999999999", "must name each of the ranks 0 to 7 once"),
        ("double-tree@segments=0", "segments=0: there must be at least 1"),
        ("tree@segments=-1", "segments=-1: there must be at least 1"),
        ("ring@segments=half", "segments=half is not of type int"),
        ("hierarchical@outer=native", "outer=native is not one of ring, tree"),
    ],
)
def test_bad_options_are_told(spec: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_exchange(spec).schedules(8)
