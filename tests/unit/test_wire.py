"""What travels in the place of a gradient: each codec against a statement of its own in NumPy."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from commbench.arrays import NumpyArrays, element_type
from commbench.errors import UserError
from commbench.exchange import Exchange
from commbench.gathering import gathered
from commbench.registry import parse_exchange
from commbench.wire import LowRank, WireBuffer, WireFormat, check_exchange, describe, low_rank
from commbench.wire import parse_wire as parse
from commbench.wire.codec import Codec, Lane, open_codec
from commbench.wire.half import Half
from commbench.wire.powersgd import PowerSGD, orthonormal
from commbench.wire.topk import TopK
from loopback import LoopbackTransport, Wires

SHAPES = [(7,), (12, 10), (5, 3, 2, 2), (2, 2)]
COUNT = 7 + 120 + 60 + 4
Step = NDArray[np.float32]


def gradients(ranks: int, steps: int, seed: int = 0, count: int = COUNT) -> NDArray[np.float32]:
    """(steps, ranks, count) numbers without two of one size."""
    values = np.random.default_rng(seed).normal(size=(steps, ranks, count)).astype(np.float32)
    assert all(len(np.unique(np.abs(one))) == count for step in values for one in step)
    return values


def together(
    spec: str, exchange: str, steps: NDArray[np.float32], look: Callable[[Codec], None] = id
) -> NDArray[np.float32]:
    """Exchange the gradients of every step on ranks that are threads: (steps, ranks, count)."""
    wire, choice = parse(spec), parse_exchange(exchange)
    ranks = steps.shape[1]
    schedules = choice.schedules(ranks)
    workers = [rank for rank, one in enumerate(schedules) if one.contributes]
    buffers = wire.buffers(SHAPES, len(workers))
    if wire.gathers:
        schedules = gathered(schedules)
    wires, result, errors = Wires(), np.full_like(steps, np.nan), []

    def lane(buffer: WireBuffer, transport: LoopbackTransport) -> Lane:
        array = transport.allocate(buffer.count)
        array.view(np.uint8)[:] = 0xFF  # NaN: garbage must not get into a sum
        exchange = Exchange(schedules[transport.rank], array, transport, timeout_s=20)
        return Lane(array, exchange.run)

    def one(rank: int) -> None:
        try:
            arrays = NumpyArrays(element_type(wire.dtype))
            transport = LoopbackTransport(rank, ranks, arrays, wires)
            lanes = [lane(buffer, transport) for buffer in buffers]
            gradient = torch.zeros(COUNT)
            codec = open_codec(wire, gradient, SHAPES, lanes, workers=workers, rank=rank)
            for number, step in enumerate(steps):
                if rank not in workers:
                    codec.relay()
                    continue
                gradient.copy_(torch.from_numpy(step[rank]))
                codec.exchange()
                result[number, rank] = gradient.numpy()
            if rank in workers:
                look(codec)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    if errors:
        raise errors[0]
    return result[:, workers]


def same_on_all(result: NDArray[np.float32]) -> NDArray[np.float32]:
    assert (result.view(np.int32) == result[:, :1].view(np.int32)).all()
    return result[:, 0]


EXCHANGES = ["tree", "ring", "sharded-server", "parameter-server@server=dedicated"]


def contributors(exchange: str, ranks: int) -> slice:
    return slice(1, ranks) if "dedicated" in exchange else slice(0, ranks)


def dense_topk(steps: NDArray[np.float32], entries: int) -> tuple[Step, Step]:
    """Sums of what is sent, and what is left on each rank, with sorting and full vectors."""
    left = np.zeros_like(steps[0])
    sums = []
    for step in steps:
        left = left + step
        total = np.zeros(step.shape[1], np.float32)
        for rank, own in enumerate(left):
            largest = np.argsort(-np.abs(own), kind="stable")[:entries]
            sent = np.zeros_like(total)
            sent[largest] = own[largest]
            left[rank, largest] = 0
            total = total + sent
        sums.append(total)
    return np.array(sums), left


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 1])
def test_topk_is_the_dense_computation_bit_by_bit(
    exchange: str, ranks: int, fraction: float
) -> None:
    steps = gradients(ranks, 6)
    left: list[NDArray[np.float32]] = []
    found = same_on_all(
        together(f"topk:{fraction}", exchange, steps, lambda one: left.append(one.residual.numpy()))
    )
    own = steps[:, contributors(exchange, ranks)]
    expected, residuals = dense_topk(own, WireFormat("topk", fraction).entries(COUNT))
    np.testing.assert_array_equal(found, expected)
    by_first = sorted(map(tuple, left)), sorted(map(tuple, residuals))
    np.testing.assert_array_equal(*by_first)
    # What was sent and what is kept make up all gradients.
    kept = np.sum(residuals, axis=0, dtype=np.float64)
    np.testing.assert_allclose(found.sum(0) + kept, own.sum((0, 1), dtype=np.float64), atol=1e-5)


def alone(codec: type[TopK], gradient: torch.Tensor, entries: int) -> TopK:
    return codec(
        gradient, entries, Lane(np.zeros(2 * entries, np.float32), lambda: None), slot=0, workers=1
    )


def test_topk_tells_everybody_of_what_is_not_a_number() -> None:
    gradient = torch.zeros(100)
    codec = alone(TopK, gradient, 2)
    for step in range(4):
        gradient.copy_(torch.arange(100))
        if step == 3:
            gradient[50] = np.nan
        codec.exchange()
        assert bool(gradient.isnan().any()) == (step == 3)


def test_topk_of_zeros_and_of_nothing() -> None:
    gradient = torch.zeros(10)
    codec = alone(TopK, gradient, 3)
    for _ in range(3):
        codec.exchange()
        assert not gradient.any()
    alone(TopK, torch.zeros(0), 0).exchange()
    codec.residual += 1
    codec.reset()
    codec.exchange()
    assert not gradient.any()


def numpy_powersgd(steps: NDArray[np.float32], start: Sequence[Step]) -> tuple[Step, Step]:
    """Vogels' algorithms 1 and 2 in float64, and the errors of all ranks."""
    errors = np.zeros(steps.shape[1:])
    rights = [one.astype(np.float64).T for one in start]
    sums = []
    for step in steps.astype(np.float64):
        owed, total = step + errors, step.sum(0)
        errors = np.zeros_like(errors)
        first, number = 0, 0
        for shape in SHAPES:
            length = int(np.prod(shape))
            part = slice(first, first + length)
            first += length
            if len(shape) == 1 or length < 20:
                continue
            matrices = owed[:, part].reshape(len(owed), shape[0], -1)
            left, _ = np.linalg.qr((matrices @ rights[number]).sum(0))
            own = np.swapaxes(matrices, 1, 2) @ left
            rights[number] = own.sum(0)
            errors[:, part] = (matrices - left @ np.swapaxes(own, 1, 2)).reshape(len(owed), -1)
            total[part] = (left @ rights[number].T).ravel()
            number += 1
        sums.append(total)
    return np.array(sums), errors


def starts(rank: int) -> list[Step]:
    lanes = [Lane(np.zeros(COUNT, np.float32), lambda: None) for _ in range(2)]
    codec = PowerSGD(torch.zeros(COUNT), SHAPES, rank, lanes)
    return [one.start.numpy() for one in codec._matrices]


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("ranks", [2, 5])
@pytest.mark.parametrize("rank", [1, 2])
def test_powersgd_is_the_papers_algorithm(exchange: str, ranks: int, rank: int) -> None:
    steps = gradients(ranks, 4, seed=1)
    errors: list[NDArray[np.float64]] = []

    def look(codec: Codec) -> None:
        assert isinstance(codec, PowerSGD)
        errors.append(np.sum([float(one.error.square().sum()) for one in codec._matrices]))

    found = same_on_all(together(f"powersgd:{rank}", exchange, steps, look))
    own = steps[:, contributors(exchange, ranks)]
    expected, missed = numpy_powersgd(own, starts(rank))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sorted(errors), sorted((missed**2).sum(1)), rtol=1e-3)
    np.testing.assert_allclose(found.sum(0) + missed.sum(0), own.sum((0, 1)), atol=1e-3)
    np.testing.assert_allclose(found[:, :7], own[:, :, :7].sum(1), atol=1e-6)  # a vector


def test_powersgd_of_low_rank_is_exact_to_rounding() -> None:
    random = np.random.default_rng(2)
    steps = np.zeros((2, 3, COUNT), np.float32)
    # The matrices of all ranks lie in one space of two dimensions, and so does their sum.
    for start, rows, columns in ((7, 12, 10), (127, 5, 12)):
        factors = random.normal(size=(2, rows, 2)) @ random.normal(size=(2, 2, columns))
        steps[:, :, start : start + rows * columns] = factors.reshape(2, 1, -1) * [[1], [2], [-5]]
    found = same_on_all(together("powersgd:2", "ring", steps[:1]))
    np.testing.assert_allclose(found, steps[:1].sum(1), atol=2e-5)


def test_powersgd_comes_back_after_a_gradient_of_zeros() -> None:
    gradient = torch.zeros(COUNT)
    buffers = parse("powersgd:2").buffers(SHAPES, 1)
    lanes = [Lane(np.zeros(one.count, np.float32), lambda: None) for one in buffers]
    codec = PowerSGD(gradient, SHAPES, 2, lanes)
    codec.exchange()
    assert not gradient.any()
    gradient[7:127] = torch.outer(torch.arange(12.0), torch.arange(10.0)).flatten()
    wanted = gradient.clone()
    codec.exchange()
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-4)


def test_columns_become_orthonormal() -> None:
    columns = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    columns[:, 2] = 0
    columns[:, 3] = columns[:, 0] * 1e-20
    found = orthonormal(columns)
    gram = found.T @ found
    assert not found[:, 2].any()
    torch.testing.assert_close(gram[:2, :2], torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_sixteen_bits(dtype: str, exchange: str, ranks: int) -> None:
    steps = gradients(ranks, 1, seed=4)
    found = same_on_all(together(dtype, exchange, steps))
    own = steps[:, contributors(exchange, ranks)]
    exact = own.sum(1, dtype=np.float64)
    # Every contribution is rounded, and a sum once per hop, of which there are fewer than ranks.
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    bound = (ranks + 1) * unit * np.abs(own).sum(1)
    assert (np.abs(found - exact) <= bound).all()
    assert (found != exact).any()
    if exchange == "parameter-server@server=dedicated":
        # Nothing is rounded on the way: the terms, then the sum.
        numbers = np.dtype(dtype) if dtype == "float16" else np.dtype(ml_dtypes.bfloat16)
        scale = np.float32(2 ** int(np.ceil(np.log2(ranks - 1))) if dtype == "float16" else 1)
        total = np.zeros(COUNT, np.float32)
        for one in own[0]:
            total += (one * scale).astype(numbers).astype(np.float32)
        np.testing.assert_array_equal(found[0], total.astype(numbers).astype(np.float32) / scale)


def test_small_numbers_and_large_ones_in_float16() -> None:
    smallest = np.float32(2.0**-24)  # of float16
    gradient = torch.tensor([smallest / 4, smallest, 10000.0])
    codec = Half(gradient, "float16", Lane(np.zeros(3, np.float16), lambda: None), workers=3)
    assert codec.scale == 4
    codec.exchange()
    np.testing.assert_array_equal(gradient.numpy(), [smallest / 4, smallest, 10000])
    gradient[2] = 20000
    codec.exchange()
    assert gradient[2].isinf()
    alone = Half(gradient, "float16", Lane(np.zeros(3, np.float16), lambda: None), workers=1)
    assert alone.scale == 1


def test_what_is_sent() -> None:
    def sent(spec: str) -> list[tuple[int, str]]:
        return [(one.nbytes, one.dtype) for one in parse(spec).buffers(SHAPES, 3)]

    assert sent("float32") == [(4 * COUNT, "float32")]
    assert sent("bfloat16") == [(2 * COUNT, "bfloat16")]
    # Four slots, of 2 of 191 entries, each with its position.
    assert sent("topk:0.01") == [(4 * 2 * 8, "float32")]
    assert parse("topk:0.01").handed_in(SHAPES) == 16
    # (12, 10) and (5, 12) at rank 2, a vector of 7, and (2, 2), which would not get smaller.
    assert sent("powersgd:2") == [
        (4 * (2 * 12 + 2 * 5 + 7 + 4), "float32"),
        (4 * (2 * 10 + 2 * 12), "float32"),
    ]
    assert parse("powersgd:2").buffers([(7,)], 3) == [WireBuffer(7, "float32")]
    assert low_rank((5, 3, 2, 2), 9) is None
    assert low_rank((40, 30), 9) == LowRank(40, 30, 9)
    assert describe(parse("float32"), SHAPES) == ""
    assert "16 times less" not in describe(parse("float16"), SHAPES)
    assert describe(parse("float16"), SHAPES).endswith("2 times less")
    with pytest.raises(UserError, match="32 bits"):
        parse("topk:0.5").buffers([(1 << 31,)], 2)


@pytest.mark.parametrize("spec", ["float32", "float16", "bfloat16", "topk:0.01", "powersgd:4"])
def test_a_format_is_named_as_it_was_chosen(spec: str) -> None:
    assert parse(spec).spec == spec


@pytest.mark.parametrize(
    "spec",
    ["float8", "", "topk", "topk:", "topk:0", "topk:1.5", "topk:nan", "topk:x", "powersgd",
     "powersgd:0", "powersgd:1.5", "float16:2"],
)  # fmt: skip
def test_what_is_no_format_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match=r"choose float32, float16, bfloat16, topk:F"):
        parse(spec)


def test_what_a_format_cannot_travel_by_is_refused(tmp_path: Path) -> None:
    for wire, exchange, why in (
        ("float16", "ps-async", "only exchanges on a schedule"),
        ("topk:0.1", "ps-async", "only exchanges on a schedule"),
        ("topk:0.1", "native", "take the sums apart"),
        ("topk:0.1", "none", "exchanges nothing"),
    ):
        with pytest.raises(UserError, match=why):
            check_exchange(parse(wire), parse_exchange(exchange))
    check_exchange(parse("powersgd:2"), parse_exchange("native"))
    check_exchange(parse("float16"), parse_exchange("none"))
    check_exchange(parse("float32"), parse_exchange("ps-async"))
