"""Recipes: the settings of a published training run, scaled to the run at hand.

A recipe is a TOML file; `firecaffe-nin.toml` beside this module shows every key.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from commbench.errors import UserError
from commbench.workloads.recipes import schedules
from commbench.workloads.recipes.toml_table import Table, read_toml

_FOLDER = Path(__file__).parent
_SCALINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
    "none": lambda ratio: 1.0,
}


@dataclass(frozen=True)
class Drops:
    """Learning-rate schedule of the reference run, in iterations of that run.

    Attributes:
        kind: "constant", "step", "multistep" or "polynomial".
        reference_steps: length of the reference run; a run of T steps is stretched by
            T / reference_steps.
        every: steps between drops ("step").
        at: places of the drops ("multistep").
        factor: of each drop ("step", "multistep").
        power: "polynomial".
    """

    kind: str
    reference_steps: int = 1
    every: int = 1
    at: tuple[int, ...] = ()
    factor: float = 1.0
    power: float = 1.0

    def stretched(self, base: float, total_steps: int) -> schedules.Schedule:
        """The schedule for a run of `total_steps`, from learning rate `base`."""
        stretch = Fraction(total_steps, self.reference_steps)
        if self.kind == "step":
            return schedules.step(base, every=self.every * stretch, factor=self.factor)
        if self.kind == "multistep":
            places = [place * stretch for place in self.at]
            return schedules.multistep(base, at=places, factor=self.factor)
        if self.kind == "polynomial":
            return schedules.polynomial(base, steps=total_steps, power=self.power)
        return schedules.constant(base)


@dataclass(frozen=True)
class Plan:
    """A recipe scaled to one run: what the optimizer does at each step.

    Attributes:
        recipe: name of the recipe.
        base_lr: learning rate of step 0.
        momentum: of the optimizer, constant.
        weight_decay: of the optimizer, constant.
        schedule: learning rate by step.
    """

    recipe: str
    base_lr: float
    momentum: float
    weight_decay: float
    schedule: schedules.Schedule

    def lr(self, step: int) -> float:
        """Learning rate of a step, from 0, before the multipliers of weights and biases."""
        return self.schedule(step)


@dataclass(frozen=True)
class Recipe:
    """Settings of a published run.

    Attributes:
        name: file name without `.toml`.
        description: one line.
        reference_batch: global batch of the reference run.
        reference_lr: learning rate at that batch.
        lr_scaling: how it grows with the global batch: "linear", "sqrt" or "none".
        momentum: of the optimizer.
        weight_decay: of the optimizer.
        bias_lr_multiplier: learning rate of biases relative to weights.
        bias_decay_multiplier: weight decay of biases relative to weights.
        drops: learning-rate schedule.
    """

    name: str
    description: str
    reference_batch: int
    reference_lr: float
    lr_scaling: str
    momentum: float
    weight_decay: float
    bias_lr_multiplier: float
    bias_decay_multiplier: float
    drops: Drops

    def base_lr(self, global_batch: int) -> float:
        """Learning rate for this many images a step: the reference rate, scaled."""
        return self.reference_lr * _SCALINGS[self.lr_scaling](global_batch / self.reference_batch)

    def plan(self, global_batch: int, total_steps: int, lr: float | None = None) -> Plan:
        """Scales the recipe to a run.

        Args:
            global_batch: images a step over all workers.
            total_steps: length of the run; the schedule's drops keep their fractions of it.
            lr: starts from this learning rate, at any batch, instead of the recipe's.

        Raises:
            UserError: for a number that is not positive.
        """
        if global_batch < 1 or total_steps < 1:
            raise UserError(
                f"global batch {global_batch}, {total_steps} steps: both must be at least 1"
            )
        base = self.base_lr(global_batch) if lr is None else lr
        if not (math.isfinite(base) and base > 0):
            raise UserError(f"learning rate {base}: must be a positive number")
        return Plan(
            recipe=self.name,
            base_lr=base,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.drops.stretched(base, total_steps),
        )


def recipe_names() -> list[str]:
    """Names of the recipes shipped with commbench, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a shipped recipe by name, or any recipe by the path of its TOML file.

    Anything ending in `.toml` or holding a path separator is a path.

    Raises:
        UserError: for an unknown name, an unreadable file, or an unknown key, a missing key or an
            impossible value in it; the line names file, key and choices.
    """
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = Path(name_or_path)
    elif name_or_path in recipe_names():
        path = _FOLDER / f"{name_or_path}.toml"
    else:
        raise UserError(
            f"unknown recipe {name_or_path!r}: choose from {', '.join(recipe_names())}, "
            "or give the path of a .toml file"
        )
    table = read_toml(path)
    recipe = Recipe(
        name=path.stem,
        description=table.text("description", default=path.stem),
        reference_batch=table.whole("reference_batch", at_least=1),
        reference_lr=table.number("reference_lr", above=0.0),
        lr_scaling=table.choice("lr_scaling", list(_SCALINGS)),
        momentum=table.number("momentum", at_least=0.0, below=1.0),
        weight_decay=table.number("weight_decay", at_least=0.0),
        bias_lr_multiplier=table.number("bias_lr_multiplier", at_least=0.0, default=1.0),
        bias_decay_multiplier=table.number("bias_decay_multiplier", at_least=0.0, default=1.0),
        drops=_drops(table.table("schedule")),
    )
    table.finish()
    return recipe


def _drops(table: Table) -> Drops:
    kind = table.choice("kind", ["constant", "step", "multistep", "polynomial"])
    if kind == "step":
        drops = Drops(
            kind,
            reference_steps=table.whole("reference_steps", at_least=1),
            every=table.whole("every", at_least=1),
            factor=table.number("factor", above=0.0),
        )
    elif kind == "multistep":
        drops = Drops(
            kind,
            reference_steps=table.whole("reference_steps", at_least=1),
            at=table.increasing("at"),
            factor=table.number("factor", above=0.0),
        )
    elif kind == "polynomial":
        drops = Drops(kind, power=table.number("power", above=0.0))
    else:
        drops = Drops(kind)
    table.finish()
    return drops
