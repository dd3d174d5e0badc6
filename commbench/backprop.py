"""A rank's gradient: in micro-batches, in 16 bits, clipped.

**Micro-batches.** A share cut into N gives the gradient of the whole, to rounding, in 1/N of the
memory for activations; the exchange comes once, after the last.

**16 bits.** Weights, gradients, exchange and optimizer stay in float32. `torch.autocast` casts the
weights to 16 bits for the forward pass, and the backward pass follows; what needs the range (the
loss, normalisation, softmax) stays in float32 by its lists. A cast copy of the model would do the
same with more memory and those lists written again. Tests are in float32.

**Loss scale.** float16 loses gradients below 6e-8, so the loss is multiplied by a scale, and the
gradient divided by it after the exchange: on the wire it is scaled too. An overflow on any rank is
an infinity or NaN in the sum on every rank; all of them then leave the step out. A dynamic scale
is halved at an overflow and doubled after 2000 steps without; a fixed one stays. bfloat16 has the
range of float32 and no scale. Source: Micikevicius et al., "Mixed precision training" (ICLR 2018).

**Clipping.** A gradient of norm n above c is multiplied by c / n, after the exchange (Pascanu,
Mikolov, Bengio, ICML 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from commbench.workloads.models.dropout import set_samples
from commbench.workloads.models.network import Network
from commbench.workloads.recipes import Recipe

_START_SCALE = 65536.0
_GROW_AFTER = 2000


class LossScale:
    """What losses are multiplied by.

    Attributes:
        value: the scale now, 1 where there is none.
        skipped: steps left out because of an overflow.
    """

    def __init__(self, precision: str, setting: float | str) -> None:
        """Takes a recipe's `precision` and `loss_scale`."""
        self.active = precision == "float16"
        self.dynamic = setting == "dynamic"
        start = _START_SCALE if setting == "dynamic" else float(setting)
        self.value = start if self.active else 1.0
        self.skipped = 0
        self._good = 0

    def passes(self, finite: bool) -> bool:
        """Whether to take a step with this gradient; adapts the scale for the next."""
        if not finite:
            self.skipped += 1
            self._good = 0
            if self.dynamic:
                self.value = max(1.0, self.value / 2)
            return False
        self._good += 1
        if self.dynamic and self._good == _GROW_AFTER:
            self._good = 0
            self.value *= 2
        return True


class Backprop:
    """Computes the gradient of a rank's share, and makes the sum of all ranks' ready for use."""

    def __init__(self, model: Network, recipe: Recipe, *, parts: int, now: Callable[[], float]):
        """Prepare it.

        Args:
            model: on its device, with `.grad` in place.
            recipe: precision, loss scale, clipping.
            parts: micro-batches of a share.
            now: waits for the device and tells the time in seconds.
        """
        self.model = model
        self.parts = parts
        self.scale = LossScale(recipe.precision, recipe.loss_scale)
        self._clip_norm = recipe.clip_norm
        # Whether `ready` needs the gradient as a whole.
        self.reads_gradient = self.scale.active or recipe.clip_norm is not None
        self._type = None if recipe.precision == "float32" else getattr(torch, recipe.precision)
        self._now = now

    def run(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        keys: torch.Tensor,
        global_batch: int,
        before_last: Callable[[], None] | None = None,
    ) -> tuple[torch.Tensor, list[float]]:
        """Add the gradient of the loss, scaled, to `.grad`.

        Args:
            inputs: ``(b, ...)`` on the device.
            targets: ``(b, ...)``.
            keys: ``(b,)`` of dropout.
            global_batch: what sums over samples are divided by, so that ranks' sums are the mean.
            before_last: called before the backward pass that completes the gradient.

        Returns:
            The sum of the losses, and the seconds of the forward and backward passes.
        """
        total = torch.zeros((), device=inputs.device)
        seconds = [0.0, 0.0]
        bounds = [part * len(inputs) // self.parts for part in range(self.parts + 1)]
        start = self._now()
        for part, (first, last) in enumerate(pairwise(bounds)):
            set_samples(self.model, keys[first:last])
            self.model.part = part
            with torch.autocast(inputs.device.type, self._type, enabled=self._type is not None):
                loss = self.model.loss_sum(inputs[first:last], targets[first:last])
            middle = self._now()
            if before_last and part == self.parts - 1:
                before_last()
            (loss * (self.scale.value / global_batch)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            end = self._now()
            seconds = [seconds[0] + middle - start, seconds[1] + end - middle]
            start = end
        return total, seconds

    def ready(self, gradient: torch.Tensor) -> bool:
        """Undo the scale and clip, in place; False if the step is to be left out.

        Args:
            gradient: ``(n,)``, the sum over the ranks, alike on all of them.
        """
        factor = 1.0 / self.scale.value
        if self.scale.active:
            # The largest of all magnitudes is finite if all are.
            largest = torch.linalg.vector_norm(gradient, math.inf).item()
            if not self.scale.passes(math.isfinite(largest)):
                return False
        if self._clip_norm is not None:
            norm = torch.linalg.vector_norm(gradient).item() * factor
            factor *= min(1.0, self._clip_norm / norm) if norm > 0 else 1.0
        if factor != 1.0:
            gradient.mul_(factor)
        return True
