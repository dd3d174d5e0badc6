"""Synchronous data-parallel training: one model, one recipe, any exchange.

Every rank computes the gradient of its share of the global batch, the exchange adds the gradients
up, and every rank takes the same step. Which samples a step sees, and which units dropout leaves
out, depend on the seed alone; so the number of ranks changes the loss by rounding only, and one
exchange at one number of ranks gives bitwise the same weights in every run.
"""

from __future__ import annotations

import json
import os
import resource
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from commbench.asynchronous.replica import AsynchronousReplica
from commbench.course import Course, Settings, create_run_file, prepare
from commbench.errors import UserError
from commbench.feeding import Feed, loaders_for
from commbench.job import Job
from commbench.journals import Journals, open_journals
from commbench.logbook import Logbook
from commbench.record import RunFile, check_output
from commbench.record.reader import attributes, open_run
from commbench.replica import Replica
from commbench.telemetry import PHASES

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
    with opened(job, settings) as run:
        return run.to_end()


@contextmanager
def opened(job: Job, settings: Settings) -> Iterator[Run]:
    """A run with all that it needs, ready for its first step; collective.

    Raises:
        UserError: bad settings.
    """
    job.on_root(lambda: _check_files(settings))
    # Opened first: MLPerf counts what follows as preparation.
    journals = job.keep_on_root(lambda: open_journals(settings.tensorboard, settings.mllog))
    course = prepare(job, settings)
    loaders = loaders_for(settings.loaders, course.data, job.local_size)
    settings = replace(settings, loaders=loaders)
    open_replica: Callable[..., Replica] = Replica
    if settings.exchange.asynchronous:
        open_replica = partial(AsynchronousReplica, terms=course.terms(settings.exchange))
    threads = settings.threads or _threads_of(os.environ)
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
    begun = _begun(job, settings, course, replica, threads=threads, journals=journals)
    with closing(replica), begun as run:
        yield run


@contextmanager
def _begun(
    job: Job,
    settings: Settings,
    course: Course,
    replica: Replica,
    *,
    threads: int,
    journals: Journals | None,
) -> Iterator[Run]:
    """The run of a replica, with its file; collective."""
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
        with closing(Run(job, settings, course, replica)) as run:
            yield run
        return
    with run_file, journals:
        journals.begin(_facts(run_file))
        run = Run(job, settings, course, replica, file=run_file, journals=journals)
        with closing(run):
            yield run


def _threads_of(environ: Mapping[str, str]) -> int:
    """What OMP_NUM_THREADS says, which may be a list; 0 for nothing, as OpenMP takes nonsense."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _check_files(settings: Settings) -> None:
    """Refuse a trace that could not be written at the end, or two files of one name."""
    if settings.trace:
        check_output(settings.trace)
    named = {"--output": settings.output, "--trace": settings.trace, "--mllog": settings.mllog}
    places: dict[Path, str] = {}
    for option, path in named.items():
        if path is not None and (other := places.setdefault(path.absolute(), option)) != option:
            raise UserError(f"{other} and {option} both name {path}: give each a name of its own")


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


class Run:
    """A run between its first step and its last.

    Attributes:
        course: what it does.
        replica: this rank's model.
        logbook: what it keeps.
    """

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
        """Open the logbook and the feed; collective. `file` and `journals` are rank 0's."""
        self.course = course
        self.replica = replica
        self.logbook = Logbook(job, settings, course, file=file, journals=journals)
        self._job = job
        self._settings = settings
        self._file = file
        self._feed: Feed | None = None
        if replica.contributes:  # a server without data reads none
            worker = course.workers.index(job.rank)
            self._feed = Feed(job, settings, course, worker, replica.device)
        self._upcoming = deque(course.evaluate_after)
        self._told = ""
        self._checks_s = 0.0
        self._corrupt: dict[str, str] = {}

    def to_end(self) -> Outcome | None:
        """Go through all steps; returns on every rank when rank 0's file is complete."""
        self._job.barrier()
        with self.logbook.display:
            for step in range(self.course.total_steps):
                self.advance(step)
                if step + 1 == self._upcoming[0]:
                    self._upcoming.popleft()
                    index = len(self.course.evaluate_after) - len(self._upcoming) - 1
                    self.evaluate(step + 1, index)
        self.logbook.close()
        return self._finish()

    def close(self) -> None:
        """End the threads of the feed."""
        if self._feed:
            self._feed.close()

    def advance(self, step: int) -> None:
        """Take one step, and take note of it."""
        times = self.course.timetable
        start = perf_counter()
        if self._feed is None:
            loss_sum, seconds = self.replica.serve(step)
        else:
            if times.place(step)[1] == 0:
                self.replica.model.start_epoch()
            loss_sum, seconds = self.replica.step(
                self._feed.step, step=step, global_batch=times.batch(step)
            )
            # What is left is little: a new epoch's states, and marks in between.
            seconds[0] += perf_counter() - start - sum(seconds)
        self.logbook.add(step, start, loss_sum, seconds, self.replica)

    def evaluate(self, steps: int, index: int) -> None:
        """Test on all ranks, each on its share, and check that their weights agree."""
        job, course = self._job, self.course
        self.logbook.evaluating(steps)
        self.replica.mean_statistics(job, len(course.workers))
        totals = np.zeros(3)
        if self._feed:
            totals = self.replica.evaluate(self._feed.tests())
        totals = job.all_sum(totals) / len(course.data.test)
        self._gather_corrupt()
        top1, top5, loss = totals.tolist()
        if not np.isfinite(totals).all():
            raise UserError(
                f"training diverged: the loss is {loss} after {steps} steps; "
                f"lower --lr (it was {course.plan.base_lr:g})"
            )
        start = perf_counter()
        self._check_weights(steps)
        self._checks_s += perf_counter() - start
        self._told = self.replica.hand_in(self._file)
        self.logbook.evaluated(steps, index, top1, top5, loss)

    def _gather_corrupt(self) -> None:
        """Bring together which samples the ranks could not read; warn of new ones on rank 0."""
        own = self.course.data.corrupt
        if own is None:
            return
        before = set(self._corrupt)
        for text in self._job.all_gather_text(json.dumps(own.names)):
            self._corrupt.update(json.loads(text))
        own.check(self._corrupt)
        for name, reason in self._corrupt.items():
            if self._file is not None and name not in before:
                self.logbook.display.say(
                    f"warning: {name} is corrupt, the next one stands in: {reason}"
                )

    def _check_weights(self, steps: int) -> None:
        """Compare a digest of the weights over the workers; synchronous SGD keeps them equal."""
        if not self.replica.reduces:
            return
        digest = np.frombuffer(self.replica.state_digest(), np.uint8)
        digests = self._job.all_gather(digest)[self.course.workers]
        different = np.flatnonzero((digests != digests[0]).any(axis=1))
        if len(different):
            ranks = [self.course.workers[index] for index in different]
            raise RuntimeError(
                f"after {steps} steps the weights on ranks {ranks} differ from those on rank "
                f"{self.course.workers[0]}, though exchange {self._settings.exchange.spec} is exact"
            )

    def _finish(self) -> Outcome | None:
        """Complete the run file, and sum the run up."""
        job, course, book = self._job, self.course, self.logbook
        # A server without data has the weights of the start only.
        fingerprint = job.all_gather_text(self.replica.fingerprint())[course.workers[0]]
        scale = self.replica.backprop.scale
        scales = job.all_gather(np.array([scale.skipped, scale.value]))[course.workers[0]]
        memory = job.gather(np.array([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
        if self._file is None or memory is None:
            return None
        self._file.finish(
            top1=book.top1,
            top5=book.top5,
            train_s=book.train_s,
            recording_s=book.own_s,
            checks_s=self._checks_s,
            weights_sha256=fingerprint,
            **book.headroom.attributes(),
            skipped_steps=int(scales[0]),
            loss_scale=float(scales[1]),
            corrupt_samples=len(self._corrupt),
            corrupt_names=list(self._corrupt)[:_CORRUPT_NAMES],
            peak_memory_bytes=[int(kib) * 1024 for kib in memory[:, 0]],
        )
        timing = np.array(self._file["timing/seconds"])[:, course.workers]
        return Outcome(
            path=self._file.path,
            top1=book.top1,
            top5=book.top5,
            loss=book.loss,
            train_s=book.train_s,
            images_per_s=book.images_per_s,
            phase_s=dict(zip(PHASES, timing.mean(axis=(0, 1)).tolist(), strict=True)),
            told="\n".join(line for line in (self._told, book.headroom.told()) if line),
        )
