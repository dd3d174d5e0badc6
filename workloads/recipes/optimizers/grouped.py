"""What the optimizers of this folder share: the loop over groups, and the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


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


def correction(group: dict[str, Any]) -> float:
    """Lr over the last step's: what a velocity that holds the rate is to be multiplied by.

    1 where the group does not ask for `momentum_correction`, and after a step at rate 0, whose
    velocity has nothing to correct. Source: Goyal et al., 2017, section 3, equation 10.
    """
    last, group["last_lr"] = group.get("last_lr"), group["lr"]
    return group["lr"] / last if group["momentum_correction"] and last else 1.0
