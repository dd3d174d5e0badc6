"""Gradients in every form over real MPI, against the same computed by one rank alone."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mpi4py import MPI
from numpy.typing import NDArray

from commbench.job import Job
from commbench.plans import plan_all
from commbench.registry import admitted, parse_exchange
from commbench.wire import parse_wire
from commbench.wire.codec import Codec, open_codec, open_lanes
from commbench.wire.gather import gather_plans

SIZE = MPI.COMM_WORLD.size
SPECS = ["tree", "ring", "halving-doubling", "parameter-server@server=dedicated", "tree:2K:ring"]
FIT = [one.spec for one in admitted([parse_exchange(spec) for spec in SPECS], SIZE)[0]]
SHAPES = [(50, 80), (1000,), (64, 3, 5, 5)]
COUNT = 4000 + 1000 + 4800
CASES = [
    ("cpu", "mpi"),
    ("cpu", "shared-memory"),
    pytest.param("cuda", "auto", marks=pytest.mark.gpu),
]


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


def open_all(
    job: Job, spec: str, exchange: str, device: str, transport: str
) -> tuple[torch.Tensor, Codec, list[int]]:
    """This rank's gradient, its codec, and the workers."""
    wire, choice = parse_wire(spec), parse_exchange(exchange)
    plans = plan_all(job, [choice])
    workers = next(iter(plans.workers.values()))
    if wire.gathers:
        plans = gather_plans(job, plans)
    synchronize = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    lanes = open_lanes(
        [wire.buffers(SHAPES, len(workers))],
        lambda nbytes: plans.own[choice.for_bytes(nbytes, job.size).spec],
        job=job,
        transport=transport,
        device=device,
        rounds=True,
        timeout_s=30,
        synchronize=synchronize,
    )
    gradient = torch.zeros(COUNT, device=device)
    codec = open_codec(wire, gradient, SHAPES, lanes.of[0], workers=workers, rank=job.rank)
    return gradient, codec, workers


def everyones(step: int, rank: int) -> NDArray[np.float32]:
    """A gradient without two entries of one size."""
    return np.random.default_rng([step, rank]).normal(size=COUNT).astype(np.float32)


def exchange(
    job: Job, gradient: torch.Tensor, codec: Codec, workers: list[int], own: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Exchange once; the sum on the workers, bitwise the same on all of them."""
    if job.rank in workers:
        gradient.copy_(torch.from_numpy(own))
        codec.exchange()
    else:
        codec.relay()
    found = gradient.cpu().numpy()
    bits = job.all_gather(found.view(np.int32))[workers]
    assert (bits == bits[0]).all()
    return found.copy() if job.rank in workers else None


@pytest.mark.parametrize("spec", FIT)
@pytest.mark.parametrize(("device", "transport"), CASES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_within_their_rounding(
    job: Job, spec: str, device: str, transport: str, dtype: str
) -> None:
    opened = open_all(job, dtype, spec, device, transport)
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    for step in range(2):
        found = exchange(job, *opened, everyones(step, job.rank))
        own = np.array([everyones(step, rank) for rank in opened[2]], np.float64)
        # Each contribution is rounded, and the sum at most once per worker.
        bound = (len(own) + 1) * unit * np.abs(own).sum(0)
        assert found is None or (np.abs(found - own.sum(0)) <= bound).all()


@pytest.mark.parametrize("spec", FIT)
@pytest.mark.parametrize(("device", "transport"), CASES)
def test_topk_is_the_dense_computation(job: Job, spec: str, device: str, transport: str) -> None:
    opened = open_all(job, "topk:0.01", spec, device, transport)
    left = {rank: np.zeros(COUNT, np.float32) for rank in opened[2]}
    for step in range(4):
        found = exchange(job, *opened, everyones(step, job.rank))
        total = np.zeros(COUNT, np.float32)
        for rank, kept in left.items():
            np.add(kept, everyones(step, rank), out=kept)
            sent = np.zeros_like(kept)
            largest = np.argsort(-np.abs(kept))[: COUNT // 100]
            sent[largest] = kept[largest]
            kept[largest] = 0
            total += sent
        if found is not None:
            np.testing.assert_array_equal(found, total)
            np.testing.assert_array_equal(opened[1].residual.cpu().numpy(), left[job.rank])


@pytest.mark.parametrize("spec", [*FIT, "native"])
@pytest.mark.parametrize(("device", "transport"), CASES)
def test_powersgd_of_low_rank_is_exact_to_rounding(
    job: Job, spec: str, device: str, transport: str
) -> None:
    opened = open_all(job, "powersgd:2", spec, device, transport)
    random = np.random.default_rng(5)
    one = np.concatenate(
        [
            (random.normal(size=(50, 2)) @ random.normal(size=(2, 80))).ravel(),
            random.normal(size=1000),
            (random.normal(size=(64, 2)) @ random.normal(size=(2, 75))).ravel(),
        ]
    )
    for step in range(2):  # the second time with the errors and the Q of the first
        own = ((job.rank + 1 + step) * one).astype(np.float32)
        found = exchange(job, *opened, own)
        total = sum(rank + 1 + step for rank in opened[2]) * one
        if found is not None:
            np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-4 * np.abs(total).max())


@pytest.mark.parametrize("spec", FIT)
def test_powersgd_sends_now_or_later(job: Job, spec: str) -> None:
    gradient, codec, workers = open_all(job, "powersgd:1", spec, "cpu", "auto")
    sent = np.zeros(COUNT)
    for step in range(5):
        found = exchange(job, gradient, codec, workers, everyones(step, job.rank))
        if found is not None:
            sent += found
    owed = np.zeros(COUNT)
    if job.rank in workers:
        errors = [one.error.numpy().ravel() for one in codec._matrices]
        owed[:4000], owed[5000:] = errors
    owed = job.all_sum(owed)
    total = sum(everyones(step, rank) for step in range(5) for rank in workers)
    if job.rank in workers:
        np.testing.assert_allclose(sent + owed, total, atol=1e-3)
