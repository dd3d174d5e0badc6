"""Everything that is settled before the first training step: settings, data, length, run file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import arrays_for
from commbench.asynchronous.terms import Terms
from commbench.buckets import Fusion, parse_fusion
from commbench.errors import UserError
from commbench.gathering import least_gathered
from commbench.job import Job
from commbench.load import least, loads
from commbench.plans import Plans, plan_all
from commbench.record import (
    Bucket,
    RunFile,
    default_path,
    staleness_group,
    training_groups,
)
from commbench.registry import Choice
from commbench.schedule import Schedule
from commbench.telemetry import PHASES
from commbench.units import Window
from commbench.wire import WireFormat, check_exchange, refusal
from commbench.wire.gather import gather_plans
from commbench.workloads.data import Dataset, default_data, load_data, order
from commbench.workloads.data.timetable import Timetable, timetable
from commbench.workloads.models import ModelChoice, parse_model
from commbench.workloads.recipes import Plan, Recipe, load_recipe
from commbench.workloads.task import Task

_MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class Settings:
    """The options of a training run; `commbench train --help` tells what each means."""

    model: str
    exchange: Choice
    data: str | None
    data_folder: Path | None
    augment: str
    augment_on: str
    loaders: int | None
    max_corrupt: int
    classes: int | None
    image_size: int | None
    width: float
    batch: int
    epochs: float
    steps: int | None
    recipe: str
    lr: float | None
    recipe_lr: bool
    label_smoothing: float | None
    precision: str | None
    loss_scale: float | None
    accumulate: int
    fusion_bytes: str | None
    fusion_split: int | None
    overlap: bool
    trace: Path | None
    trace_steps: Window
    tensorboard: Path | None
    mllog: Path | None
    share_weights: str
    seed: int
    evaluate_every: float
    device: str
    transport: str
    wire: WireFormat
    timeout_s: float
    threads: int | None
    output: Path | None
    results: Path
    progress: str

    def as_options(self) -> dict[str, object]:
        """Every option by name, as the run file stores them."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        window = f"{self.trace_steps.first}:{self.trace_steps.last}" if self.trace else None
        specs = {"exchange": self.exchange.spec, "wire": self.wire.spec}
        return {**options, **specs, "trace_steps": window}

    def fusion(self) -> Fusion:
        """Which gradients are exchanged together.

        Raises:
            UserError: impossible, or asked of an asynchronous exchange.
        """
        fusion = parse_fusion(self.fusion_bytes, self.fusion_split)
        if not self.exchange.asynchronous:
            return fusion
        if self.fusion_bytes or self.fusion_split:
            raise UserError(
                f"--exchange {self.exchange.spec}: its servers take gradients whole; leave out "
                "--fusion-bytes and --fusion-split"
            )
        return Fusion()


@dataclass(frozen=True)
class Course:
    """What is settled before the first step, alike on every rank.

    Attributes:
        exchange: the one with a schedule; in place of an asynchronous one, its synchronous form.
        plans: its schedules, and so what a step makes this rank send and receive.
        wire: in which form gradients travel.
        fusion: which of them travel together.
        workers: the ranks with data.
        recipe: with what the settings change in it.
        timetable: the epoch and the batch of each step.
        evaluate_after: numbers of steps, increasing; the last is all of them.
    """

    model: ModelChoice
    task: Task
    data: Dataset
    recipe: Recipe
    plan: Plan
    exchange: Choice
    ranks: int
    plans: Plans
    wire: WireFormat
    fusion: Fusion
    workers: list[int]
    timetable: Timetable
    evaluate_after: list[int]

    @property
    def total_steps(self) -> int:
        """Of the run."""
        return self.timetable.total_steps

    def algorithm(self, nbytes: int) -> Choice:
        """The exchange that sums a bucket of so many bytes."""
        return self.exchange.for_bytes(nbytes, self.ranks)

    def schedule(self, nbytes: int) -> Schedule:
        """Its schedule for this rank.

        Raises:
            UserError: this form of gradients cannot travel by it.
        """
        spec = self.algorithm(nbytes).spec
        if spec not in self.plans.own:
            raise UserError(refusal(self.wire, spec))
        return self.plans.own[spec]

    def terms(self, exchange: Choice) -> Terms:
        """What servers and workers of an asynchronous exchange agree on."""
        staleness = exchange.value("staleness")
        assert isinstance(staleness, float)
        meetings = frozenset(self.evaluate_after)
        return Terms(tuple(self.workers), staleness, meetings, self.total_steps)

    def epoch_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The training samples in the order in which an epoch takes them."""
        count = len(self.data.train)
        return np.arange(count) if self.data.in_order else order.epoch_order(count, seed, epoch)


def prepare(job: Job, settings: Settings) -> Course:
    """Load and check everything a run needs.

    Raises:
        UserError: on every rank, if any of them cannot run with these settings.
    """
    exchange = job.agree(lambda: settings.exchange.scheduled(job.size))
    job.agree(lambda: check_exchange(settings.wire, settings.exchange))
    plans = plan_all(job, [exchange])
    if settings.wire.gathers:
        plans = gather_plans(job, plans)
    # All parts of an exchange have the same.
    workers = next(iter(plans.workers.values()))

    def check() -> Course:
        arrays_for(settings.device, "float32", job.local_rank)
        recipe = adapted_recipe(settings)
        model = parse_model(settings.model)
        size = settings.image_size or model.published.laptop_size or None
        task = model.task(settings.classes, size)
        data = load_data(
            default_data(task.kind) if settings.data is None else settings.data,
            folder=settings.data_folder,
            task=task,
            batch=settings.batch,
            seed=settings.seed,
            augmentation=settings.augment,
            augment_on=settings.augment_on,
            max_corrupt=settings.max_corrupt,
        )
        times = timetable(
            len(data.train),
            batch=settings.batch,
            workers=len(workers),
            epochs=settings.epochs,
            steps=settings.steps,
            growth=recipe.growth_places(),
        )
        if times.total_steps > _MOST_STEPS:
            raise UserError(
                f"a run of {times.total_steps:,} steps: give --steps or --epochs for at most "
                f"{_MOST_STEPS:,}, for all of which the run file has room from the start"
            )
        if data.in_order and len(times.stages) > 1:
            raise UserError(
                f"recipe {recipe.name} grows the batch, and data {data.name} is cut into as many "
                "streams as the batch has samples: use another recipe"
            )
        lr = None if settings.recipe_lr else settings.lr or recipe.laptop_lr
        return Course(
            model=model,
            task=task,
            data=data,
            recipe=recipe,
            plan=recipe.plan(settings.batch, times.clock(times.total_steps), lr, times.clock),
            exchange=exchange,
            ranks=job.size,
            plans=plans,
            wire=settings.wire,
            fusion=settings.fusion(),
            workers=workers,
            timetable=times,
            evaluate_after=times.every(settings.evaluate_every),
        )

    return job.agree(check)


def adapted_recipe(settings: Settings) -> Recipe:
    """The recipe with what the settings say otherwise.

    Raises:
        UserError: there is no such recipe, or it does not go with the exchange.
    """
    recipe = load_recipe(settings.recipe)
    changes: dict[str, object] = {
        name: value
        for name in ("label_smoothing", "precision", "loss_scale")
        if (value := getattr(settings, name)) is not None
    }
    recipe = replace(recipe, **changes)  # type: ignore[arg-type]
    if settings.loss_scale is not None and recipe.precision != "float16":
        raise UserError(f"--loss-scale is for --precision float16, and this is {recipe.precision}")
    if recipe.precision == "float16" and settings.wire.name in ("topk", "powersgd"):
        raise UserError(
            f"--wire {settings.wire.spec} keeps what it did not send, and one overflow of float16 "
            "would stay in it: use --precision bfloat16, or another --wire"
        )
    wholes = {
        "the norms of whole gradients": recipe.optimizer.needs_whole_gradient,
        "the norm of the whole gradient": recipe.clip_norm is not None,
        "a loss scale": recipe.precision == "float16",
    }
    for what, needed in wholes.items():
        if needed and settings.exchange.asynchronous:
            raise UserError(
                f"recipe {recipe.name} in {recipe.precision} needs {what}, which a server of "
                f"{settings.exchange.name} does not have: use a synchronous exchange"
            )
    return recipe


def adaptation(published: Task, task: Task, width: float) -> str:
    """How a model differs from the published one; "" where it does not."""
    changes = []
    if task.size != published.size:
        changes.append(f"image size {task.size} instead of {published.size}")
    if task.classes != published.classes:
        changes.append(f"{task.classes} classes instead of {published.classes}")
    if width != 1:
        changes.append(f"width x{width:g}")
    return ", ".join(changes)


def create_run_file(
    settings: Settings,
    course: Course,
    *,
    buckets: Sequence[Sequence[Sequence[int]]],
    transport: str,
    shared_weights: bool,
    threads: int,
    hosts: list[str],
    devices: list[str],
) -> RunFile:
    """Create the run's file, on rank 0 only.

    Args:
        settings: stored as options.
        course: stored as attributes, and gives the tables their lengths.
        buckets: of each the shapes of the parameters whose gradients lie in it, in float32.
        transport: the transport's name, as opened.
        shared_weights: whether the ranks of a node have them in common.
        threads: CPU threads of each rank, as used.
        hosts: the host of every rank.
        devices: the device of every rank.

    Raises:
        UserError: there is a file of this name, or none can be made.
    """
    count = sum(math.prod(shape) for shapes in buckets for shape in shapes)
    nbytes = 4 * count
    handed_in = sum(map(course.wire.handed_in, buckets))
    more = []
    if settings.exchange.asynchronous:
        terms = course.terms(settings.exchange)
        more = [staleness_group(terms.servers(len(hosts)), terms.workers, terms.bins)]
    path = settings.output
    if path is None:
        wire = "" if course.wire.plain else f"-{course.wire.spec}"
        stem = f"train-{settings.model}-{settings.exchange.spec}{wire}-n{len(hosts)}"
        path = default_path(settings.results, stem)
    return RunFile.create(
        path,
        unique=settings.output is None,
        kind="train",
        seed=settings.seed,
        hosts=hosts,
        devices=devices,
        options={
            **settings.as_options(),
            "data": course.data.name,
            "classes": course.task.classes,
            "image_size": course.task.size if course.task.kind == "images" else None,
            "threads": threads,
            "fusion_bytes": course.fusion.spec,
        },
        attributes={
            "model": course.model.spec,
            "adapted": adaptation(course.model.published, course.task, settings.width),
            "parameters": count,
            "exchange": settings.exchange.spec,
            "ranks": len(hosts),
            "workers": len(course.workers),
            "transport": transport,
            "shared_weights": shared_weights,
            "gradient_bytes": nbytes,
            "handed_in_bytes": handed_in,
            "compression": nbytes / handed_in if handed_in else math.nan,
            "global_batch": settings.batch,
            "data": course.data.name,
            "data_source": course.data.source,
            "train_images": len(course.data.train),
            "test_images": len(course.data.test),
            "recipe": course.recipe.name,
            "optimizer": course.recipe.optimizer.kind,
            "precision": course.recipe.precision,
            "base_lr": course.plan.base_lr,
            "momentum": course.plan.momentum,
            "weight_decay": course.plan.weight_decay,
            "top1": math.nan,
            "top5": math.nan,
        },
        groups=training_groups(
            steps=course.total_steps,
            ranks=len(hosts),
            phases=PHASES,
            evaluations=len(course.evaluate_after),
            buckets=[
                _bucket(settings.exchange, course, one.count, one.itemsize)
                for shapes in buckets
                for one in course.wire.buffers(shapes, len(course.workers))
            ],
        )
        + more,
    )


def _bucket(exchange: Choice, course: Course, count: int, itemsize: int) -> Bucket:
    """What an exchange of so many elements makes each rank send and receive."""
    nbytes = count * itemsize
    algorithm = course.algorithm(nbytes)
    schedules = course.plans.everyone[algorithm.spec]
    if exchange.asynchronous:
        algorithm = exchange
    bound = (least_gathered if course.wire.gathers else least)(schedules)
    bucket = Bucket(nbytes, algorithm.spec, bound_bytes=float(bound * nbytes))
    moved = loads(schedules, count)
    if moved is None:
        return bucket
    return replace(
        bucket,
        messages_sent=[one.messages_sent for one in moved],
        messages_received=[one.messages_received for one in moved],
        bytes_sent=[one.elements_sent * itemsize for one in moved],
        bytes_received=[one.elements_received * itemsize for one in moved],
    )
