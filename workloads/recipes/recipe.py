"""Recipes: the settings of a published training run, scaled to the run at hand.

A recipe is a TOML file beside this module; `reading` reads it, docs/RECIPES.md tells every key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from commbench.errors import UserError
from commbench.workloads.recipes.rates import Decay, Growth, Warmup, joined
from commbench.workloads.recipes.scaling import scaled
from commbench.workloads.recipes.schedules import Place, Schedule

IMAGENET_IMAGES = 1_281_167
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimizer, and what only some of them have; `optimizers` tells their formulas.

    Attributes:
        kind: "caffe-sgd", "sgd", "lars", "lars-clip", "rmsprop-sgd" or "adam".
        nesterov: "sgd".
        momentum_correction: "caffe-sgd" and LARS: rescale the velocity when the rate changes.
        trust: eta of LARS.
        trust_decay: whether the weight decay is in LARS's denominator.
        skip: kinds of parameters to which LARS gives no rate of their own: "bias", "norm".
        center, period: "rmsprop-sgd": where it is half SGD, and how long the change takes, in the
            unit of the reference run.
        rms_lr: "rmsprop-sgd": learning rate of its RMSprop.
        beta2: decay of the mean square, "rmsprop-sgd" and "adam".
        eps: added to its root.
    """

    kind: str = "caffe-sgd"
    nesterov: bool = False
    momentum_correction: bool = False
    trust: float = 0.001
    trust_decay: bool = True
    skip: tuple[str, ...] = ()
    center: Fraction = Fraction(10)
    period: Fraction = Fraction(5)
    rms_lr: float = 3e-4
    beta2: float = 0.99
    eps: float = 1e-8

    @property
    def needs_whole_gradient(self) -> bool:
        """Whether a step depends on the norms of whole gradients."""
        return self.kind.startswith("lars")

    def sgd_share(self, place: float) -> float:
        """Akiba et al.'s alpha_SGD at a place of the reference run.

        1/2 exp(2 (e - center) / period) before the center; from there linear, with the same value
        and slope, to 1 at center + period / 2. (The formula in circulation has 2 (e - center) /
        period in the linear part, which jumps from 1.5 to 1 at its end.)
        """
        distance = (place - float(self.center)) / float(self.period)
        return 0.5 * math.exp(2 * distance) if distance < 0 else min(1.0, 0.5 + distance)


@dataclass(frozen=True)
class Plan:
    """A recipe scaled to one run: what the optimizer does at each step.

    Attributes:
        recipe: name of the recipe.
        base_lr: peak learning rate: after the warmup, before any decay.
        momentum: of the optimizer, constant.
        weight_decay: of the optimizer, constant.
        schedule: learning rate by iteration of the first batch.
        clock: which iteration of the first batch a step begins at: the step itself, unless the
            batch grows.
        warmup_steps: iterations of the warmup, 0 without one.
        stretch: iterations for one unit of the reference run.
        optimizer: the recipe's.
    """

    recipe: str
    base_lr: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    clock: Callable[[int], Place]
    warmup_steps: Place
    stretch: Fraction
    optimizer: OptimizerSettings

    def lr(self, step: int) -> float:
        """Learning rate of a step, from 0, before the multipliers of weights and biases."""
        return self.schedule(self.clock(step))

    def sgd_share(self, step: int) -> float:
        """How much of a step is SGD and not RMSprop: 1 but for "rmsprop-sgd"."""
        if self.optimizer.kind != "rmsprop-sgd":
            return 1.0
        return self.optimizer.sgd_share(float(self.clock(step) / self.stretch))


@dataclass(frozen=True)
class Recipe:
    """Settings of a published run.

    Attributes:
        name: file name without `.toml`.
        description: one line.
        reference_batch: global batch of the reference run.
        reference_lr: peak learning rate at that batch.
        reference_length: of the reference run, in `unit`.
        unit: "epochs" or "steps", of that and all places.
        images: training samples of the reference run.
        lr_scaling: how the rate grows with the global batch, a key of `scaling.RULES`.
        momentum: of the optimizer; Adam's first beta.
        weight_decay: of the optimizer.
        bias_lr_multiplier: learning rate of biases relative to weights.
        bias_decay_multiplier: weight decay of biases relative to weights.
        norm_lr_multiplier, norm_decay_multiplier: of batch normalisation's gamma and beta; None
            for Caffe's rule, by which gamma is a weight and beta a bias.
        optimizer: which one.
        warmup: from a small rate to the peak.
        decay: learning-rate schedule.
        growth: of the batch.
        label_smoothing: share of the target that all classes get alike.
        clip_norm: largest norm of the whole gradient; None for any.
        precision: of the forward and backward pass, one of `PRECISIONS`.
        loss_scale: "dynamic", or the factor, of losses in float16.
        laptop_lr: peak rate, ours, of short runs on small images, at any batch.
        ours: the keys that the paper leaves open.
    """

    name: str
    description: str
    reference_batch: int
    reference_lr: float
    reference_length: Fraction
    unit: str
    images: int
    lr_scaling: str
    momentum: float
    weight_decay: float
    bias_lr_multiplier: float
    bias_decay_multiplier: float
    norm_lr_multiplier: float | None
    norm_decay_multiplier: float | None
    optimizer: OptimizerSettings
    warmup: Warmup
    decay: Decay
    growth: Growth
    label_smoothing: float
    clip_norm: float | None
    precision: str
    loss_scale: float | str
    laptop_lr: float | None
    ours: tuple[str, ...]

    @property
    def epochs(self) -> float:
        """Length of the reference run."""
        length = float(self.reference_length)
        return length if self.unit == "epochs" else length * self.reference_batch / self.images

    def base_lr(self, global_batch: int) -> float:
        """Learning rate for this many images a step: the reference rate, scaled."""
        return scaled(self.reference_lr, self.lr_scaling, global_batch, self.reference_batch)

    def growth_places(self) -> list[tuple[Fraction, int]]:
        """Where the batch grows, as fractions of the run in epochs, and by how much each time."""
        return [(place / self.reference_length, self.growth.factor) for place in self.growth.at]

    def plan(
        self,
        global_batch: int,
        total_steps: Place,
        lr: float | None = None,
        clock: Callable[[int], Place] | None = None,
    ) -> Plan:
        """Scales the recipe to a run.

        Args:
            global_batch: images a step over all workers, at the start.
            total_steps: length of the run in iterations of that batch; warmup and drops keep their
                fractions of it.
            lr: peaks at this learning rate, at any batch, instead of the recipe's.
            clock: see `Plan`.

        Raises:
            UserError: for a number that is not positive, or a warmup longer than the run.
        """
        if global_batch < 1 or total_steps < 1:
            raise UserError(
                f"global batch {global_batch}, {total_steps} steps: both must be at least 1"
            )
        own = self.base_lr(global_batch)
        base = own if lr is None else lr
        if not (math.isfinite(base) and base > 0):
            raise UserError(f"learning rate {base}: must be a positive number")
        stretch = Fraction(total_steps) / self.reference_length
        schedule, warmup_steps = joined(
            self.warmup,
            self.decay,
            base=base,
            start=self.warmup.start_lr * base / own,
            stretch=stretch,
            ratio=global_batch / self.reference_batch,
            total=total_steps,
        )
        return Plan(
            recipe=self.name,
            base_lr=base,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=schedule,
            clock=clock or (lambda step: step),
            warmup_steps=warmup_steps,
            stretch=stretch,
            optimizer=self.optimizer,
        )
