"""Times all stages in turn, and keeps every sample in a run file."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from commbench.arrays import arrays_for
from commbench.course import adaptation
from commbench.errors import UserError
from commbench.feeding import loaders_for
from commbench.pipeline.stages import Stage, Training, input_stages
from commbench.record import Group, RunFile, Variable, default_path
from commbench.turns import turn_order
from commbench.workloads.data import Dataset, default_data, load_data, order
from commbench.workloads.data.loader import Batch, Loader, Request
from commbench.workloads.models import ModelChoice, parse_model
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.recipes import load_recipe
from commbench.workloads.task import Task

# Six rounds are the fewest that have an interval of 95 %. Where they would take more than twice the
# time, three will do: a step may take minutes.
_ENOUGH, _FEWEST, _MOST = 6, 3, 60


@dataclass(frozen=True)
class PipelineSettings:
    """The options of a measurement; `commbench pipeline --help` tells what each means."""

    model: str
    data: str | None
    data_folder: Path | None = None
    augment: str = "goyal"
    augment_on: str = "auto"
    max_corrupt: int = 20
    classes: int | None = None
    image_size: int | None = None
    width: float = 1.0
    batches: tuple[int, ...] = (32, 64, 128)
    recipe: str = "firecaffe-nin"
    loaders: int | None = None
    threads: int | None = None
    seconds: float = 30.0
    seed: int = 1
    device: str = "cpu"
    timeout_s: float = 300.0
    output: Path | None = None
    results: Path = Path("results")

    def as_options(self) -> dict[str, object]:
        """Every option by name, as the run file stores them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def measure(settings: PipelineSettings) -> Path:
    """Time all stages of a run in turn; the run file.

    Raises:
        UserError: settings that cannot be run.
    """
    choice = parse_model(settings.model)
    size = settings.image_size or choice.published.laptop_size or None
    task = choice.task(settings.classes, size)
    largest = max(settings.batches)
    data = load_data(
        default_data(task.kind) if settings.data is None else settings.data,
        folder=settings.data_folder,
        task=task,
        batch=largest,
        seed=settings.seed,
        augmentation=settings.augment,
        max_corrupt=settings.max_corrupt,
        augment_on=settings.augment_on,
    )
    device = torch.device(arrays_for(settings.device, "float32", 0).device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    loaders = loaders_for(settings.loaders, data, 1)
    with Loader(loaders, device, timeout_s=settings.timeout_s) as loader:
        stages = [
            *input_stages(data, loader, device, batch=min(settings.batches), seed=settings.seed),
            *_training(settings, choice, task, data=data, loader=loader, device=device),
        ]
        return _time(settings, choice, task, data, stages, device=device, loaders=loaders)


def _training(
    settings: PipelineSettings,
    choice: ModelChoice,
    task: Task,
    *,
    data: Dataset,
    loader: Loader,
    device: torch.device,
) -> list[Stage]:
    """Training at every batch, on the same samples."""
    model = choice.build(task, width=settings.width, seed=settings.seed).to(device).train()
    largest, smallest = max(settings.batches), min(settings.batches)
    if smallest < model.smallest_batch:
        raise UserError(
            f"--batch-size {smallest}: {choice.name} normalises by the batch, which takes "
            f"{model.smallest_batch} samples or more"
        )
    recipe = load_recipe(settings.recipe)
    plan = recipe.plan(largest, 1000, recipe.laptop_lr)
    samples = np.arange(len(data.train))
    if not data.in_order:
        samples = order.epoch_order(len(data.train), settings.seed, 0)
    # A small data set has its samples in it several times.
    some = np.resize(samples, largest)
    request = Request(some, sample_keys(settings.seed, 0, some).numpy())
    whole: Batch = next(iter(loader.batches(data.train, [request])))
    training = Training(model, recipe, plan, whole, seed=settings.seed)
    return [training.stage(batch) for batch in settings.batches]


def _time(
    settings: PipelineSettings,
    choice: ModelChoice,
    task: Task,
    data: Dataset,
    stages: list[Stage],
    *,
    device: torch.device,
    loaders: int,
) -> Path:
    for stage in stages:  # the first turn pays for memory and for opening files
        stage.turn()
    path = settings.output or default_path(settings.results, f"pipeline-{settings.model}")
    with RunFile.create(
        path,
        unique=settings.output is None,
        kind="pipeline",
        seed=settings.seed,
        hosts=[socket.gethostname()],
        devices=[str(device)],
        options={
            **settings.as_options(),
            "data": data.name,
            "loaders": loaders,
            "threads": torch.get_num_threads(),
            "image_size": task.size if task.kind == "images" else None,
            "classes": task.classes,
        },
        attributes={
            "model": choice.spec,
            "adapted": adaptation(choice.published, task, settings.width),
            "data": data.name,
            "data_source": data.source,
            "in_memory": data.in_memory,
            "shares_cores": device.type == "cpu",
        },
        groups=[pipeline_group(stages)],
    ) as file:
        begun = perf_counter()
        for number in range(_MOST):
            if _enough(number, perf_counter() - begun, settings.seconds):
                break
            for turn in turn_order(number, len(stages)):
                start = perf_counter()
                samples, nbytes = stages[turn].turn()
                file["pipeline/seconds"][turn, number] = perf_counter() - start
                file["pipeline/samples"][turn, number] = samples
                file["pipeline/bytes"][turn, number] = nbytes
        rates = np.nanmedian(file["pipeline/samples"] / file["pipeline/seconds"], axis=1)
        file.finish(images_per_s=dict(zip(_names(stages), rates.round(1).tolist(), strict=True)))
        return file.path


def _enough(rounds: int, elapsed_s: float, asked_s: float) -> bool:
    if rounds >= _ENOUGH:
        return elapsed_s >= asked_s
    return rounds >= _FEWEST and elapsed_s >= 2 * asked_s


def _names(stages: list[Stage]) -> list[str]:
    return [f"{stage.name} {stage.batch}" if stage.batch else stage.name for stage in stages]


def pipeline_group(stages: list[Stage]) -> Group:
    """The one group of a pipeline's run, /pipeline; NaN where a round was not measured.

    To fill: `pipeline/{seconds,samples,bytes}` (stages, rounds).
    """
    dims = ("stage", "round")
    return Group(
        "pipeline",
        {
            "stage": Variable(
                ("stage",), "stage, in training with its batch", data=np.array(_names(stages))
            ),
            "round": Variable(("round",), "round, from 0", data=np.arange(_MOST)),
            "batch": Variable(
                ("stage",),
                "samples of a training step, 0 of an input stage",
                data=np.array([stage.batch for stage in stages]),
            ),
            "seconds": Variable(dims, "time of the stage's turn", "s"),
            "samples": Variable(dims, "samples of the turn"),
            "bytes": Variable(dims, "bytes that the stage took in", "byte"),
        },
    )
