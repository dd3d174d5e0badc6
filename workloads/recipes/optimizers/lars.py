"""Layer-wise adaptive rate scaling: each tensor has a rate of its own.

    l = trust * norm(w) / (norm(g) + weight_decay * norm(w))        1 if either norm is 0
    v = momentum * v + lr * l * (g + weight_decay * w)
    w = w - v

The original of You, Gitman, Ginsburg, "Large batch training of convolutional networks" (2017), as
in their Caffe (borisgin/nvcaffe), which treats every blob so, biases too. The gradient's norm is
taken before the decay is added.

`clip` puts min(lr, l) in the place of lr * l (later nvcaffe's "clip" policy, known as LARC): the
rate bounds l and no longer scales it, so recipes of one do not fit the other. Without `trust_decay`
the denominator is norm(g) alone, as Jia et al. (2018) state it. Groups whose `kind` is in `skip`
take plain steps, l = 1.
"""

from __future__ import annotations

from typing import Any

import torch

from commbench.workloads.recipes.optimizers.grouped import Grouped, correction


class Lars(Grouped):
    """Momentum SGD with a rate for each tensor; see the module."""

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        trust_decay: bool = True,
        clip: bool = False,
        skip: tuple[str, ...] = (),
        momentum_correction: bool = False,
    ) -> None:
        """Takes parameters or groups of them, as every torch optimizer does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "trust_decay": trust_decay,
            "clip": clip,
            "kind": "weight",
            "momentum_correction": momentum_correction,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            group.setdefault("adapt", group["kind"] not in skip)

    def update(
        self, group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Takes the step of some tensors of a group."""
        self.descend(
            weights,
            gradients,
            _rates(group, weights, gradients),
            momentum=group["momentum"] * correction(group),
            weight_decay=group["weight_decay"],
        )


def _rates(
    group: dict[str, Any], weights: list[torch.Tensor], gradients: list[torch.Tensor]
) -> list[float]:
    """The learning rate of each tensor; one copy to the host for all of them."""
    lr, decay = group["lr"], group["weight_decay"]
    if not group["adapt"] or lr == 0:
        return [lr] * len(weights)
    norms = torch.stack([*torch._foreach_norm(weights), *torch._foreach_norm(gradients)]).tolist()
    rates = []
    for of_weight, of_gradient in zip(norms[: len(weights)], norms[len(weights) :], strict=True):
        local = 1.0
        if of_weight > 0 and of_gradient > 0:
            denominator = of_gradient + (decay * of_weight if group["trust_decay"] else 0.0)
            local = group["trust"] * of_weight / denominator
        rates.append(min(lr, local) if group["clip"] else lr * local)
    return rates
