"""How fast each model trains on one rank: `python -m benchmarks.models --output FILE`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np

# Samples of a step: fewer where one takes long.
_BATCH = {"lstm-mnist": 128, "speech-mlp": 64, "resnet50": 16, "vgg19": 8}


@click.command()
@click.option("--models", help="With commas between. [default: all]")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(models: str | None, steps: int, output: Path) -> None:
    """Time forward and backward pass and update of every model, with all cores' threads."""
    import torch

    from commbench.record import Group, RunFile, Variable
    from commbench.workloads.models import build_model, published_models
    from commbench.workloads.models.cost import count_cost

    names = models.split(",") if models else list(published_models())
    columns: dict[str, list[Any]] = {
        key: [] for key in ("parameters", "macs", "size", "batch", "seconds")
    }
    for name in names:
        published = count_cost(build_model(name, seed=None))
        size, batch, seconds = _time(name, steps)
        row = (published.parameters, published.macs, size, batch, seconds)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        print(f"# {name}: {batch / median(seconds):.1f} samples/s", flush=True)
    units = {
        "parameters": ("learnable numbers as published", "1"),
        "macs": ("multiply-adds of a sample as published, forward", "1"),
        "size": ("side of the images, or length of a sample", "1"),
        "batch": ("samples of a step", "1"),
    }
    variables = {
        "model": Variable(("model",), "network", data=np.array(names)),
        "step": Variable(("step",), "step, from 0", data=np.arange(steps)),
        "seconds": Variable(
            ("model", "step"), "time of a step", "s", data=np.array(columns["seconds"])
        ),
    }
    for key, (long_name, unit) in units.items():
        variables[key] = Variable(("model",), long_name, unit, data=np.array(columns[key]))
    RunFile.create(
        output,
        kind="benchmark-models",
        seed=1,
        hosts=[],
        devices=["cpu"],
        options={"threads": torch.get_num_threads(), "steps": steps},
        groups=[Group("models", variables)],
    ).finish()


def _time(name: str, steps: int) -> tuple[int, int, list[float]]:
    """Its sample's size here, the batch, and the seconds of each step after the first."""
    import torch

    from commbench.workloads.models import parse_model
    from commbench.workloads.models.dropout import sample_keys, set_samples

    choice = parse_model(name)
    task = choice.task(None, choice.published.laptop_size or None)
    batch = next((n for key, n in _BATCH.items() if name.startswith(key)), 32)
    model = choice.build(task, width=1.0, seed=1).train()
    shape = (batch, *task.shape)
    if task.kind == "text":
        inputs = torch.randint(task.classes, shape)
        targets = torch.randint(task.classes, shape)
    else:
        inputs, targets = torch.randn(shape), torch.randint(task.classes, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    seconds = []
    for step in range(steps + 1):
        start = perf_counter()
        model.start_epoch()
        set_samples(model, sample_keys(1, step, np.arange(batch)))
        optimizer.zero_grad()
        loss = model.loss_sum(inputs, targets) / batch
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(perf_counter() - start)
    return task.size, batch, seconds[1:]


if __name__ == "__main__":
    main()
