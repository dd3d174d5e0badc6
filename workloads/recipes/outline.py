"""What a recipe comes to at one batch: its numbers, and its curves over the epochs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from commbench.errors import UserError
from commbench.workloads.data.timetable import Timetable, timetable
from commbench.workloads.recipes.recipe import Plan, Recipe

_POINTS = 2000


@dataclass(frozen=True)
class Moment:
    """A step at which something changes.

    Attributes:
        what: happens there.
        step: from 0.
        epoch: done before it.
        lr: of the step.
        batch: of the step.
    """

    what: str
    step: int
    epoch: float
    lr: float
    batch: int


@dataclass(frozen=True)
class Outline:
    """A recipe scaled to one batch.

    Attributes:
        recipe: it.
        plan: its rates.
        timetable: its steps.
        moments: in the order of their steps.
    """

    recipe: Recipe
    plan: Plan
    timetable: Timetable
    moments: list[Moment]

    def curves(self) -> dict[str, list[float]]:
        """Points for a figure: "epoch", "learning rate", "global batch" and "momentum"."""
        total = self.timetable.total_steps
        steps = {i * (total - 1) // _POINTS for i in range(_POINTS + 1)}
        # Both sides of every jump.
        steps |= {m.step + side for m in self.moments for side in (-1, 0) if m.step + side >= 0}
        ordered = sorted(steps)
        return {
            "epoch": [float(self.timetable.epochs(step)) for step in ordered],
            "learning rate": [self.plan.lr(step) for step in ordered],
            "global batch": [float(self.timetable.batch(step)) for step in ordered],
            "momentum": [self.plan.momentum] * len(ordered),
        }


def outline(recipe: Recipe, *, batch: int, epochs: float, images: int) -> Outline:
    """Scales a recipe.

    Args:
        recipe: to scale.
        batch: images of the first step.
        epochs: length of the run.
        images: in the training set.

    Raises:
        UserError: for numbers that do not make a run.
    """
    if not 0 < epochs < float("inf"):
        raise UserError(f"{epochs} epochs: must be a positive number")
    growth = recipe.growth_places()
    times = timetable(images, batch=batch, workers=1, epochs=epochs, steps=None, growth=growth)
    plan = recipe.plan(batch, times.clock(times.total_steps), None, times.clock)
    return Outline(recipe, plan, times, _moments(recipe, plan, times))


def _moments(recipe: Recipe, plan: Plan, times: Timetable) -> list[Moment]:
    last = times.total_steps - 1
    told: dict[int, list[str]] = {0: ["start"]}

    def tell(what: str, step: int) -> None:
        if 0 < step <= last:
            told.setdefault(step, []).append(what)

    if plan.warmup_steps:
        tell("after warmup", first_step(plan, times, plan.warmup_steps))
    places = recipe.decay.places(recipe.reference_length)
    length = recipe.reference_length
    if recipe.decay.counts_from == "warmup":
        begin = Fraction(plan.warmup_steps) / plan.stretch
        places = [begin + place * (1 - begin / length) for place in places]
    for place in places:
        tell("drop", first_step(plan, times, place * plan.stretch))
    if not places and recipe.decay.kind != "constant":
        for quarter in (1, 2, 3):
            where = length * plan.stretch * quarter / 4
            tell(f"{quarter}/4 of the run", first_step(plan, times, where))
    for stage in times.stages[1:]:
        tell("batch grows", stage.first_step)
    tell("last step", last)
    return [
        Moment(
            what=", ".join(words),
            step=step,
            epoch=float(times.epochs(step)),
            lr=plan.lr(step),
            batch=times.batch(step),
        )
        for step, words in sorted(told.items())
    ]


def first_step(plan: Plan, times: Timetable, place: int | Fraction) -> int:
    """The first step at or after a place on the plan's clock."""
    low, high = 0, times.total_steps
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if plan.clock(middle) >= place else (middle + 1, high)
    return low
