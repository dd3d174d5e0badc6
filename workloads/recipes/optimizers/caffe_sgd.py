"""Caffe's stochastic gradient descent with momentum.

    v = momentum * v + lr * (g + weight_decay * w)
    w = w - v

The learning rate is inside v (form B; Caffe's SGDSolver). torch.optim.SGD keeps it outside
(form A: v = momentum * v + g; w = w - lr * v). At a constant rate both take the same steps. When
the rate changes from lr to lr', form B goes on with a velocity gathered at the old rate, as Caffe
did, and so do we: after a drop of x0.1 the next ten or so steps are longer than the new rate
warrants. `momentum_correction` multiplies v by lr' / lr at the change (Goyal et al., 2017, section
3, equation 10), which makes it form A again.
"""

from __future__ import annotations

from typing import Any

import torch

from commbench.workloads.recipes.optimizers.grouped import Grouped, correction


class CaffeSGD(Grouped):
    """Momentum SGD in Caffe's form; see the module."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        momentum_correction: bool = False,
    ) -> None:
        """Takes parameters or groups of them, as every torch optimizer does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "momentum_correction": momentum_correction,
        }
        super().__init__(params, defaults)

    def update(
        self, group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Takes the step of some tensors of a group."""
        self.descend(
            weights,
            gradients,
            [group["lr"]] * len(weights),
            momentum=group["momentum"] * correction(group),
            weight_decay=group["weight_decay"],
        )
