"""The executor over threads; tests/parallel runs it over MPI."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from commbench.arrays import ELEMENT_TYPES, Arrays, NumpyArrays, arrays_for, element_type
from commbench.errors import UserError
from commbench.registry import parse_exchange
from commbench.schedule import WHOLE, Piece, Recv, Round, Schedule, Send
from commbench.transport.waiting import PeerTimeout
from loopback import run_all

SPECS = ["parameter-server", "parameter-server@server=dedicated", "tree", "ring"]


def float32() -> Arrays:
    return NumpyArrays(element_type("float32"))


def inputs(size: int, count: int, dtype: np.dtype[np.generic]) -> list[NDArray[np.generic]]:
    """Small integers, different on every rank and at every index: exact in every element type."""
    return [((np.arange(count) + 3 * rank) % 7).astype(dtype) for rank in range(size)]


def check(
    schedules: list[Schedule],
    count: int,
    make: Callable[[], Arrays] = float32,
    segment_bytes: int = 64,
) -> None:
    buffers = inputs(len(schedules), count, make().kind.wire)
    workers = [rank for rank, schedule in enumerate(schedules) if schedule.contributes]
    expected = sum(buffers[rank].astype(np.float64) for rank in workers)
    run_all(schedules, buffers, make, segment_bytes=segment_bytes)
    for rank in workers:
        np.testing.assert_array_equal(buffers[rank].astype(np.float64), expected)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 500])
def test_sums(spec: str, size: int, count: int) -> None:
    check(parse_exchange(spec).schedules(size), count)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", list(ELEMENT_TYPES))
def test_element_types(spec: str, dtype: str) -> None:
    check(parse_exchange(spec).schedules(5), 333, lambda: NumpyArrays(element_type(dtype)))


def swap(rank: int) -> Schedule:
    return Schedule((Round((Send(WHOLE, 1 - rank), Recv(WHOLE, 1 - rank))),))


def test_two_ranks_that_swap_what_they_overwrite() -> None:
    # Longer than all segments in flight together: neither may wait for the other to take its own.
    check([swap(0), swap(1)], 1000, segment_bytes=40)


def test_copies_do_not_overtake_what_was_added_before() -> None:
    # Rank 0 first adds, then is overwritten by rank 1's own; in another order its sum would differ.
    zero = Schedule((Round((Recv(WHOLE, 2), Recv(WHOLE, 1, reduce=False))),))
    others = [Schedule((Round((Send(WHOLE, 0),)),))] * 2
    buffers = inputs(3, 200, np.dtype(np.float32))
    expected = buffers[1].copy()
    run_all([zero, *others], buffers, float32, segment_bytes=64)
    np.testing.assert_array_equal(buffers[0], expected)


def test_a_buffer_in_flight_is_not_overwritten() -> None:
    # Rank 0 sends, and in the next round receives over it, before rank 1 has taken anything.
    zero = Schedule((Round((Send(WHOLE, 1),)), Round((Recv(WHOLE, 2, reduce=False),))))
    one = Schedule((Round((Recv(WHOLE, 2),)), Round((Recv(WHOLE, 0),))))
    two = Schedule((Round((Send(WHOLE, 0),)), Round((Send(WHOLE, 1),))))
    buffers = inputs(3, 100, np.dtype(np.float32))
    expected = buffers[0] + buffers[1] + buffers[2]
    run_all([zero, one, two], buffers, float32, segment_bytes=64)
    np.testing.assert_array_equal(buffers[1], expected)


def test_all_to_all_twice() -> None:
    size = 4

    def one(rank: int) -> Schedule:
        others = [peer for peer in range(size) if peer != rank]
        own = Piece(rank, size)
        scatter = [*(Send(Piece(p, size), p) for p in others), *(Recv(own, p) for p in others)]
        gather = [Send(own, p) for p in others]
        back = [Recv(Piece(p, size), p, reduce=False) for p in others]
        return Schedule((Round(tuple(scatter)), Round((*gather, *back))))

    check([one(rank) for rank in range(size)], 997)


@pytest.mark.parametrize("spec", SPECS)
def test_an_exchange_runs_as_often_as_wanted(spec: str) -> None:
    schedules = parse_exchange(spec).schedules(3)
    buffers = [np.ones(50, np.float32) for _ in schedules]
    run_all(schedules, buffers, float32, times=3, segment_bytes=64)
    workers = sum(schedule.contributes for schedule in schedules)
    for buffer, schedule in zip(buffers, schedules, strict=True):
        if schedule.contributes:
            np.testing.assert_array_equal(buffer, workers**3)


def test_no_message_is_longer_than_a_segment() -> None:
    schedules = parse_exchange("ring").schedules(3)
    transports = run_all(
        schedules, inputs(3, 1000, np.dtype(np.float32)), float32, segment_bytes=400
    )
    assert [transport.longest for transport in transports] == [100] * 3
    # A third of 1000 elements is 4 segments, in each of 4 rounds.
    assert [transport.messages for transport in transports] == [16] * 3


def test_sixteen_bit_sums_are_rounded_once_per_message_not_once_per_addition() -> None:
    # 256 + 1 is 256 in bfloat16: adding 1 to it seven times in bfloat16 would leave it there.
    schedules = parse_exchange("parameter-server").schedules(8)
    buffers = [np.full(3, 256 if rank == 0 else 1, ml_dtypes.bfloat16) for rank in range(8)]
    run_all(schedules, buffers, lambda: NumpyArrays(element_type("bfloat16")))
    for buffer in buffers:
        np.testing.assert_array_equal(buffer.astype(np.float32), 264.0)  # nearest to 263


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_ranks_get_the_same_bits_and_every_run_does(spec: str, dtype: str) -> None:
    kind = element_type(dtype)
    schedules = parse_exchange(spec).schedules(6)
    workers = [rank for rank, schedule in enumerate(schedules) if schedule.contributes]
    results = set()
    for _ in range(3):
        noise = np.random.default_rng(5)
        buffers = [noise.normal(size=300).astype(kind.wire) for _ in schedules]
        run_all(schedules, buffers, lambda: NumpyArrays(kind), segment_bytes=64)
        results |= {buffers[rank].tobytes() for rank in workers}
    assert len(results) == 1


def test_a_silent_peer_ends_the_wait_with_rank_round_and_peer() -> None:
    waits = Schedule((Round(()), Round((Recv(WHOLE, 1),))))
    with pytest.raises(PeerTimeout, match=r"rank 0, round 1, waits for .* from rank 1: nothing"):
        run_all([waits, Schedule(())], inputs(2, 10, np.dtype(np.float32)), float32, timeout_s=0.05)


def test_a_peer_that_takes_nothing_ends_the_wait() -> None:
    sends = Schedule((Round((Send(WHOLE, 1),)),))
    with pytest.raises(PeerTimeout, match=r"rank 0, round 0, waits for .* to be taken by rank 1"):
        run_all([sends, Schedule(())], inputs(2, 10, np.dtype(np.float32)), float32, timeout_s=0.05)


def test_unknown_element_types_and_devices_are_told() -> None:
    with pytest.raises(UserError, match="no element type 'int8': choose from float32, float64"):
        arrays_for("cpu", "int8")
    with pytest.raises(UserError, match="no device 'tpu': choose cpu or cuda"):
        arrays_for("tpu", "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", list(ELEMENT_TYPES))
def test_cupy_gives_the_same_bits_as_numpy(spec: str, dtype: str) -> None:
    import cupy

    kind = element_type(dtype)
    schedules = parse_exchange(spec).schedules(4)
    noise = np.random.default_rng(5)
    host = [noise.normal(size=1000).astype(kind.wire) for _ in schedules]
    stored = [buffer.view(np.uint16) if dtype == "bfloat16" else buffer for buffer in host]
    device = [cupy.asarray(buffer) for buffer in stored]
    run_all(schedules, host, lambda: NumpyArrays(kind), segment_bytes=256)
    run_all(schedules, device, lambda: arrays_for("cuda", dtype), segment_bytes=256)
    for rank, schedule in enumerate(schedules):
        if schedule.contributes:
            assert cupy.asnumpy(device[rank]).tobytes() == host[rank].tobytes()
