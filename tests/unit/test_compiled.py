"""Compiled programs, without MPI: ranks are tables in one process that are stepped by turns."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mpi4py
import numpy as np
import pytest

from commbench.arrays import NumpyArrays, element_type
from commbench.cutting import cut
from commbench.loans import find_loans
from commbench.prepared import WINDOW
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send, traffic
from commbench.transport import compiled
from commbench.transport.compiled import Program, can_play
from commbench.transport.translation import Ground
from loopback import run_all

pytestmark = pytest.mark.skipif(
    compiled.library() is None and shutil.which("cc") is None, reason="no compiler to build play.c"
)

PLAIN = [
    choice
    for choice in map(parse_exchange, topology_names())
    if choice.plain and choice.name not in ("none", "native")
]
# Of mailbox.py: a lane's words.
LANE = 8 * 16


@dataclass(eq=False)
class Request:
    """A persistent request: of a rank, to send or receive elements; its number is its handle."""

    data: np.ndarray
    wire: tuple[int, int]
    sends: bool
    number: ctypes.c_int64
    active: bool = False


class Library:
    """MPI as adverse as it may be: elements move only when one of both ends asks about them."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.requests: list[Request] = []
        self.posted: dict[tuple[int, int], tuple[list[Request], list[Request]]] = {}
        self.started = self.most_under_way = 0
        self.fails = False
        call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int64))
        ask = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_void_p,
        )
        self.calls = call(self.start), ask(self.test)

    def request(self, data: np.ndarray, wire: tuple[int, int], sends: bool) -> Request:
        self.requests.append(Request(data, wire, sends, ctypes.c_int64(len(self.requests))))
        return self.requests[-1]

    def start(self, handle: Any) -> int:
        request = self.requests[handle[0]]
        assert not request.active, "it was started while it was under way"
        request.active = True
        self.started += request.sends
        ends = self.posted.setdefault(request.wire, ([], []))
        ends[request.sends].append(request)
        self.most_under_way = max(self.most_under_way, len(ends[True]))
        return 15 * self.fails

    def test(self, handle: Any, flag: Any, status: Any) -> int:
        request = self.requests[handle[0]]
        receives, sends = self.posted.get(request.wire, ([], []))
        if request.active and receives and sends:
            receive, send = receives.pop(0), sends.pop(0)
            receive.data[:] = send.data
            receive.active = send.active = False
        flag[0] = not request.active
        return 0


class FarEnd:
    """One rank's `Requests`."""

    def __init__(self, library: Library, rank: int) -> None:
        self.library, self.rank = library, rank

    def send_request(self, data: np.ndarray, to: int) -> Request:
        return self.library.request(data, (self.rank, to), sends=True)

    def receive_request(self, into: np.ndarray, source: int) -> Request:
        return self.library.request(into, (source, self.rank), sends=False)

    def landing(self, count: int) -> np.ndarray:
        return np.full(WINDOW * count, np.nan, self.library.dtype)

    def free_after(self, owner: object, requests: list[Request]) -> None:
        assert requests

    def handle(self, request: Request) -> int:
        return ctypes.addressof(request.number)

    def calls(self) -> tuple[int, int]:
        start, test = (ctypes.cast(call, ctypes.c_void_p).value for call in self.library.calls)
        return start or 0, test or 0


@dataclass
class Node:
    """Ranks that share a buffer of `count` elements each, as `SharedMemoryTransport` lays it out.

    Attributes:
        buffers: ``(2 count,)`` of each rank; the second half is for copies.
        near: how many ranks in a row are of one node.
    """

    buffers: list[np.ndarray]
    near: int = 1 << 30

    def __post_init__(self) -> None:
        size = len(self.buffers)
        self.lanes = np.zeros((size, size, LANE), np.int64)  # of the receiver and the sender
        self.sent = np.zeros((size, size), np.int64)
        self.expected = np.zeros((size, size), np.int64)
        self.library = Library(self.buffers[0].dtype)
        self.listed: list[np.ndarray] = []

    def program(self, rank: int, schedule: Schedule, segment: int, copiers: int) -> Program:
        own = self.buffers[rank]
        count, ranks = len(own) // 2, range(len(self.buffers))
        first = rank // self.near * self.near
        node = ranks[first : first + self.near]
        plan = cut(schedule, count, lambda peer: segment)
        find_loans(plan, node.__contains__, copiers)
        assert can_play(plan, own, ranks)
        # The second of two shared buffers; the first is nowhere.
        places = np.array(
            [[0 for _ in node], [self.buffers[peer].ctypes.data for peer in node]], np.int64
        )
        self.listed.append(places)
        lanes = {
            peer: (
                self.lanes[peer, rank].ctypes.data,
                self.lanes[rank, peer].ctypes.data,
                self.sent[rank, peer:].ctypes.data,
                self.expected[rank, peer:].ctypes.data,
            )
            for peer in node
        }
        wire = own[:count]
        work = NumpyArrays(element_type(wire.dtype.name)).work_of(wire)
        self.listed.append(work)
        ground = Ground(
            wire=wire,
            work=work,
            copies=own[count:],
            crowded=True,
            lanes=lanes,
            number=1,
            start=own.ctypes.data,
            buffers=lambda: places.ctypes.data,
            far=FarEnd(self.library, rank),
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
    schedules: Sequence[Schedule],
    inputs: list[np.ndarray],
    *,
    segment: int = 1 << 20,
    copiers: int = 8,
    times: int = 1,
    near: int = 1 << 30,
) -> list[np.ndarray]:
    node = Node([np.concatenate([one, np.zeros_like(one)]) for one in inputs], near)
    programs = [
        node.program(rank, schedule, segment, copiers) for rank, schedule in enumerate(schedules)
    ]
    for seed in range(times):
        step_all(programs, seed)
    assert node.library.most_under_way <= 8
    return [buffer[: len(buffer) // 2] for buffer in node.buffers]


@pytest.mark.parametrize(
    ("copiers", "near"),
    [
        pytest.param(2, 8, id="one node of two cores"),
        pytest.param(8, 8, id="one node"),
        pytest.param(8, 1, id="MPI alone"),
        pytest.param(8, 2, id="two ranks a node"),
        pytest.param(8, 3, id="three ranks a node"),
    ],
)
@pytest.mark.parametrize("segment", [4, 1 << 20])  # of 4 elements: more messages than slots
@pytest.mark.parametrize(
    ("size", "dtype"),
    [(2, "float16"), (3, "float64"), (4, "float32"), (7, "bfloat16"), (8, "float16")],
)
def test_every_exchange_gives_the_bits_that_python_gives(
    size: int, segment: int, copiers: int, near: int, dtype: str
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
        found = run_compiled(
            schedules, inputs, segment=segment, copiers=copiers, times=2, near=near
        )
        for mine, his in zip(found, expected, strict=True):
            assert mine.tobytes() == his.tobytes(), choice.spec


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_widened_and_rounded_as_numpy_does(dtype: str) -> None:
    kind = element_type(dtype)
    every = np.arange(1 << 16).astype(np.uint16).view(kind.wire)
    every = every[~np.isnan(every.astype(np.float32))]
    # Rank 1 adds what moves a value to the middle between its neighbours, and next to it.
    steps = np.nextafter(every.astype(np.float32), np.float32(np.inf)) * np.float32(0.7)
    with np.errstate(over="ignore", invalid="ignore"):
        other = steps.astype(kind.wire)
        expected = (every.astype(np.float32) + other.astype(np.float32)).astype(kind.wire)
    schedules = parse_exchange("parameter-server").schedules(2)
    for found in run_compiled(schedules, [every, other]):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), every[~same]


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 511, 512, 513, 5000])
def test_lengths_around_blocks_and_vectors(count: int) -> None:
    inputs = [(np.arange(count) % 7 + rank).astype(np.float32) for rank in range(3)]
    schedules = parse_exchange("sharded-server").schedules(3)
    for found in run_compiled(schedules, inputs):
        np.testing.assert_array_equal(found, sum(inputs))


@pytest.mark.parametrize("spec", ["ring", "recursive-doubling"])
def test_copies_that_go_past_the_caches(spec: str) -> None:
    # Pieces begin and end anywhere in a cache line.
    inputs = [(np.arange(300_003) % 7 + rank).astype(np.float32) for rank in range(4)]
    schedules = parse_exchange(spec).schedules(4)
    for found in run_compiled(schedules, inputs):
        np.testing.assert_array_equal(found, sum(inputs))


def test_ranks_that_swap_send_a_copy() -> None:
    schedules = [
        Schedule((Round((Send(WHOLE, 1 - rank), Recv(WHOLE, 1 - rank))),)) for rank in (0, 1)
    ]
    inputs = [np.full(100, rank + 1, np.float32) for rank in (0, 1)]
    for found in run_compiled(schedules, inputs, segment=30, times=3):
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


@pytest.mark.parametrize("near", [1, 2, 8])
@pytest.mark.parametrize("spec", ["ring", "tree", "sharded-server", "recursive-doubling"])
def test_sends_what_the_schedule_says(spec: str, near: int) -> None:
    schedules = parse_exchange(spec).schedules(8)
    node = Node([np.ones(2 * 1001, np.float32) for _ in schedules], near)
    step_all([node.program(rank, one, 1 << 20, 8) for rank, one in enumerate(schedules)])
    moved = [traffic(one, 1001) for one in schedules]
    far = [request for request in node.library.requests if request.sends]
    assert node.library.started == len(far)
    for rank, one in enumerate(moved):
        own = [request.data for request in far if request.wire[0] == rank]
        assert node.sent[rank].sum() + len(own) == one.messages_sent
        if near == 1:
            assert sum(map(len, own)) == one.elements_sent


def test_an_error_of_mpi_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules = parse_exchange("parameter-server").schedules(2)
    node = Node([np.ones(20, np.float32) for _ in schedules], near=1)
    worker = node.program(1, schedules[1], 100, 8)
    worker.begin()
    node.library.fails = True
    monkeypatch.setattr(mpi4py, "MPI", SimpleNamespace(Exception=OSError), raising=False)
    with pytest.raises(OSError, match="15"):
        worker.go_on(0)


def test_what_cannot_be_played() -> None:
    buffer = np.zeros(10, np.float32)
    plan = cut(parse_exchange("ring").schedule(0, 4), 10, lambda peer: 100)
    assert can_play(plan, buffer, range(4))
    assert not can_play(plan, buffer, range(3)), "rank 3 is of another node"
    assert not can_play(plan, buffer.astype(np.int32), range(4))
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
