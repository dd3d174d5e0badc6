"""The parts of a recipe that follow the run: warmup, decay, growth of the batch, and their sum.

Lengths and places are in the unit of the reference run, epochs or iterations; a run of another
length keeps their fractions of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from commbench.errors import UserError
from commbench.workloads.recipes import schedules
from commbench.workloads.recipes.scaling import RULES
from commbench.workloads.recipes.schedules import Place, Schedule

DECAYS = ("constant", "step", "multistep", "piecewise", "polynomial", "cosine", "exponential")
WARMUPS = ("constant", "gradual", "quadratic")


@dataclass(frozen=True)
class Decay:
    """The learning rate of the reference run, but for its warmup.

    Attributes:
        kind: one of `DECAYS`.
        every: between drops ("step"), or for one `factor` ("exponential").
        at: places of the drops ("multistep", "piecewise").
        factor: of each drop ("step", "multistep"), or over `every` ("exponential").
        factors: of the base rate, one more than places ("piecewise").
        power: "polynomial".
        counts_from: "start": it counts while the warmup goes on and is seen from the end of that;
            "warmup": it begins there, and is over at the end of the run.
    """

    kind: str
    every: Fraction = Fraction(1)
    at: tuple[Fraction, ...] = ()
    factor: float = 1.0
    factors: tuple[float, ...] = (1.0,)
    power: float = 1.0
    counts_from: str = "start"

    def stretched(self, base: float, stretch: Fraction, length: Place) -> Schedule:
        """The schedule from learning rate `base`, over `length` iterations.

        Args:
            base: before any drop.
            stretch: iterations of the run for one unit of the reference run.
            length: of polynomials and cosines.
        """
        places = [place * stretch for place in self.at]
        every = self.every * stretch
        made: dict[str, Callable[[], Schedule]] = {
            "constant": lambda: schedules.constant(base),
            "step": lambda: schedules.step(base, every=every, factor=self.factor),
            "multistep": lambda: schedules.multistep(base, at=places, factor=self.factor),
            "piecewise": lambda: schedules.piecewise(base, at=places, factors=self.factors),
            "polynomial": lambda: schedules.polynomial(base, steps=length, power=self.power),
            "cosine": lambda: schedules.cosine(base, steps=length),
            "exponential": lambda: schedules.exponential(base, every=every, factor=self.factor),
        }
        return made[self.kind]()

    def places(self, length: Fraction) -> list[Fraction]:
        """Where the rate drops, in the unit of the reference run, which is so long."""
        if self.kind == "step":
            return [self.every * i for i in range(1, -int(-length // self.every))]
        return list(self.at)


@dataclass(frozen=True)
class Warmup:
    """The start of a run at large batch.

    Attributes:
        kind: one of `WARMUPS`.
        length: in the unit of the reference run, at the reference batch; 0 for none.
        start_lr: learning rate of step 0 in a run at the recipe's own rate.
        scaling: how `length` grows with the batch, a key of `RULES`.
    """

    kind: str = "gradual"
    length: Fraction = Fraction(0)
    start_lr: float = 0.0
    scaling: str = "none"

    def length_at(self, ratio: float) -> Fraction:
        """At so many times the reference batch."""
        return self.length * Fraction(RULES[self.scaling](ratio))

    def schedule(self, start: float, end: float, steps: Place) -> Schedule:
        """From rate `start` to rate `end`."""
        if self.kind == "constant":
            return schedules.constant(start)
        rise = schedules.gradual if self.kind == "gradual" else schedules.quadratic
        return rise(start, end, steps=steps)


@dataclass(frozen=True)
class Growth:
    """A batch that grows where another recipe's rate would fall.

    Attributes:
        at: places.
        factor: of the batch at each.
    """

    at: tuple[Fraction, ...] = ()
    factor: int = 1


def joined(
    warmup: Warmup,
    decay: Decay,
    *,
    base: float,
    start: float,
    stretch: Fraction,
    ratio: float,
    total: Place,
) -> tuple[Schedule, Place]:
    """The learning rate of a whole run, and the iterations of its warmup.

    Args:
        warmup: left out if it would not rise: at a batch so small that `base` is below `start`.
        decay: what follows.
        base: peak rate.
        start: rate of step 0.
        stretch: iterations of the run for one unit of the reference run.
        ratio: of the batch to the reference batch.
        total: iterations of the run.

    Raises:
        UserError: the warmup takes the whole run.
    """
    length = warmup.length_at(ratio) * stretch if start < base else Fraction(0)
    if length >= total:
        raise UserError(
            f"a warmup of {float(length):.0f} iterations takes the whole run of {float(total):.0f}"
            f": at {ratio:g} times the recipe's reference batch it is too long; use a smaller batch"
        )
    if length == 0:
        return decay.stretched(base, stretch, total), 0
    rest = schedules.late(decay.stretched(base, stretch, total), by=length)
    if decay.counts_from == "warmup":
        # Its places keep their fractions of what is left.
        left = 1 - length / Fraction(total)
        rest = decay.stretched(base, stretch * left, total - length)
    return schedules.join([warmup.schedule(start, base, length), rest], at=[length]), length
