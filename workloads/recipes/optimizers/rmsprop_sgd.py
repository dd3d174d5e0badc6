"""RMSprop that turns into momentum SGD in the course of a run.

    m = beta2 * m + (1 - beta2) * g^2
    d = momentum * d - (a + b / (sqrt(m) + eps)) * g
    w = w + lr * d

with a = `sgd_share` of the step and b = (1 - a) * rms_lr / lr, so that it starts as RMSprop at rate
`rms_lr` and ends as SGD at rate lr. The velocity does not hold the rate. g has its weight decay.

Source: Akiba, Suzuki, Fukuda, "Extremely large minibatch SGD: training ResNet-50 on ImageNet in 15
minutes" (2017), section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch

from commbench.workloads.recipes.optimizers.grouped import Grouped


class RmspropSgd(Grouped):
    """See the module; `set_rate` sets each step's `lr` and `sgd_share`."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta2: float = 0.99,
        eps: float = 1e-8,
        rms_lr: float = 3e-4,
    ) -> None:
        """Takes parameters or groups of them, as every torch optimizer does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "beta2": beta2,
            "eps": eps,
            "rms_lr": rms_lr,
            "sgd_share": 1.0,
            "lr_mult": 1.0,
        }
        super().__init__(params, defaults)

    def update(
        self, group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Takes the step of some tensors of a group."""
        lr, share, beta2 = group["lr"], group["sgd_share"], group["beta2"]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        squares = self.states("square", weights)
        velocities = self.states("velocity", weights)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - beta2)
        torch._foreach_mul_(velocities, group["momentum"])
        if share > 0:
            torch._foreach_add_(velocities, gradients, alpha=-share)
        if share < 1 and lr > 0:
            roots = torch._foreach_sqrt(squares)
            torch._foreach_add_(roots, group["eps"])
            # The multiplier of the group's rate applies to its RMSprop as well.
            part = (1.0 - share) * group["rms_lr"] * group["lr_mult"] / lr
            torch._foreach_addcdiv_(velocities, gradients, roots, value=-part)
        torch._foreach_add_(weights, velocities, alpha=lr)
