"""What commbench costs itself: `mpirun -n 1 python -m benchmarks.overhead --output FILE`.

Whole steps of the trainer against a bare torch loop with the same model, data and update, in turn;
and the updates of our optimizers against torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from commbench.course import Settings
    from commbench.job import Job
    from commbench.trainer import Run

BARE, OURS, RECORDING = "bare torch loop", "trainer", "of it, recording"
STEPS = (BARE, OURS, RECORDING)
FOREACH, FUSED, LARS, CAFFE = "torch SGD, foreach", "torch SGD, fused", "LARS", "Caffe's SGD"
UPDATES = (FOREACH, FUSED, LARS, CAFFE)
MODELS = ("nin", "resnet50")
_WARMUP = 3


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--image-size", type=click.IntRange(min=1), default=48, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(rounds: int, batch: int, image_size: int, output: Path) -> None:
    """Time steps of NiN with its 30 MB of gradients, and updates, on one rank with one thread."""
    from commbench.job import mpi_job
    from commbench.record import check_output

    with mpi_job() as job:
        job.on_root(lambda: check_output(output))
        sizes = ["--batch", str(batch), "--image-size", str(image_size), "--classes", "1000"]
        steps = _time_steps(job, sizes, rounds)
        updates = np.array([_time_updates(model, rounds) for model in MODELS])
        _write(output, steps, updates, {"batch": batch, "image_size": image_size})


def _time_steps(job: Job, sizes: list[str], rounds: int) -> Any:
    """Seconds, ``(candidates, rounds)``."""
    from commbench.trainer import opened

    took = np.empty((len(STEPS), rounds))
    with TemporaryDirectory() as folder:
        length = ["--steps", str(rounds + _WARMUP + 1), "--threads", "1", "--progress", "none"]
        with opened(job, _settings([*sizes, *length, "--results", folder])) as run:
            bare = _bare(run)
            for turn in range(-_WARMUP, rounds):
                step, book = turn + _WARMUP, run.logbook
                candidates: list[tuple[int, Callable[[int], None]]] = [(0, bare), (1, run.advance)]
                for number, take in candidates[:: 1 if turn % 2 else -1]:
                    start, own_s = perf_counter(), book.own_s
                    take(step)
                    if turn >= 0:
                        took[number, turn] = perf_counter() - start
                        took[2, turn] = book.own_s - own_s if number else took[2, turn]
    return took


def _settings(arguments: list[str]) -> Settings:
    """Of `commbench train` with these arguments, for ring."""
    from dataclasses import fields

    from commbench.cli.train import command
    from commbench.course import Settings
    from commbench.registry import parse_exchange
    from commbench.units import Window
    from commbench.wire import parse_wire

    given = command.make_context("train", [*arguments, "--exchange", "ring"]).params
    made = {
        **given,
        "exchange": parse_exchange(given["exchange"]),
        "wire": parse_wire(given["wire"]),
        "trace_steps": Window.parse(given["trace_steps"]),
        "timeout_s": given["timeout"],
    }
    # The command has options besides, which it settles itself.
    return Settings(**{field.name: made[field.name] for field in fields(Settings)})


def _bare(run: Run) -> Callable[[int], None]:
    """A step of the same kind, as one writes it by hand."""
    import torch

    from commbench.workloads.data import order
    from commbench.workloads.models.dropout import sample_keys, set_samples

    course = run.course
    model = course.model.build(course.task, width=1.0, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    samples = course.epoch_order(1, 0)

    def step(number: int) -> None:
        batch = order.global_batch(samples, number, course.timetable.batch(number))
        keys = sample_keys(1, 0, batch)
        inputs, targets = course.data.train.batch(batch, keys.numpy())
        model.train()
        set_samples(model, keys)
        optimizer.zero_grad()
        loss = model.loss_sum(inputs, targets) / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


def _time_updates(name: str, rounds: int) -> Any:
    """Seconds, ``(candidates, rounds)``."""
    import torch

    from commbench.workloads.models import build_model
    from commbench.workloads.recipes.optimizers import CaffeSGD, Lars

    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        FOREACH: lambda params: torch.optim.SGD(params, foreach=True, **options),
        FUSED: lambda params: torch.optim.SGD(params, fused=True, **options),
        LARS: lambda params: Lars(params, **options),
        CAFFE: lambda params: CaffeSGD(params, **options),
    }
    model = build_model(name, seed=1)
    optimizers = [makers[candidate](_copies(model)) for candidate in UPDATES]
    took = np.empty((len(UPDATES), rounds))
    for turn in range(-_WARMUP, rounds):
        for place in range(len(UPDATES)):
            number = (place + turn) % len(UPDATES)
            start = perf_counter()
            optimizers[number].step()
            if turn >= 0:
                took[number, turn] = perf_counter() - start
    return took


def _copies(model: nn.Module) -> list[nn.Parameter]:
    """Its parameters, with gradients side by side in one buffer, as ours are."""
    import torch

    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in model.parameters()]
    flat = 1e-3 * torch.randn(sum(copy.numel() for copy in copies))
    for copy, gradient in zip(copies, flat.split([c.numel() for c in copies]), strict=True):  # type: ignore[no-untyped-call]
        copy.grad = gradient.view_as(copy)
    return copies


def _write(output: Path, steps: Any, updates: Any, options: dict[str, object]) -> None:
    from commbench.record import Group, RunFile, Variable

    count = steps.shape[1]
    turns = Variable(("round",), "round, from 0", data=np.arange(count))

    def names(values: tuple[str, ...]) -> Variable:
        return Variable(("candidate",), "what is timed", data=np.array(values))

    whole = {
        "candidate": names(STEPS),
        "round": turns,
        "seconds": Variable(("candidate", "round"), "time of a step", "s", data=steps),
    }
    alone = {
        "model": Variable(("model",), "network", data=np.array(MODELS)),
        "candidate": names(UPDATES),
        "round": turns,
        "seconds": Variable(("model", "candidate", "round"), "of an update", "s", data=updates),
    }
    RunFile.create(
        output,
        kind="benchmark-overhead",
        seed=1,
        hosts=[],
        devices=["cpu"],
        options=options,
        groups=[Group("steps", whole), Group("updates", alone)],
    ).finish()


if __name__ == "__main__":
    main()
