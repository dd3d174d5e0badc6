"""Compiled programs, without MPI: ranks are tables in one process that are stepped by turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from commbench.arrays import NumpyArrays, element_type
from commbench.cutting import cut
from commbench.loans import find_loans
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send
from commbench.transport import compiled
from commbench.transport.compiled import Ground, Program, can_play
from loopback import run_all

pytestmark = pytest.mark.skipif(compiled.library() is None, reason="no compiler built play.c")

PLAIN = [
    choice
    for choice in map(parse_exchange, topology_names())
    if choice.plain and choice.name not in ("none", "native")
]
# Of mailbox.py: a lane's words.
LANE = 8 * 16


@dataclass
class Node:
    """Ranks that share a buffer of `count` elements each, as `SharedMemoryTransport` lays it out.

    Attributes:
        buffers: ``(2 count,)`` of each rank; the second half is for copies.
    """

    buffers: list[np.ndarray]

    def __post_init__(self) -> None:
        size = len(self.buffers)
        self.lanes = np.zeros((size, size, LANE), np.int64)  # of the receiver and the sender
        self.sent = np.zeros((size, size), np.int64)
        self.expected = np.zeros((size, size), np.int64)
        self.places = np.array([[one.ctypes.data for one in self.buffers]], np.int64)

    def program(self, rank: int, schedule: Schedule, segment: int, copiers: int) -> Program:
        own = self.buffers[rank]
        count, ranks = len(own) // 2, range(len(self.buffers))
        plan = cut(schedule, count, lambda peer: segment)
        find_loans(plan, lambda peer: True, copiers)
        assert can_play(plan, own, ranks)
        lanes = {
            peer: (
                self.lanes[peer, rank].ctypes.data,
                self.lanes[rank, peer].ctypes.data,
                self.sent[rank, peer:].ctypes.data,
                self.expected[rank, peer:].ctypes.data,
            )
            for peer in ranks
        }
        ground = Ground(
            wire=own[:count],
            copies=own[count:],
            crowded=True,
            lanes=lanes,
            number=0,
            start=own.ctypes.data,
            buffers=lambda: self.places.ctypes.data,
        )
        return Program(plan, ground)


def step_all(programs: Sequence[Program], seed: int = 0) -> None:
    """Run every program once; whose turn it is to go on is drawn."""
    draw = np.random.default_rng(seed)
    for program in programs:
        program.begin()
    running = list(range(len(programs)))
    for _ in range(10_000):
        rank = int(draw.choice(running))
        if programs[rank].go_on(0) is None:
            running.remove(rank)
        if not running:
            return
    raise AssertionError(f"ranks {running} hang")


def run_compiled(
    schedules: Sequence[Schedule], inputs: list[np.ndarray], segment: int, copiers: int, times: int
) -> list[np.ndarray]:
    node = Node([np.concatenate([one, np.zeros_like(one)]) for one in inputs])
    programs = [
        node.program(rank, schedule, segment, copiers) for rank, schedule in enumerate(schedules)
    ]
    for seed in range(times):
        step_all(programs, seed)
    return [buffer[: len(buffer) // 2] for buffer in node.buffers]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("copiers", [2, 8])
@pytest.mark.parametrize("segment", [4, 1 << 20])  # of 4 elements: more messages than slots
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
def test_every_exchange_gives_the_bits_that_python_gives(
    size: int, segment: int, copiers: int, dtype: str
) -> None:
    kind = element_type(dtype)
    choices, _ = admitted(PLAIN, size)
    noise = np.random.default_rng(5)
    for choice in choices:
        schedules = choice.schedules(size)
        inputs = [noise.normal(size=203).astype(kind.wire) for _ in range(size)]
        expected = [one.copy() for one in inputs]
        run_all(
            schedules,
            expected,
            lambda: NumpyArrays(kind),
            times=2,
            segment_bytes=segment * kind.itemsize,
        )
        found = run_compiled(schedules, inputs, segment, copiers, times=2)
        for mine, his in zip(found, expected, strict=True):
            assert mine.tobytes() == his.tobytes(), choice.spec


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 511, 512, 513, 5000])
def test_lengths_around_blocks_and_vectors(count: int) -> None:
    inputs = [(np.arange(count) % 7 + rank).astype(np.float32) for rank in range(3)]
    schedules = parse_exchange("sharded-server").schedules(3)
    for found in run_compiled(schedules, inputs, 1 << 20, 8, times=1):
        np.testing.assert_array_equal(found, sum(inputs))


@pytest.mark.parametrize("spec", ["ring", "recursive-doubling"])
def test_copies_that_go_past_the_caches(spec: str) -> None:
    # Pieces begin and end anywhere in a cache line.
    inputs = [(np.arange(300_003) % 7 + rank).astype(np.float32) for rank in range(4)]
    schedules = parse_exchange(spec).schedules(4)
    for found in run_compiled(schedules, inputs, 1 << 20, 8, times=1):
        np.testing.assert_array_equal(found, sum(inputs))


def test_ranks_that_swap_send_a_copy() -> None:
    schedules = [
        Schedule((Round((Send(WHOLE, 1 - rank), Recv(WHOLE, 1 - rank))),)) for rank in (0, 1)
    ]
    inputs = [np.full(100, rank + 1, np.float32) for rank in (0, 1)]
    for found in run_compiled(schedules, inputs, 30, 8, times=3):
        assert (found == 12).all()


def test_says_whom_it_waits_for() -> None:
    schedules = parse_exchange("parameter-server").schedules(3)
    node = Node([np.ones(20, np.float32) for _ in schedules])
    server, first, second = (node.program(rank, one, 100, 8) for rank, one in enumerate(schedules))
    for program in (server, first, second):
        program.begin()
    step = server.go_on(0)
    assert step is not None
    what, peer = server.waits_for(step)
    assert (peer, what.turn, what.start, what.stop) == (1, 0, 0, 10)
    assert first.go_on(0) is not None
    step = server.go_on(0)
    assert step is not None
    assert server.waits_for(step)[1] == 2
    assert second.go_on(0) is not None
    step = server.go_on(0)
    assert step is not None
    assert server.waits_for(step)[1] == 1  # until rank 1 has taken the sum


def test_elements_in_memory_of_the_senders_own_are_refused() -> None:
    schedules = parse_exchange("parameter-server").schedules(2)
    node = Node([np.ones(20, np.float32) for _ in schedules])
    server = node.program(0, schedules[0], 100, 8)
    server.begin()
    private = -1
    node.lanes[0, 1, 8:13] = 1, private, 0, 40, 0
    with pytest.raises(RuntimeError, match="must be allocated"):
        server.go_on(0)


def test_what_cannot_be_played() -> None:
    buffer = np.zeros(10, np.float32)
    plan = cut(parse_exchange("ring").schedule(0, 4), 10, lambda peer: 100)
    assert can_play(plan, buffer, range(4))
    assert not can_play(plan, buffer, range(3)), "rank 3 is of another node"
    assert not can_play(plan, buffer.astype(np.float16), range(4))
    native = cut(parse_exchange("native").schedule(0, 4), 10, lambda peer: 100)
    assert not can_play(native, buffer, range(4))


def test_python_does_it_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = cut(parse_exchange("ring").schedule(0, 4), 10, lambda peer: 100)
    compiled.library.cache_clear()
    monkeypatch.setenv("COMMBENCH_COMPILED", "0")
    try:
        assert compiled.library() is None
        assert not can_play(plan, np.zeros(10, np.float32), range(4))
    finally:
        compiled.library.cache_clear()
