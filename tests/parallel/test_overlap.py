"""Buckets that are exchanged while backward goes on have the sums of those that are not."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mpi4py import MPI

from commbench.arrays import to_torch
from commbench.buckets import Fusion, lay_out, plan_buckets
from commbench.cli import commands
from commbench.job import Job
from commbench.overlap import Courier, Watch
from commbench.plans import plan_all
from commbench.registry import parse_exchange
from commbench.wire import FLOAT32
from commbench.wire.codec import open_codec, open_lanes

WIDTH = 37


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


@pytest.mark.parametrize(
    ("exchange", "transport"),
    [("ring", "mpi"), ("binary-blocks", "auto"), ("native", "auto"), ("tree:1K:ring", "auto")],
)
@pytest.mark.parametrize("fusion", [Fusion(nbytes=0), Fusion(nbytes=6000), Fusion(first=3)])
def test_sums(job: Job, exchange: str, transport: str, fusion: Fusion) -> None:
    choice = parse_exchange(exchange)
    plans = plan_all(job, [choice])
    # Of integers, so that sums are exact; one tensor never gets a gradient.
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)))
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(5)))
    buckets = plan_buckets(model.parameters(), fusion)
    lanes = open_lanes(
        [FLOAT32.buffers(bucket.shapes, job.size) for bucket in buckets],
        lambda nbytes: plans.own[choice.for_bytes(nbytes, job.size).spec],
        job=job,
        transport=transport,
        device="cpu",
        timeout_s=30,
        synchronize=lambda: None,
    )
    gradients = lay_out(buckets, lambda _: to_torch(lanes.memory))
    codecs = [
        open_codec(
            FLOAT32,
            gradients.flat[one.start : one.stop],
            one.shapes,
            own,
            workers=range(job.size),
            rank=job.rank,
        )
        for one, own in zip(buckets, lanes.of, strict=True)
    ]
    courier = Courier(
        [codec.exchange for codec in codecs],
        overlap=True,
        arrived=lambda: lambda: None,
        enter=lambda: None,
    )
    watch = Watch(buckets, courier)
    for step in range(3):
        gradients.clear()
        watch.arm()
        scale = job.rank + 1 + 10 * step
        sum(
            (place + 1) * scale * parameter.sum()
            for place, parameter in enumerate(model[0:4].parameters())
        ).backward()
        watch.disarm()
        gradients.complete()
        assert len(courier.finish()) == len(buckets)
        total = sum(rank + 1 + 10 * step for rank in range(job.size))
        for place, parameter in enumerate(model[0:4].parameters()):
            assert parameter.grad is not None
            assert (parameter.grad == (place + 1) * total).all()
        assert model.unused.grad.tolist() == [0] * 5


def test_training_ends_its_thread(job: Job, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = job.on_root(lambda: str(tmp_path_factory.mktemp("thread")))
    output = str(Path(folder, "run.h5"))
    line = f"train --model lstm-mnist --steps 2 --batch 14 --progress none --output {output}"
    before = threading.enumerate()
    commands.main(line.split(), standalone_mode=False)
    assert [thread for thread in threading.enumerate() if thread not in before] == []
