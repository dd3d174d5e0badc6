"""What a training run keeps of its steps, and tells of them: run file, journals, trace, display.

Every rank has a logbook; rank 0's has the run file and hears of all ranks by telemetry. The time it
takes is kept too, apart from that of the steps: what is measured should not hide its own cost.
"""

from __future__ import annotations

import math
from collections import deque
from time import perf_counter

import numpy as np

from commbench.clocks import clock_offset
from commbench.course import Course, Settings
from commbench.headroom import Headroom
from commbench.job import Job
from commbench.journals import Evaluation, Journals, Step
from commbench.progress import Display, Glance
from commbench.record import RunFile
from commbench.replica import Replica
from commbench.telemetry import PHASES, Telemetry, Took
from commbench.trace import Recorder, write

_EXCHANGE = PHASES.index("exchange")
_RECENT = 20  # steps that the display tells the mean of


class Logbook:
    """One rank's end of it.

    Attributes:
        headroom: of the steps so far, on rank 0.
        train_s: of all steps on this rank, evaluations apart.
        own_s: that keeping the book took.
        images_per_s: of every step, by rank 0's clock.
        loss: of the last step that all ranks have reported; NaN before.
        top1, top5: of the last evaluation.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        course: Course,
        *,
        file: RunFile | None,
        journals: Journals | None,
    ) -> None:
        """Open it; collective over all ranks.

        Args:
            job: the ranks.
            settings: of the run.
            course: likewise.
            file: the run file, on rank 0.
            journals: likewise.
        """
        self.headroom = Headroom(course.workers)
        self.train_s = self.own_s = 0.0
        self.images_per_s: list[float] = []
        self.loss = self.top1 = self.top5 = math.nan
        self._job = job
        self._course = course
        self._file = file
        self._journals = Journals() if journals is None else journals
        self._telemetry = Telemetry(job, self._record)
        self.display = Display(course.total_steps, settings.progress if file else "none")
        self._latest: deque[tuple[float, float, int]] = deque(maxlen=_RECENT)
        self._gathered: dict[int, dict[int, Took]] = {}
        self._offset = clock_offset(job)
        self._trace_path = settings.trace
        window = settings.trace_steps.within(course.total_steps)
        self._trace = Recorder(window, self._offset) if settings.trace else None

    def add(
        self, step: int, start: float, loss_sum: float, seconds: list[float], replica: Replica
    ) -> None:
        """Take note of a step of this rank.

        Args:
            step: from 0.
            start: when it began, in `perf_counter`'s seconds.
            loss_sum: over this rank's samples.
            seconds: of each phase.
            replica: which has just taken it.
        """
        now = perf_counter()
        self.train_s += now - start
        if self._file is not None:
            self._show(self._file, step, now - start, seconds[_EXCHANGE])
        each = [span.stop - span.start for span in replica.spans]
        handed_in = replica.handed_in + self._offset
        took = Took(loss_sum, np.array(seconds), sum(each), each[-1] if each else 0.0, handed_in)
        self._telemetry.add(step, took)
        if self._trace:
            self._trace.add(step + 1, start, seconds, replica.spans)
        self.own_s += perf_counter() - now

    def evaluating(self, steps: int) -> None:
        """A test begins after so many steps."""
        self._journals.evaluating(steps, float(self._course.timetable.epochs(steps)))

    def evaluated(self, steps: int, index: int, top1: float, top5: float, loss: float) -> None:
        """Take note of a test on all ranks.

        Args:
            steps: done.
            index: of the evaluation, from 0.
            top1: from 0 to 1.
            top5: likewise.
            loss: mean over the test samples.
        """
        self.top1, self.top5 = top1, top5
        if self._file is None:
            return
        course = self._course
        epoch = float(course.timetable.epochs(steps))
        values = (steps, epoch, self.train_s, top1, top5, loss)
        names = ("step", "epoch", "time_s", "top1", "top5", "loss")
        for name, value in zip(names, values, strict=True):
            self._file[f"eval/{name}"][index] = value
        before_epoch, before_s = 0.0, 0.0
        if index:
            before_epoch, before_s = (self._file[f"eval/{name}"][index - 1] for name in names[1:3])
        images = (epoch - before_epoch) * len(course.data.train)
        self._journals.evaluated(
            Evaluation(
                step=steps,
                epoch=epoch,
                top1=top1,
                top5=top5,
                loss=loss,
                images_per_s=images / (self.train_s - before_s),
                last=steps == course.total_steps,
            )
        )
        perplexity = ""
        if course.task.kind == "text" and loss < 100:
            perplexity = f", perplexity {math.exp(loss):.2f}"
        self.display.say(
            f"epoch {epoch:.2f}: top-1 {top1:.2%}, top-5 {top5:.2%}, test loss {loss:.4f}"
            f"{perplexity}, after {self.train_s:.1f} s of training"
        )

    def close(self) -> None:
        """Bring in what is still under way, and write the trace; collective."""
        self._telemetry.close()
        if self._trace is None or self._trace_path is None:
            return
        path = self._trace_path
        ranks = self._job.gather_objects(self._trace)
        hosts = self._job.all_gather_text(self._job.host)
        self._job.on_root(lambda: write(path, ranks, hosts))

    def _show(self, file: RunFile, step: int, step_s: float, exchange_s: float) -> None:
        """Record and show a step of rank 0's."""
        epoch = float(self._course.timetable.epochs(step + 1))
        batch = self._course.timetable.batch(step)
        rate = batch / step_s
        file["steps/batch"][step] = batch
        file["steps/epoch"][step] = epoch
        file["steps/lr"][step] = self._course.plan.lr(step)
        file["steps/images_per_s"][step] = rate
        self.images_per_s.append(rate)
        self._latest.append((step_s, exchange_s, batch))
        recent_s, exchanging_s, images = (sum(column) for column in zip(*self._latest, strict=True))
        self.display.update(
            Glance(
                step=step + 1,
                epoch=epoch,
                loss=self.loss,
                top1=self.top1,
                images_per_s=images / recent_s,
                exchange_share=exchanging_s / recent_s,
            )
        )

    def _record(self, rank: int, step: int, took: Took) -> None:
        """Take in a rank's step, on rank 0; the loss is complete with the last rank's."""
        assert self._file is not None
        self._file["timing/seconds"][step, rank] = took.seconds
        self._file["timing/exchanging"][step, rank] = took.exchanging
        steps = self._gathered.setdefault(step, {})
        steps[rank] = took
        if len(steps) == self._job.size:
            # Added in rank order whatever order the rows came in: bitwise repeatable.
            ordered = [steps[other] for other in range(self._job.size)]
            self.loss = sum(one.loss_sum for one in ordered) / self._course.timetable.batch(step)
            self._file["steps/loss"][step] = self.loss
            self._file["timing/waiting"][step] = self.headroom.add(ordered)
            del self._gathered[step]
            if self._journals:
                self._journals.step(self._told(step, ordered))

    def _told(self, step: int, took: list[Took]) -> Step:
        """A step that all ranks have reported, for the journals."""
        seconds = np.mean([took[worker].seconds for worker in self._course.workers], axis=0)
        return Step(
            number=step + 1,
            loss=self.loss,
            lr=self._course.plan.lr(step),
            images_per_s=self.images_per_s[step],
            seconds=dict(zip(PHASES, seconds.tolist(), strict=True)),
        )
