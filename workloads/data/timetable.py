"""Which epoch a step belongs to, and how many samples it takes, where the batch may grow.

The batch grows between two epochs: an epoch is one shuffle cut into batches of one size. A place
in the middle of an epoch is rounded to the nearest end of one, but the first epoch always has the
batch of the start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from commbench.errors import UserError
from commbench.workloads.data.order import steps_per_epoch


@dataclass(frozen=True)
class Stage:
    """A part of a run with one batch.

    Attributes:
        first_step: of the run's.
        first_epoch: of the run's.
        batch: samples a step, all workers together.
        steps_per_epoch: whole batches.
    """

    first_step: int
    first_epoch: int
    batch: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Timetable:
    """A run's stages.

    Attributes:
        stages: in their order, at least one.
        total_steps: of the run.
    """

    stages: tuple[Stage, ...]
    total_steps: int

    def stage(self, step: int) -> Stage:
        """The one a step belongs to."""
        firsts = [stage.first_step for stage in self.stages]
        return self.stages[bisect_right(firsts, step) - 1]

    def batch(self, step: int) -> int:
        """Samples of a step."""
        return self.stage(step).batch

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number in the epoch."""
        stage = self.stage(step)
        epochs, step_in_epoch = divmod(step - stage.first_step, stage.steps_per_epoch)
        return stage.first_epoch + epochs, step_in_epoch

    def epochs(self, steps: int) -> Fraction:
        """Epochs done after so many steps."""
        stage = self.stage(max(0, steps - 1))
        return stage.first_epoch + Fraction(steps - stage.first_step, stage.steps_per_epoch)

    def clock(self, step: int) -> int | Fraction:
        """How many steps of the first batch make as many epochs as there are before a step."""
        if len(self.stages) == 1:
            return step
        return self.epochs(step) * self.stages[0].steps_per_epoch

    def every(self, epochs: float) -> list[int]:
        """Numbers of steps, increasing, that make so many epochs each; the last is all of them."""
        ends = [stage.first_step for stage in self.stages[1:]] + [self.total_steps]
        numbers = {self.total_steps}
        for stage, end in zip(self.stages, ends, strict=True):
            each = max(1, round(epochs * stage.steps_per_epoch))
            numbers |= set(range(stage.first_step + each, end + 1, each))
        return sorted(numbers)


def timetable(
    samples: int,
    *,
    batch: int,
    workers: int,
    epochs: float,
    steps: int | None,
    growth: Sequence[tuple[Fraction, int]] = (),
) -> Timetable:
    """The timetable of a run.

    Args:
        samples: in the training set.
        batch: samples of the first step.
        workers: that share each batch.
        epochs: length of the run.
        steps: its length instead.
        growth: places as fractions of the run's epochs, increasing, and the batch's factor there.

    Raises:
        UserError: a batch that is larger than the training set, or too small for the workers.
    """
    batches, each = [batch], [steps_per_epoch(samples, batch, workers)]
    for _, factor in growth:
        batches.append(batches[-1] * factor)
        try:
            each.append(steps_per_epoch(samples, batches[-1], workers))
        except UserError as error:
            raise UserError(f"the recipe grows the batch from {batch}: {error}") from error
    if steps is not None:
        places = [Fraction(0), *(place for place, _ in growth), Fraction(1)]
        shares = [after - before for before, after in pairwise(places)]
        epochs = float(steps / sum(s * e for s, e in zip(shares, each, strict=True)))
    stages = [Stage(0, 0, batch, each[0])]
    for (place, _), size, per_epoch in zip(growth, batches[1:], each[1:], strict=True):
        last, first_epoch = stages[-1], max(1, round(place * Fraction(epochs)))
        if first_epoch == last.first_epoch:  # two places fall together in a run this short
            stages.pop()
        first = last.first_step + (first_epoch - last.first_epoch) * last.steps_per_epoch
        stages.append(Stage(first, first_epoch, size, per_epoch))
    if steps is None:
        last = stages[-1]
        left = (Fraction(epochs) - last.first_epoch) * last.steps_per_epoch
        steps = max(1, last.first_step + round(left))
    return Timetable(tuple(one for one in stages if one.first_step < steps), steps)
