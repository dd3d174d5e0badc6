"""What one sample costs a model, counted from its layers' shapes.

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

from commbench.workloads.models.dropout import SampleDropout
from commbench.workloads.models.lstm import Lstm
from commbench.workloads.models.network import Network


@dataclass(frozen=True)
class Cost:
    """Counts of one model for one sample: an image, a frame, or a window of words.

    Attributes:
        parameters: learnable numbers.
        tensors: learnable tensors.
        macs: multiply-adds of the convolutions, dense and recurrent layers, forward; a training
            step takes about three times as many.
        inputs: numbers entering these layers, the sample and recurrent states included. For
            convolutions and dense layers this is the data volume |D| of FireCaffe's Table 1.
    """

    parameters: int
    tensors: int
    macs: int
    inputs: int


def count_cost(model: Network, *, training: bool = False) -> Cost:
    """Counts the cost of `model` for one sample of its task.

    Args:
        model: on any device; it is not changed.
        training: count what only training computes as well (GoogLeNet's auxiliary classifiers).
    """
    shadow = copy.deepcopy(model).to("meta").train(training)
    macs: list[int] = []
    inputs: list[int] = []
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Lstm):
            module.register_forward_hook(partial(_count, macs, inputs))
        elif isinstance(module, SampleDropout | nn.BatchNorm2d):
            module.eval()  # they would ask for the keys of samples, or for more than one
    text = model.task.kind == "text"
    dtype = torch.int64 if text else torch.float32
    sample = torch.empty(1, *model.task.shape, dtype=dtype, device="meta")
    answer = sample if text else torch.empty(1, dtype=torch.int64, device="meta")
    with torch.no_grad():
        shadow.loss_sum(sample, answer)
    weights = list(model.parameters())
    return Cost(sum(w.numel() for w in weights), len(weights), sum(macs), sum(inputs))


def _count(
    macs: list[int], inputs: list[int], module: nn.Module, args: tuple[Any, ...], out: Any
) -> None:
    weight = module.get_parameter("weight")
    if isinstance(module, Lstm):
        # Every step multiplies the kernel by the input and the hidden state side by side.
        steps = args[0].shape[1]
        macs.append(steps * weight.numel())
        inputs.append(steps * weight.shape[1])
        return
    # Every number put out by channel c is a dot product with the weights of channel c.
    macs.append(out.numel() * weight[0].numel())
    inputs.append(args[0].numel())
