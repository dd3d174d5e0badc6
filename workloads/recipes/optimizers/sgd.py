"""torch's stochastic gradient descent with momentum, as `torch.optim.SGD`: form A.

    d = g + weight_decay * w
    v = momentum * v + d
    w = w - lr * v                              Nesterov: w - lr * (d + momentum * v)

Ours where torch has one because a parameter server's servers take steps of parts of tensors, which
must have the bits of the whole.
"""

from __future__ import annotations

from typing import Any

import torch

from commbench.workloads.recipes.optimizers.grouped import Grouped, sgd


class SGD(Grouped):
    """Momentum SGD in torch's form; see the module."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        """Takes parameters or groups of them, as every torch optimizer does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def update(
        self, group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Takes the step of some tensors of a group."""
        sgd(
            weights,
            gradients,
            self.states("velocity", weights),
            group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
        )
