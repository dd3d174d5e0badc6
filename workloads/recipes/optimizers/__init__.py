"""Optimizers by the name that a recipe has for them.

| kind | a step, g the gradient with its decay, lr the rate times the group's `lr_mult` |
|-|-|
| `caffe-sgd` | v = m v + lr g; w -= v |
| `sgd` | v = m v + g; w -= lr v, or with Nesterov's w -= lr (g + m v): torch's |
| `lars` | v = m v + lr l g; w -= v, l = trust norm(w) / (norm(gradient) + decay norm(w)) |
| `lars-clip` | v = m v + min(lr, l) g; w -= v |
| `rmsprop-sgd` | Akiba et al.'s change from RMSprop to SGD |
| `adam` | torch's, the decay in the gradient |

All keep float32 weights and states.
"""

from __future__ import annotations

from typing import Any

import torch

from commbench.workloads.recipes.optimizers.caffe_sgd import CaffeSGD
from commbench.workloads.recipes.optimizers.lars import Lars
from commbench.workloads.recipes.optimizers.rmsprop_sgd import RmspropSgd
from commbench.workloads.recipes.optimizers.sgd import SGD
from commbench.workloads.recipes.recipe import Plan

__all__ = ["SGD", "CaffeSGD", "Lars", "RmspropSgd", "make_optimizer", "set_rate", "take_step"]


def make_optimizer(groups: list[dict[str, Any]], plan: Plan) -> torch.optim.Optimizer:
    """The optimizer of a plan for some `parameter_groups`."""
    settings, momentum = plan.optimizer, plan.momentum
    common: dict[str, Any] = {"params": groups, "lr": plan.base_lr}
    if settings.kind == "sgd":
        return SGD(**common, momentum=momentum, nesterov=settings.nesterov)
    if settings.kind in ("lars", "lars-clip"):
        return Lars(
            **common,
            momentum=momentum,
            trust=settings.trust,
            trust_decay=settings.trust_decay,
            clip=settings.kind == "lars-clip",
            skip=settings.skip,
            momentum_correction=settings.momentum_correction,
        )
    if settings.kind == "rmsprop-sgd":
        return RmspropSgd(
            **common,
            momentum=momentum,
            beta2=settings.beta2,
            eps=settings.eps,
            rms_lr=settings.rms_lr,
        )
    if settings.kind == "adam":
        betas = (momentum, settings.beta2)
        return torch.optim.Adam(**common, betas=betas, eps=settings.eps, fused=True)
    return CaffeSGD(**common, momentum=momentum, momentum_correction=settings.momentum_correction)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, sgd_share: float = 1.0) -> None:
    """Set the learning rate of all groups, before their multipliers, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_mult", 1.0)
        if "sgd_share" in group:
            group["sgd_share"] = sgd_share


def take_step(optimizer: torch.optim.Optimizer, plan: Plan, step: int) -> None:
    """Apply the gradients in `.grad`, as the plan has it at a step."""
    set_rate(optimizer, plan.lr(step), plan.sgd_share(step))
    optimizer.step()
