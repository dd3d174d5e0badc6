"""Caffe's stochastic gradient descent with momentum, and its multipliers per parameter.

    v = momentum * v + lr * lr_mult * (g + weight_decay * decay_mult * w)
    w = w - v

The learning rate is inside v (form B; Caffe's SGDSolver). torch.optim.SGD keeps it outside
(form A: v = momentum * v + g; w = w - lr * v). At a constant rate both take the same steps. When
the rate changes from lr to lr', form B goes on with a velocity gathered at the old rate, as Caffe
did, and so do we: after a drop of x0.1 the next ten or so steps are longer than the new rate
warrants. Multiplying v by lr' / lr at the change (the momentum correction of Goyal et al., 2017,
section 3, equation 10) would make it form A again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from commbench.workloads.recipes.recipe import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of `model` in two groups: weights, and biases with the recipe's multipliers.

    A bias is a parameter whose last name is `bias`. Within a group the model's order is kept.
    """
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (biases if name.rpartition(".")[2] == "bias" else weights).append(parameter)
    groups = [
        {"params": weights, "lr_mult": 1.0, "decay_mult": 1.0},
        {
            "params": biases,
            "lr_mult": recipe.bias_lr_multiplier,
            "decay_mult": recipe.bias_decay_multiplier,
        },
    ]
    return [group for group in groups if group["params"]]


class CaffeSGD(torch.optim.Optimizer):
    """Momentum SGD in Caffe's form; see the module.

    Gradients are read, never written, so they may be views of communication buffers. A group may
    set `lr_mult` and `decay_mult` (default 1); parameters without a gradient are left alone.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Takes parameters or groups of them, as every torch optimizer does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "lr_mult": 1.0,
            "decay_mult": 1.0,
        }
        super().__init__(params, defaults)

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of all groups, before multipliers, from the next step on."""
        for group in self.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step with the gradients in `.grad`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            velocities = [self._velocity(weight) for weight in weights]
            lr = group["lr"] * group["lr_mult"]
            decay = group["weight_decay"] * group["decay_mult"]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, [weight.grad for weight in weights], alpha=lr)
            if decay:
                torch._foreach_add_(velocities, weights, alpha=lr * decay)
            torch._foreach_sub_(weights, velocities)
        return loss

    def _velocity(self, weight: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: torch.Tensor = state["velocity"]
        return velocity
