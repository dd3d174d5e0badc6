"""Learning rate as a function of the iteration, counted from 0.

The places of drops may be `Fraction`s: a schedule stretched to a run of any length drops at exactly
the same fraction of it, with no rounding to whole iterations in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

Schedule = Callable[[int], float]


def constant(base: float) -> Schedule:
    """lr(t) = base."""
    return lambda t: base


def step(base: float, *, every: int | Fraction, factor: float) -> Schedule:
    """lr(t) = base * factor ** floor(t / every), Caffe's "step"."""
    return lambda t: base * factor ** (t // every)


def multistep(base: float, *, at: Sequence[int | Fraction], factor: float) -> Schedule:
    """lr(t) = base * factor ** (number of places in `at` that t has reached)."""
    return lambda t: base * factor ** sum(t >= place for place in at)


def polynomial(base: float, *, steps: int, power: float) -> Schedule:
    """lr(t) = base * (1 - t / steps) ** power, Caffe's "poly"; 0 from t = steps on."""
    return lambda t: base * max(0.0, 1.0 - t / steps) ** power
