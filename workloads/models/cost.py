"""What one image costs a model, counted from its layers' shapes.

torch's own FLOP counter overcounts the backward pass of grouped convolutions, so this counts
multiply-adds layer by layer, on the meta device, without computing anything.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Cost:
    """Counts of one model for one image.

    Attributes:
        parameters: learnable numbers.
        tensors: learnable tensors.
        macs: multiply-adds of the convolutions and dense layers, forward; a training step takes
            about three times as many.
        inputs: numbers entering convolutions and dense layers, the image included. This is the
            data volume |D| of FireCaffe's Table 1.
    """

    parameters: int
    tensors: int
    macs: int
    inputs: int


def count_cost(model: nn.Module, image_size: int) -> Cost:
    """Counts the cost of `model` for one `(3, image_size, image_size)` image."""
    shadow = copy.deepcopy(model).to("meta").eval()
    macs: list[int] = []
    inputs: list[int] = []
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(partial(_count, macs, inputs))
    with torch.no_grad():
        shadow(torch.empty(1, 3, image_size, image_size, device="meta"))
    weights = list(model.parameters())
    return Cost(sum(w.numel() for w in weights), len(weights), sum(macs), sum(inputs))


def _count(
    macs: list[int], inputs: list[int], module: nn.Module, args: tuple[Any, ...], out: torch.Tensor
) -> None:
    weight = module.get_parameter("weight")
    # Every number put out by channel c is a dot product with the weights of channel c.
    macs.append(out.numel() * weight[0].numel())
    inputs.append(args[0].numel())
