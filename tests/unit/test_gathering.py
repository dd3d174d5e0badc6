"""Every all-reduce turned into an all-gather: each slot reaches each worker once, at every size."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from commbench.arrays import NumpyArrays, element_type
from commbench.errors import UserError
from commbench.gathering import gathered, pieces_of, prove_gathered, slot_count
from commbench.matching import ProofError
from commbench.registry import parse_exchange, topology_names
from commbench.schedule import Piece, Recv, Round
from loopback import run_all

SIZES = [*range(1, 18), 33]
PLAIN = [name for name in topology_names() if parse_exchange(name).plain]
SUMMING = [name for name in PLAIN if name not in ("none", "native")]
OPTIONS = [
    "parameter-server@server=dedicated",
    "sharded-server@servers=2",
    "tree@segments=3",
    "hierarchical@group=2@inner=tree@outer=double-tree",
]


@pytest.mark.parametrize("spec", [*SUMMING, *OPTIONS])
def test_every_worker_ends_with_every_slot(spec: str) -> None:
    proved = 0
    for size in SIZES:
        try:
            schedules = parse_exchange(spec).schedules(size)
        except UserError:
            continue  # not on so many ranks
        counts = prove_gathered(gathered(schedules))
        workers = [rank for rank, schedule in enumerate(schedules) if schedule.contributes]
        others = Fraction(len(workers) - 1, slot_count(len(workers)))
        assert {counts.received[rank] for rank in workers} <= {others}
        proved += 1
    assert proved >= 5  # the powers of two at least


@pytest.mark.parametrize("spec", [*SUMMING, *OPTIONS])
@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("length", [1, 6, 7, 1000])
def test_the_executor_gathers_every_element(spec: str, size: int, length: int) -> None:
    try:
        schedules = parse_exchange(spec).schedules(size)
    except UserError:
        return
    workers = [rank for rank, schedule in enumerate(schedules) if schedule.contributes]
    buffers = []
    for rank in range(size):
        buffer = np.full(slot_count(len(workers)) * length, np.nan, np.float32)
        if rank in workers:
            slot = workers.index(rank)
            buffer[slot * length : (slot + 1) * length] = 1000 * rank + np.arange(length)
        buffers.append(buffer)
    run_all(gathered(schedules), buffers, lambda: NumpyArrays(element_type("float32")))
    expected = np.concatenate([1000 * rank + np.arange(length) for rank in workers])
    for rank in workers:
        np.testing.assert_array_equal(buffers[rank][: len(expected)], expected)


def test_a_lost_message_and_a_strangers_slot_are_found() -> None:
    good = gathered(parse_exchange("parameter-server").schedules(3))
    first = good[1].rounds[0]
    lost = [replace(schedule, rounds=()) for schedule in good]
    with pytest.raises(ProofError, match="without slot"):
        prove_gathered(lost)
    moved = Round((replace(first.ops[0], piece=Piece(2, 4)),))
    there = good[0].rounds[0].ops
    into = [replace(op, piece=Piece(2, 4)) if op.source == 1 else op for op in there]
    assert all(isinstance(op, Recv) for op in into)
    wrong = [
        replace(good[0], rounds=(Round(tuple(into)), *good[0].rounds[1:])),
        replace(good[1], rounds=(moved, *good[1].rounds[1:])),
        good[2],
    ]
    with pytest.raises(ProofError, match="slot"):
        prove_gathered(wrong)


def test_what_the_library_adds_up_cannot_be_gathered() -> None:
    with pytest.raises(ValueError, match="take sums apart"):
        gathered(parse_exchange("native").schedules(2))


@pytest.mark.parametrize(
    ("start", "stop", "pieces"),
    [
        ("1/4", "1/2", [Piece(1, 4)]),
        ("1/4", "1", [Piece(1, 4), Piece(1, 2)]),
        ("1/12", "1/4", [Piece(1, 12), Piece(2, 12)]),
        ("0", "1", [Piece(0, 1)]),
    ],
)
def test_an_interval_is_cut_into_few_pieces(start: str, stop: str, pieces: list[Piece]) -> None:
    found = pieces_of(Fraction(start), Fraction(stop))
    assert sorted(found) == sorted(pieces)
