"""Two trainings held against each other: their speed from every step, and their accuracy.

Steps of two runs do not pair; see `commbench.resampling`. The interval of the difference in
accuracy tells what so many test samples can tell apart, as if each run had drawn its own (Wald);
what another seed would give, one run of each cannot know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.report import Training, read_report
from commbench.resampling import UNKNOWN, Estimate, median, ratio_of_medians

_95_PERCENT = 1.959964


@dataclass(frozen=True)
class Quantity:
    """Something measured at every step.

    Attributes:
        name: "step", "images per second", or the name of a phase.
        unit: "s" or "images/s".
        first, second: the medians over the steps.
        ratio: of the second's median to the first's.
    """

    name: str
    unit: str
    first: Estimate
    second: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class Accuracy:
    """How well two runs ended, and when they were as good as the worse of the two.

    Attributes:
        first, second: top-1 of the last evaluation, 0 to 1; NaN without one.
        points: the second's less the first's, in percentage points.
        reached: top-1 that both came to.
        first_reached_s, second_reached_s: seconds of training to there, along straight lines
            between evaluations.
        epochs: at which both were evaluated.
        points_at: the second's top-1 less the first's at each, in points.
    """

    first: float
    second: float
    points: Estimate
    reached: float
    first_reached_s: float
    second_reached_s: float
    epochs: list[float]
    points_at: list[float]


@dataclass(frozen=True)
class Pair:
    """Two trainings.

    Attributes:
        first_label, second_label: exchange and ranks.
        first_steps, second_steps: steps measured, the first of each left out.
        quantities: step, images per second, and every phase.
        accuracy: of the two.
    """

    first_label: str
    second_label: str
    first_steps: int
    second_steps: int
    quantities: list[Quantity]
    accuracy: Accuracy

    def quantity(self, name: str) -> Quantity:
        """The one of that name."""
        return next(one for one in self.quantities if one.name == name)


def compare_trainings(first: Path, second: Path) -> Pair:
    """Hold the second training against the first.

    Raises:
        UserError: no step of one was recorded.
    """
    runs = []
    for path in (first, second):
        run = read_report([path]).trainings[0]
        if not len(run.steps.number):
            raise UserError(f"{path}: no step was recorded, so there is nothing to compare")
        runs.append(run)
    a, b = runs
    phases = [name for name in a.steps.phase_s if name in b.steps.phase_s]
    return Pair(
        first_label=a.label,
        second_label=b.label,
        first_steps=len(a.steps.number),
        second_steps=len(b.steps.number),
        quantities=[
            _quantity("step", "s", a.steps.step_s, b.steps.step_s),
            _quantity("images per second", "images/s", a.steps.images_per_s, b.steps.images_per_s),
            *(_quantity(n, "s", a.steps.phase_s[n], b.steps.phase_s[n]) for n in phases),
        ],
        accuracy=_accuracy(a, b),
    )


def _quantity(
    name: str, unit: str, first: NDArray[np.float64], second: NDArray[np.float64]
) -> Quantity:
    return Quantity(name, unit, median(first), median(second), ratio_of_medians(second, first))


def _accuracy(a: Training, b: Training) -> Accuracy:
    curves = [(run.evaluations["time_s"], run.evaluations["top1"]) for run in (a, b)]
    if not all(len(top1) for _, top1 in curves):
        nan = math.nan
        return Accuracy(nan, nan, UNKNOWN, nan, nan, nan, [], [])
    first, second = (float(top1[-1]) for _, top1 in curves)
    both = min(float(top1.max()) for _, top1 in curves)
    reached = [_reached(times, top1, both) for times, top1 in curves]
    at = [
        dict(
            zip(
                run.evaluations["epoch"].round(6).tolist(),
                run.evaluations["top1"].tolist(),
                strict=True,
            )
        )
        for run in (a, b)
    ]
    epochs = [epoch for epoch in at[0] if epoch in at[1]]
    samples = [int(run.facts.get("test_images", 0)) for run in (a, b)]
    return Accuracy(
        first=first,
        second=second,
        points=points_apart((first, second), samples),
        reached=both,
        first_reached_s=reached[0],
        second_reached_s=reached[1],
        epochs=epochs,
        points_at=[100 * (at[1][epoch] - at[0][epoch]) for epoch in epochs],
    )


def points_apart(top1: tuple[float, float], samples: list[int]) -> Estimate:
    """The second of two accuracies less the first in points, each of so many test samples.

    Without bounds where their number is not known.
    """
    points = 100 * (top1[1] - top1[0])
    if not all(samples):
        return Estimate(points, -math.inf, math.inf)
    variance = sum(share * (1 - share) / count for share, count in zip(top1, samples, strict=True))
    half = 100 * _95_PERCENT * math.sqrt(variance)
    return Estimate(points, points - half, points + half)


def _reached(times: NDArray[np.float64], top1: NDArray[np.float64], level: float) -> float:
    """Seconds until a run was that good for the first time; it was, at some evaluation."""
    at = int(np.argmax(top1 >= level))
    if at == 0:
        return float(times[0])
    return float(np.interp(level, top1[at - 1 : at + 1], times[at - 1 : at + 1]))
