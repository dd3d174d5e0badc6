"""Synchronous data-parallel training: one model, one recipe, any exchange.

Every rank computes the gradient of its share of the global batch, the exchange adds the gradients
up, and every rank takes the same step. Which samples a step sees, and which units dropout leaves
out, depend on the seed alone; so the number of ranks changes the loss by rounding only, and one
exchange at one number of ranks gives bitwise the same weights in every run.
"""

from __future__ import annotations

import json
import math
import os
import resource
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from commbench.asynchronous.replica import AsynchronousReplica
from commbench.clocks import clock_offset
from commbench.course import Course, Settings, create_run_file, prepare
from commbench.errors import UserError
from commbench.headroom import Headroom
from commbench.job import Job
from commbench.journals import Evaluation, Journals, Step, open_journals
from commbench.progress import Display, Glance
from commbench.record import RunFile
from commbench.record.reader import attributes, open_run
from commbench.replica import Replica
from commbench.telemetry import PHASES, Telemetry, Took
from commbench.trace import Recorder, write
from commbench.workloads.data import order

# In the run file, where an attribute has 64 KiB.
_CORRUPT_NAMES = 100


@dataclass(frozen=True)
class Outcome:
    """The end of a run, on rank 0; `told` is what the exchange says about itself, or empty."""

    path: Path
    top1: float
    top5: float
    loss: float
    train_s: float
    images_per_s: list[float]
    phase_s: dict[str, float]
    told: str


def train(job: Job, settings: Settings) -> Outcome | None:
    """Train, recording to the run file as it goes; the outcome on rank 0, None elsewhere.

    Raises:
        UserError: bad settings, or a loss that is no longer a finite number.
    """
    # Opened first: MLPerf counts what follows as preparation.
    journals = job.keep_on_root(lambda: open_journals(settings.tensorboard, settings.mllog))
    course = prepare(job, settings)
    open_replica: Callable[..., Replica] = Replica
    if settings.exchange.asynchronous:
        open_replica = partial(AsynchronousReplica, terms=course.terms(settings.exchange))
    threads = settings.threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
    threads = threads or max(1, len(os.sched_getaffinity(0)) // job.local_size)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    model = job.agree(
        lambda: course.model.build(
            course.task, width=settings.width, seed=settings.seed, drawn=job.rank == 0
        )
    )
    _check_shares(settings, course, model.smallest_batch)
    replica = open_replica(
        job,
        model,
        recipe=course.recipe,
        plan=course.plan,
        schedule_for=course.schedule,
        wire=course.wire,
        workers=course.workers,
        transport=settings.transport,
        device=settings.device,
        timeout_s=settings.timeout_s,
        accumulate=settings.accumulate,
        fusion=course.fusion,
        overlap=settings.overlap and not settings.exchange.asynchronous,
        share_weights=settings.share_weights,
    )
    hosts = job.all_gather_text(job.host)
    devices = job.all_gather_text(str(replica.device))

    def create() -> RunFile:
        return create_run_file(
            settings,
            course,
            buckets=[bucket.shapes for bucket in replica.gradients.buckets],
            transport=replica.transport.name,
            shared_weights=replica.node_weights is not None,
            threads=threads,
            hosts=hosts,
            devices=devices,
        )

    run_file = job.keep_on_root(create)
    if run_file is None or journals is None:
        _Run(job, settings, course, replica).run()
        return None
    with run_file, journals:
        journals.begin(_facts(run_file))
        return _Run(job, settings, course, replica, file=run_file, journals=journals).run()


def _facts(file: RunFile) -> dict[str, object]:
    with open_run(file.path) as run:
        return {**attributes(run), "name": file.path.stem}


def _check_shares(settings: Settings, course: Course, smallest: int) -> None:
    """Refuse micro-batches without a sample, or with one where the model normalises by them."""
    workers, parts = len(course.workers), settings.accumulate
    least = smallest * workers * parts
    if settings.batch < least:
        who = f"{workers} workers" if parts == 1 else f"{workers} workers x {parts} micro-batches"
        why = (
            f"{course.model.name} normalises by the batch of each, which takes two samples"
            if smallest > 1
            else "each needs a sample"
        )
        raise UserError(f"global batch {settings.batch} on {who}: {why}; use {least} or more")


class _Run:
    """The loop and what it keeps count of."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        course: Course,
        replica: Replica,
        *,
        file: RunFile | None = None,
        journals: Journals | None = None,
    ) -> None:
        self.job = job
        self.settings = settings
        self.course = course
        self.replica = replica
        self.file = file
        self.journals = Journals() if journals is None else journals
        self.telemetry = Telemetry(job, self.record)
        self.display = Display(course.total_steps, settings.progress if file else "none")
        self.train_s = 0.0
        self.images_per_s: list[float] = []
        self.latest: deque[tuple[float, float, int]] = deque(maxlen=20)
        self.gathered: dict[int, dict[int, Took]] = {}
        self.headroom = Headroom(course.workers)
        self.offset = clock_offset(job)
        window = settings.trace_steps.within(course.total_steps)
        self.trace = Recorder(window, self.offset) if settings.trace else None
        self.loss = self.top1 = self.top5 = math.nan
        self.told = ""
        self.corrupt: dict[str, str] = {}

    def run(self) -> Outcome | None:
        """Go through all steps; returns on every rank when rank 0's file is complete."""
        course, settings = self.course, self.settings
        worker = course.workers.index(self.job.rank) if self.replica.contributes else None
        upcoming = deque(course.evaluate_after)
        samples = np.empty(0, np.int64)
        self.job.barrier()
        with self.display:
            for step in range(course.total_steps):
                epoch, step_in_epoch = course.timetable.place(step)
                batch_size = course.timetable.batch(step)
                start = perf_counter()
                if worker is None:
                    loss_sum, seconds = self.replica.serve(step)
                else:
                    if step_in_epoch == 0:
                        samples = course.epoch_order(settings.seed, epoch)
                        self.replica.model.start_epoch()
                    batch = order.global_batch(samples, step_in_epoch, batch_size)
                    loss_sum, seconds = self.replica.step(
                        course.data.train,
                        order.worker_share(batch, worker, len(course.workers)),
                        step=step,
                        epoch=epoch,
                        global_batch=batch_size,
                        seed=settings.seed,
                    )
                    # The shuffle at an epoch's first step is input as well.
                    seconds[0] += perf_counter() - start - sum(seconds)
                self.took(step, perf_counter() - start, seconds)
                self.telemetry.add(step, self.measured(loss_sum, seconds))
                if self.trace:
                    self.trace.add(step + 1, start, seconds, self.replica.spans)
                if step + 1 == upcoming[0]:
                    upcoming.popleft()
                    self.evaluate(step + 1, len(course.evaluate_after) - len(upcoming) - 1)
        self.telemetry.close()
        self.write_trace()
        # A server without data has the weights of the start only.
        fingerprint = self.job.all_gather_text(self.replica.fingerprint())[course.workers[0]]
        scale = self.replica.backprop.scale
        scales = self.job.all_gather(np.array([scale.skipped, scale.value]))[course.workers[0]]
        memory = self.job.gather(np.array([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
        if self.file is None or memory is None:
            return None
        self.file.finish(
            top1=self.top1,
            top5=self.top5,
            train_s=self.train_s,
            weights_sha256=fingerprint,
            **self.headroom.attributes(),
            skipped_steps=int(scales[0]),
            loss_scale=float(scales[1]),
            corrupt_samples=len(self.corrupt),
            corrupt_names=list(self.corrupt)[:_CORRUPT_NAMES],
            peak_memory_bytes=[int(kib) * 1024 for kib in memory[:, 0]],
        )
        return self.outcome(self.file)

    def took(self, step: int, step_s: float, seconds: list[float]) -> None:
        """Record and show a step on rank 0."""
        self.train_s += step_s
        if self.file is None:
            return
        epoch = float(self.course.timetable.epochs(step + 1))
        batch = self.course.timetable.batch(step)
        rate = batch / step_s
        self.file["steps/batch"][step] = batch
        self.file["steps/epoch"][step] = epoch
        self.file["steps/lr"][step] = self.course.plan.lr(step)
        self.file["steps/images_per_s"][step] = rate
        self.images_per_s.append(rate)
        self.latest.append((step_s, seconds[PHASES.index("exchange")], batch))
        recent_s, exchange_s, images = np.sum(self.latest, axis=0)
        self.display.update(
            Glance(
                step=step + 1,
                epoch=epoch,
                loss=self.loss,
                top1=self.top1,
                images_per_s=images / recent_s,
                exchange_share=exchange_s / recent_s,
            )
        )

    def write_trace(self) -> None:
        """Bring the ranks' traces together and write them, where there are any; collective."""
        path = self.settings.trace
        if path is None or self.trace is None:
            return
        ranks = self.job.gather_objects(self.trace)
        hosts = self.job.all_gather_text(self.job.host)
        self.job.on_root(lambda: write(path, ranks, hosts))

    def measured(self, loss_sum: float, seconds: list[float]) -> Took:
        """What the step that has just ended took on this rank."""
        each = [span.stop - span.start for span in self.replica.spans]
        handed_in = self.replica.handed_in + self.offset
        return Took(loss_sum, np.array(seconds), sum(each), each[-1] if each else 0.0, handed_in)

    def record(self, rank: int, step: int, took: Took) -> None:
        """Take in a rank's step, on rank 0; the loss is complete with the last rank's."""
        assert self.file is not None
        self.file["timing/seconds"][step, rank] = took.seconds
        self.file["timing/exchanging"][step, rank] = took.exchanging
        steps = self.gathered.setdefault(step, {})
        steps[rank] = took
        if len(steps) == self.job.size:
            # Added in rank order whatever order the rows came in: bitwise repeatable.
            ordered = [steps[other] for other in range(self.job.size)]
            self.loss = sum(one.loss_sum for one in ordered) / self.course.timetable.batch(step)
            self.file["steps/loss"][step] = self.loss
            self.file["timing/waiting"][step] = self.headroom.add(ordered)
            del self.gathered[step]
            if self.journals:
                self.journals.step(self.told_step(step, ordered))

    def told_step(self, step: int, took: list[Took]) -> Step:
        """A step that all ranks have reported, for the journals."""
        seconds = np.mean([took[worker].seconds for worker in self.course.workers], axis=0)
        return Step(
            number=step + 1,
            loss=self.loss,
            lr=self.course.plan.lr(step),
            images_per_s=self.images_per_s[step],
            seconds=dict(zip(PHASES, seconds.tolist(), strict=True)),
        )

    def evaluate(self, steps: int, index: int) -> None:
        """Test on all ranks, each on its share, and check that their weights agree."""
        job, course = self.job, self.course
        epoch = float(course.timetable.epochs(steps))
        self.journals.evaluating(steps, epoch)
        self.replica.mean_statistics(job, len(course.workers))
        totals = np.zeros(3)
        if self.replica.contributes:
            everything = np.arange(len(course.data.test))
            worker = course.workers.index(job.rank)
            share = order.worker_share(everything, worker, len(course.workers))
            totals = self.replica.evaluate(course.data.test, share)
        totals = job.all_sum(totals) / len(course.data.test)
        self.gather_corrupt()
        if not np.isfinite(totals).all():
            raise UserError(
                f"training diverged: the loss is {totals[2]} after {steps} steps; "
                f"lower --lr (it was {course.plan.base_lr:g})"
            )
        self.check_weights(steps)
        self.told = self.replica.hand_in(self.file)
        self.top1, self.top5 = float(totals[0]), float(totals[1])
        if self.file is None:
            return
        values = (steps, epoch, self.train_s, self.top1, self.top5, float(totals[2]))
        names = ("step", "epoch", "time_s", "top1", "top5", "loss")
        for name, value in zip(names, values, strict=True):
            self.file[f"eval/{name}"][index] = value
        before_epoch, before_s = 0.0, 0.0
        if index:
            before_epoch, before_s = (self.file[f"eval/{name}"][index - 1] for name in names[1:3])
        images = (epoch - before_epoch) * len(course.data.train)
        self.journals.evaluated(
            Evaluation(
                step=steps,
                epoch=epoch,
                top1=self.top1,
                top5=self.top5,
                loss=float(totals[2]),
                images_per_s=images / (self.train_s - before_s),
                last=steps == course.total_steps,
            )
        )
        perplexity = ""
        if course.task.kind == "text" and totals[2] < 100:
            perplexity = f", perplexity {math.exp(totals[2]):.2f}"
        self.display.say(
            f"epoch {epoch:.2f}: top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, test loss "
            f"{totals[2]:.4f}{perplexity}, after {self.train_s:.1f} s of training"
        )

    def gather_corrupt(self) -> None:
        """Bring together which samples the ranks could not read; warn of new ones on rank 0."""
        own = self.course.data.corrupt
        if own is None:
            return
        before = set(self.corrupt)
        for text in self.job.all_gather_text(json.dumps(own.names)):
            self.corrupt.update(json.loads(text))
        own.check(self.corrupt)
        for name, reason in self.corrupt.items():
            if self.file is not None and name not in before:
                self.display.say(f"warning: {name} is corrupt, the next one stands in: {reason}")

    def check_weights(self, steps: int) -> None:
        """Compare a digest of the weights over the workers; synchronous SGD keeps them equal."""
        if not self.replica.reduces:
            return
        digest = np.frombuffer(self.replica.state_digest(), np.uint8)
        digests = self.job.all_gather(digest)[self.course.workers]
        different = np.flatnonzero((digests != digests[0]).any(axis=1))
        if len(different):
            ranks = [self.course.workers[index] for index in different]
            raise RuntimeError(
                f"after {steps} steps the weights on ranks {ranks} differ from those on rank "
                f"{self.course.workers[0]}, though exchange {self.settings.exchange.spec} is exact"
            )

    def outcome(self, file: RunFile) -> Outcome:
        """Sum the run up."""
        timing = np.array(file["timing/seconds"])[:, self.course.workers]
        return Outcome(
            path=file.path,
            top1=self.top1,
            top5=self.top5,
            loss=self.loss,
            train_s=self.train_s,
            images_per_s=self.images_per_s,
            phase_s=dict(zip(PHASES, timing.mean(axis=(0, 1)).tolist(), strict=True)),
            told="\n".join(line for line in (self.told, self.headroom.told()) if line),
        )
