"""Learning rate as a function of the iteration, counted from 0.

A schedule is a function of one number. `join` makes one of several, each counting from where it
begins, as optax's `join_schedules` does; `late` undoes that, for one that counts from the start of
the run. Places may be `Fraction`s: a schedule stretched to a run of any length drops at exactly the
same fraction of it, with no rounding to whole iterations in between. The iteration may be a
fraction too, where a growing batch makes iterations unequal.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction

Place = int | Fraction
Schedule = Callable[[Place], float]


def constant(base: float) -> Schedule:
    """lr(t) = base."""
    return lambda t: base


def step(base: float, *, every: Place, factor: float) -> Schedule:
    """lr(t) = base * factor ** floor(t / every), Caffe's "step"."""
    return lambda t: base * factor ** int(t // every)


def multistep(base: float, *, at: Sequence[Place], factor: float) -> Schedule:
    """lr(t) = base * factor ** (number of places in `at` that t has reached)."""
    return lambda t: base * factor ** bisect_right(at, t)


def piecewise(base: float, *, at: Sequence[Place], factors: Sequence[float]) -> Schedule:
    """lr(t) = base * factors[number of places in `at` that t has reached].

    Akiba et al.'s slow start is `at` 40, 70 and 85 of 90 epochs, `factors` 0.5, 0.075, 0.01, 0.001.
    """
    return lambda t: base * factors[bisect_right(at, t)]


def polynomial(base: float, *, steps: Place, power: float) -> Schedule:
    """lr(t) = base * (1 - t / steps) ** power, Caffe's "poly"; 0 from t = steps on."""
    return lambda t: base * max(0.0, 1.0 - float(t / steps)) ** power


def cosine(base: float, *, steps: Place) -> Schedule:
    """lr(t) = base * (1 + cos(pi t / steps)) / 2; 0 from t = steps on (Loshchilov, Hutter 2017)."""
    return lambda t: base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, float(t / steps))))


def exponential(base: float, *, every: Place, factor: float) -> Schedule:
    """lr(t) = base * factor ** (t / every), a little at every iteration."""
    return lambda t: float(base * factor ** float(t / every))


def gradual(start: float, end: float, *, steps: Place) -> Schedule:
    """lr(t) = start + (end - start) * t / steps, `end` from t = steps on.

    The same amount at every iteration: the gradual warmup of Goyal et al., section 2.2.
    """
    return lambda t: start + (end - start) * min(1.0, float(t / steps))


def quadratic(start: float, end: float, *, steps: Place) -> Schedule:
    """lr(t) = start + (end - start) * (t / steps) ** 2, `end` from t = steps on (nvcaffe's)."""
    return lambda t: start + (end - start) * min(1.0, float(t / steps)) ** 2


def join(schedules: Sequence[Schedule], *, at: Sequence[Place]) -> Schedule:
    """The i-th schedule from at[i-1] on, where its own t is 0; the first one from 0.

    Raises:
        ValueError: unless there is one place fewer than schedules, in increasing order.
    """
    starts = [0, *at]
    if len(schedules) != len(starts) or any(a > b for a, b in zip(starts, at, strict=False)):
        raise ValueError(f"{len(schedules)} schedules joined at {at}")

    def joined(t: Place) -> float:
        index = bisect_right(at, t)
        return schedules[index](t - starts[index])

    return joined


def late(schedule: Schedule, *, by: Place) -> Schedule:
    """A schedule that begins in its middle: at t = 0 it is where `schedule` is at `by`."""
    return lambda t: schedule(t + by)
