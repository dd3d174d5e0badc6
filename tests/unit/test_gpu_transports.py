"""GPU transports, as far as one process can tell: rules, refusals, kernels' sources."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from commbench.arrays import ELEMENT_TYPES, NumpyArrays, arrays_for, element_type
from commbench.errors import UserError
from commbench.registry import admitted, parse_exchange, topology_names
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send
from commbench.transport import GPU_TRANSPORTS, cuda_aware, gpus, nccl, transport_name
from lazy_device import LazyArrays, LazyDevice

OPTIONS = [
    "tree@segments=4",
    "double-tree@segments=3",
    "ring@segments=4",
    "parameter-server@server=dedicated",
    "sharded-server@servers=2",
    "hierarchical@group=2@inner=parameter-server@outer=binary-blocks",
]


def stuck_in_groups(schedules: Sequence[Schedule]) -> list[int]:
    """The ranks that never end if a round begins only after the whole of the one before.

    A message moves once both its ends have come to its round; a round ends with its last message.
    """
    sent, received = defaultdict(list), defaultdict(list)
    for rank, schedule in enumerate(schedules):
        for turn, step in enumerate(schedule.rounds):
            for op in step.ops:
                if isinstance(op, Send):
                    sent[rank, op.to].append(turn)
                elif isinstance(op, Recv):
                    received[op.source, rank].append(turn)
    needs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for (source, to), turns in sent.items():
        for out, into in zip(turns, received[source, to], strict=True):
            needs[source, out].append((to, into))
            needs[to, into].append((source, out))
    at = [0] * len(schedules)
    moving = True
    while moving:
        moving = False
        for rank, schedule in enumerate(schedules):
            while at[rank] < len(schedule.rounds) and all(
                at[peer] >= turn for peer, turn in needs[rank, at[rank]]
            ):
                at[rank] += 1
                moving = True
    return [rank for rank, schedule in enumerate(schedules) if at[rank] < len(schedule.rounds)]


@pytest.mark.parametrize("spec", [*topology_names(), *OPTIONS])
def test_no_exchange_gets_stuck_in_groups(spec: str) -> None:
    for size in (*range(1, 18), 24, 32, 33, 64):
        fit, _ = admitted([parse_exchange(spec)], size)
        if fit and fit[0].plain:
            assert stuck_in_groups(fit[0].schedules(size)) == [], size


def test_a_schedule_may_get_stuck_in_groups() -> None:
    # Rank 0's first round ends only with rank 1's second, and the other way round.
    def crossed(peer: int) -> Schedule:
        return Schedule((Round((Send(WHOLE, peer),)), Round((Recv(WHOLE, peer),))))

    assert stuck_in_groups([crossed(1), crossed(0)]) == [0, 1]


@pytest.mark.parametrize("name", GPU_TRANSPORTS)
def test_gpu_transports_are_for_gpus(name: str) -> None:
    assert transport_name(name, "cuda:0") == name
    with pytest.raises(UserError, match=f"--transport {name} is for --device cuda"):
        transport_name(name, "cpu")


def test_names_stand_for_transports() -> None:
    assert transport_name("auto", "cpu") == "shared-memory"
    assert transport_name("auto", "cuda:0") == "auto"
    assert transport_name("mpi", "cuda:0") == "staged"
    with pytest.raises(UserError, match="--transport shared-memory is for --device cpu"):
        transport_name("shared-memory", "cuda:0")


def test_nccl_wants_a_gpu_a_rank() -> None:
    ranks = ["a GPU-1", "a GPU-2", "b GPU-1", "a GPU-2"]
    assert nccl.why_not(ranks, 3) == "it shares its GPU with rank 1, and NCCL wants one GPU a rank"
    assert "shares" not in nccl.why_not(ranks, 2)


def test_the_mpi_library_says_whether_it_takes_gpu_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Library:
        answer = 0

        def __init__(self) -> None:
            self.MPIX_Query_cuda_support = lambda: self.answer

    library = Library()
    monkeypatch.setattr(cuda_aware, "_library", lambda: library)
    assert "says that it takes no GPU addresses" in cuda_aware.why_not()
    library.answer = 1
    assert cuda_aware.why_not() == ""
    monkeypatch.setattr(cuda_aware, "_library", lambda: None)
    assert "does not tell" in cuda_aware.why_not()


def test_this_mpi_library_can_be_asked() -> None:
    assert cuda_aware._library() is not None


def test_what_an_installation_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commbench.arrays.gpu_count", lambda: 0)
    assert set(gpus.missing()) == set(GPU_TRANSPORTS)
    assert set(gpus.missing().values()) == {"CuPy finds no CUDA device here"}
    monkeypatch.setattr("commbench.arrays.gpu_count", lambda: 1)
    lacking = gpus.missing()
    assert lacking["cuda-ipc"] == lacking["staged"] == ""
    assert "GPU addresses" in lacking["cuda-aware"]


def test_the_stand_in_is_lazy_and_keeps_order() -> None:
    arrays = LazyArrays(element_type("float32"))
    device = LazyDevice(arrays)
    first, second = np.zeros(3, np.float32), np.ones(3, np.float32)
    other = device.stream()
    arrays.add(first, second)
    device.wait(other, device.record(device.main))
    slot = arrays.host_slot(12).view(np.float32)
    device.copy(slot, first, other)
    event = device.record(other)
    assert first.sum() == 0
    while not device.done(event):
        pass
    assert (first == 1).all()
    assert (slot == 1).all()


@pytest.mark.parametrize("dtype", list(ELEMENT_TYPES))
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("ranks", [2, 5, 70])
def test_a_sum_of_all_terms_adds_in_order_and_rounds_once(
    dtype: str, device: str, ranks: int
) -> None:
    arrays, host = arrays_for(device, dtype), NumpyArrays(element_type(dtype))
    values = np.random.default_rng(1).normal(size=(ranks, 100_003))
    wires = [arrays.from_values(row) for row in values]
    expected = host.work_of(host.from_values(values[0]))
    host.decode(host.from_values(values[0]), expected)
    for row in values[1:]:
        host.add(expected, host.from_values(row))
    rounded = host.from_values(np.zeros(len(expected)))
    if rounded.dtype == expected.dtype:
        rounded[:] = expected
    host.encode(expected, rounded)

    work = arrays.work_of(wires[0])
    arrays.decode(wires[0], work)
    arrays.add_all(work, wires[0], wires[1:], wires[1:])
    arrays.synchronize()
    wanted = arrays.from_values(rounded.astype(np.float64))
    assert [arrays.differences(wire, wanted) for wire in wires] == [0] * ranks
