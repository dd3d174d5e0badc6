"""What the optimizers of this folder share: the loop over groups, the state, and SGD's step.

A step is bound by memory: each pass over weights, gradients and velocities costs as much as the
last. So all that are SGD but for a factor are put in a form that torch's fused kernel does in one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

# Of a vector register at its widest, in float32. torch's kernel computes what is left over at the
# end of a tensor in another way, which differs in the last bit.
_LANES = 16


class Grouped(torch.optim.Optimizer):
    """Updates a group at a time, all its tensors together.

    Gradients are read, never written, so they may be views of communication buffers; parameters
    without a gradient are left alone.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step with the gradients in `.grad`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self.update(group, weights, [weight.grad for weight in weights])
        return loss

    def update(
        self, group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Takes the step of some tensors of a group."""
        raise NotImplementedError

    def states(self, name: str, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """The state of this name of each, zero at the start."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]

    def descend(
        self,
        weights: list[torch.Tensor],
        gradients: list[torch.Tensor],
        rates: Sequence[float],
        *,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """Takes Caffe's step: v = momentum v + rate (g + weight_decay w); w -= v.

        Kept is u = v / rate, for which it is u = (momentum last / rate) u + g + weight_decay w and
        w -= rate u, with the rate of the step before: torch's SGD, but for the factor of momentum.

        Args:
            weights: changed.
            gradients: of each.
            rates: of each.
            momentum: of all.
            weight_decay: of all.
        """
        alike = defaultdict[tuple[float, float], list[int]](list)
        velocities = self.states("velocity", weights)
        for number, (weight, rate) in enumerate(zip(weights, rates, strict=True)):
            last = self.state[weight].get("rate", rate)
            self.state[weight]["rate"] = rate or last
            alike[rate, last].append(number)
        for (rate, last), numbers in alike.items():
            own, gradient, velocity = (
                [tensors[number] for number in numbers]
                for tensors in (weights, gradients, velocities)
            )
            if rate == 0:
                torch._foreach_mul_(velocity, momentum)
                torch._foreach_add_(own, velocity, alpha=-last)
            else:
                factor = momentum * last / rate
                sgd(own, gradient, velocity, rate, momentum=factor, weight_decay=weight_decay)


def sgd(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    velocities: list[torch.Tensor],
    rate: float,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
) -> None:
    """Takes torch's step in one pass: v = momentum v + g + weight_decay w; w -= rate v.

    An element's bits do not depend on where it lies in its tensor; a server that holds a part of a
    tensor computes what a worker does that holds all of it.
    """
    forgets = momentum == 0
    if forgets:  # with no momentum the kernel would not keep v, which a later step may need
        torch._foreach_zero_(velocities)
        momentum = 1.0
    kernel = partial(
        torch._fused_sgd_,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=rate,
        dampening=0.0,
        nesterov=nesterov and not forgets,
        maximize=False,
        is_first_step=False,
    )
    rest = [weight.numel() % _LANES for weight in weights]
    if not any(rest) or weights[0].device.type != "cpu":
        kernel(weights, gradients, velocities)
        return
    bodies, ends = [], []
    for tensors in (weights, gradients, velocities):
        flat = [one.view(-1) for one in tensors]
        bodies.append([one[: len(one) - more] for one, more in zip(flat, rest, strict=True)])
        ends.append([one[len(one) - more :] for one, more in zip(flat, rest, strict=True)])
    kernel(*bodies)
    fill = weights[0].new_zeros(-sum(rest) % _LANES)
    padded = [torch.cat([*tensors, fill]) for tensors in ends]
    kernel(*([one] for one in padded))
    for tensors, one in ((ends[0], padded[0]), (ends[2], padded[2])):
        torch._foreach_copy_(tensors, torch.split(one, [*rest, len(fill)])[:-1])


def correction(group: dict[str, Any]) -> float:
    """Lr over the last step's: what a velocity that holds the rate is to be multiplied by.

    1 where the group does not ask for `momentum_correction`, and after a step at rate 0, whose
    velocity has nothing to correct. Source: Goyal et al., 2017, section 3, equation 10.
    """
    last, group["last_lr"] = group.get("last_lr"), group["lr"]
    return group["lr"] / last if group["momentum_correction"] and last else 1.0
