"""Training steps against PyTorch's DDP, on a job of ranks: `python -m benchmarks.training`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    import torch

    from commbench.job import Job
    from commbench.record import RunFile

# Every rank's samples of a step, and the side of its images.
MODELS = {"nin": (16, 48), "alexnet": (16, 67), "resnet50": (8, 64)}
OURS, FLOOR, DDP, DDP_FLOOR = "ours", "ours, no exchange", "DDP", "DDP, no exchange"
CANDIDATES = (OURS, FLOOR, DDP, DDP_FLOOR)
_WARMUP = 2
_PYTHONS_S = sys.getswitchinterval()


@click.command()
@click.option("--models", default=",".join(MODELS), show_default=True)
@click.option("--exchange", default="sharded-server", show_default=True)
@click.option("--fusion-bytes", help="Of ours, as of `commbench train`; DDP keeps its own 25 MiB.")
@click.option("--rounds", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(**options: Any) -> None:
    """Train in turn with our exchange, with none, with DDP over Gloo, and with DDP's no_sync."""
    from commbench.job import mpi_job

    with mpi_job(options["timeout"]) as job:
        _measure(job, options)


def _measure(job: Job, options: dict[str, Any]) -> None:
    """Time all models; collective."""
    from benchmarks.gloo import Gloo
    from commbench.record import check_output

    job.on_root(lambda: check_output(options["output"]))
    models = options["models"].split(",")
    gloo = Gloo(job)
    file = job.keep_on_root(lambda: _create(job, models, options))
    for index, name in enumerate(models):
        with job.watchdog.guard(f"rank {job.rank} trains {name}"):
            _time(job, name, index, options, file)
    gloo.close()
    if file is not None:
        file.finish()


def _time(job: Job, name: str, index: int, options: dict[str, Any], file: RunFile | None) -> None:
    with closing(Contest(job, name, options)) as contest:
        apart = contest.apart()
        if file is not None:
            file["training/apart"][index] = apart
            print(f"# {name}: after {_WARMUP} steps the weights are {apart:.1e} apart", flush=True)
        _take_turns(job, contest, index, options["rounds"], file)


def _take_turns(job: Job, contest: Contest, index: int, rounds: int, file: RunFile | None) -> None:
    # Ours lets threads have Python's lock sooner, with which DDP is not to be burdened.
    ours_s = sys.getswitchinterval()
    for turn in range(-_WARMUP, rounds):
        # Whoever comes first in one round comes last in another.
        for place in range(len(CANDIDATES)):
            number = (place + turn) % len(CANDIDATES)
            name = CANDIDATES[number]
            sys.setswitchinterval(ours_s if name in {OURS, FLOOR} else _PYTHONS_S)
            job.barrier()
            start = perf_counter()
            contest.steps[name]()
            seconds = job.gather(np.array([perf_counter() - start]))
            if file is not None and seconds is not None and turn >= 0:
                file["training/seconds"][index, number, turn] = seconds[:, 0]


@dataclass(frozen=True)
class Fixed:
    """One batch of random images, always the same: input costs nothing here."""

    images: torch.Tensor
    labels: torch.Tensor

    def batch(self, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """It."""
        return self.images, self.labels


class Contest:
    """One model twice, ours and DDP's, from the same weights on the same batch.

    Attributes:
        steps: what takes a training step, by candidate.
    """

    def __init__(self, job: Job, name: str, options: dict[str, Any]) -> None:
        """Build both; collective."""
        import torch
        from torch.nn.parallel import DistributedDataParallel

        from commbench.buckets import parse_fusion
        from commbench.overlap import Courier
        from commbench.plans import plan_all
        from commbench.registry import parse_exchange
        from commbench.replica import Replica
        from commbench.wire import FLOAT32
        from commbench.workloads.data.loader import Batch, Request
        from commbench.workloads.models import parse_model
        from commbench.workloads.models.dropout import sample_keys, set_samples
        from commbench.workloads.recipes import load_recipe

        batch, size = MODELS[name]
        choice = parse_model(name)
        task = choice.task(10, size)
        exchange = parse_exchange(options["exchange"])
        plans = plan_all(job, [exchange])
        # Plain SGD for both, with fused updates, as ours are.
        recipe = load_recipe(
            "goyal-resnet50@warmup=@schedule.kind=constant@schedule.at=@schedule.factor="
            "@optimizer.nesterov=false@weight_decay=0@lr_scaling=none@reference_lr=0.001"
        )
        generator = torch.Generator().manual_seed(job.rank)
        shape = (batch, *task.shape)
        self._data = Fixed(
            torch.randn(shape, generator=generator),
            torch.randint(10, (batch,), generator=generator),
        )
        self._ours = Replica(
            job,
            choice.build(task, width=1.0, seed=1),
            recipe=recipe,
            plan=recipe.plan(batch * job.size, 1000),
            schedule_for=lambda nbytes: plans.own[exchange.for_bytes(nbytes, job.size).spec],
            wire=FLOAT32,
            workers=range(job.size),
            transport="auto",
            device="cpu",
            timeout_s=job.timeout_s,
            fusion=parse_fusion(options["fusion_bytes"], None),
            overlap=True,
        )
        model = self._theirs = choice.build(task, width=1.0, seed=1)
        # DDP at its best: no copies of gradients, and statistics that stay with each rank, as ours.
        parallel = DistributedDataParallel(
            model, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
        share = np.arange(batch)
        none = Courier([], overlap=False, arrived=lambda: lambda: None, enter=lambda: None)

        def take() -> Batch:
            keys = sample_keys(job.rank, 0, share)
            return Batch(*self._data.batch(), Request(share, keys.numpy()))

        def ours() -> None:
            self._ours.step(take, step=0, global_batch=batch * job.size)

        def floor() -> None:
            courier, watch = self._ours.courier, self._ours.watch
            self._ours.courier, self._ours.watch = none, None
            ours()
            self._ours.courier, self._ours.watch = courier, watch

        def theirs() -> None:
            images, labels = self._data.batch()
            set_samples(model, sample_keys(job.rank, 0, share))
            model.train()
            optimizer.zero_grad()
            # DDP takes the mean over ranks.
            loss = model.cross_entropy(parallel(images), labels) / batch
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        def theirs_alone() -> None:
            with parallel.no_sync():
                theirs()

        self.steps: dict[str, Callable[[], None]] = {
            OURS: ours,
            FLOOR: floor,
            DDP: theirs,
            DDP_FLOOR: theirs_alone,
        }

    def close(self) -> None:
        """End the thread of our exchanges."""
        self._ours.close()

    def apart(self) -> float:
        """Train both for a few steps; how far their weights are apart then, over their norm."""
        import torch

        for _ in range(_WARMUP):
            self.steps[OURS]()
            self.steps[DDP]()
        ours, theirs = (
            torch.cat([one.detach().flatten() for one in model.parameters()])
            for model in (self._ours.model, self._theirs)
        )
        return float(torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs))


def _create(job: Job, models: list[str], options: dict[str, Any]) -> RunFile:
    from commbench.record import Group, RunFile, Variable

    cell = ("model", "candidate", "round", "rank")
    variables = {
        "model": Variable(("model",), "network", data=np.array(models)),
        "candidate": Variable(("candidate",), "who trains", data=np.array(CANDIDATES)),
        "round": Variable(("round",), "round, from 0", data=np.arange(options["rounds"])),
        "rank": Variable(("rank",), "MPI rank", data=np.arange(job.size)),
        "seconds": Variable(cell, "time of a training step", "s"),
        "samples": Variable(
            ("model",), "of a step and rank", data=np.array([MODELS[name][0] for name in models])
        ),
        "image_size": Variable(
            ("model",), "side of an image", data=np.array([MODELS[name][1] for name in models])
        ),
        "apart": Variable(("model",), "distance of ours to DDP's weights, over their norm"),
    }
    return RunFile.create(
        options["output"],
        kind="benchmark-training",
        seed=1,
        hosts=[job.host] * job.size,
        devices=["cpu"] * job.size,
        options=options,
        attributes={"ranks": job.size, "exchange": options["exchange"]},
        groups=[Group("training", variables)],
    )


if __name__ == "__main__":
    main()
