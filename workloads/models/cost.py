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
    counts = _layers(model, training)
    weights = list(model.parameters())
    return Cost(
        parameters=sum(w.numel() for w in weights),
        tensors=len(weights),
        macs=sum(macs for _, macs, _ in counts),
        inputs=sum(inputs for _, _, inputs in counts),
    )


def tensor_macs(model: Network) -> list[tuple[int, int]]:
    """Of every parameter in the model's order, its elements and the multiply-adds of its layer.

    A layer's work stands with its weight, and that of a layer used twice is its sum; biases and
    the parameters of other layers have none. In training, for one sample.
    """
    macs: dict[str, int] = {}
    for name, count, _ in _layers(model, training=True):
        macs[f"{name}.weight"] = macs.get(f"{name}.weight", 0) + count
    return [(weight.numel(), macs.get(name, 0)) for name, weight in model.named_parameters()]


def _layers(model: Network, training: bool) -> list[tuple[str, int, int]]:
    """Name, multiply-adds and numbers that enter, of each layer as the forward pass comes to it."""
    shadow = copy.deepcopy(model).to("meta").train(training)
    counts: list[tuple[str, int, int]] = []
    for name, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Lstm):
            module.register_forward_hook(partial(_count, counts, name))
        elif isinstance(module, SampleDropout | nn.BatchNorm2d):
            module.eval()  # they would ask for the keys of samples, or for more than one
    text = model.task.kind == "text"
    dtype = torch.int64 if text else torch.float32
    sample = torch.empty(1, *model.task.shape, dtype=dtype, device="meta")
    answer = sample if text else torch.empty(1, dtype=torch.int64, device="meta")
    with torch.no_grad():
        shadow.loss_sum(sample, answer)
    return counts


def _count(
    counts: list[tuple[str, int, int]],
    name: str,
    module: nn.Module,
    args: tuple[Any, ...],
    out: Any,
) -> None:
    weight = module.get_parameter("weight")
    if isinstance(module, Lstm):
        # Every step multiplies the kernel by the input and the hidden state side by side.
        steps = args[0].shape[1]
        counts.append((name, steps * weight.numel(), steps * weight.shape[1]))
        return
    # Every number put out by channel c is a dot product with the weights of channel c.
    counts.append((name, out.numel() * weight[0].numel(), args[0].numel()))
