"""AlexNet with batch normalisation instead of LRN, in its published forms.

At 227 pixels and 1000 classes:

- `v2` (the default), of the LARS experiments at batches of 8K to 32K: normalisation without scale
  and shift in front of conv2 to conv5; two groups; 60,965,224 parameters in 16 tensors.
- `v1`, the file beside it: between each convolution and its ReLU, with scale and shift; two groups;
  60,966,856 parameters in 22 tensors.
- `jia`: no groups, normalisation with scale and shift after each convolution, and after pool5 in
  front of fc6; 62,380,232 parameters in 23 tensors. Jia et al. state the one after pool5 and the
  count; that the other five stand where v1 has them, and convolutions have no bias, is our reading.
- `jia-plain`: the same without the one after pool5, what Jia et al. compare it with; 62,379,720
  parameters in 21 tensors.

Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks" (2017), and
borisgin/nvcaffe models/alexnet_bn (train_val, train_val2); Jia et al., "Highly scalable deep
learning training system with mixed-precision" (2018).
"""

from __future__ import annotations

from typing import Literal

import torch

from commbench.workloads.models.layers import Layers, gaussian
from commbench.workloads.models.table import (
    CLASSES,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Norm,
    Relu,
    Row,
    Scale,
    TableNetwork,
    check_image,
)
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=227, laptop_size=48)
_EPS = 1e-4


def _convolution(number: int, variant: str) -> tuple[Row, ...]:
    """A convolution, its ReLU and the normalisation that belongs to it, without pooling."""
    out = (96, 256, 384, 384, 256)[number - 1]
    kernel, stride, padding = ((11, 4, 0), (5, 1, 2), (3, 1, 1))[min(number, 3) - 1]
    groups = 2 if number in (2, 4, 5) and variant in ("v1", "v2") else 1
    name, std = f"conv{number}", gaussian(0.01)
    if variant == "v2":
        return (Conv(name, out, kernel, stride, padding, fill=std, bias=0.01, groups=groups),)
    # The released v1 leaves conv5 its bias.
    bias = 0.1 if variant == "v1" and number == 5 else None
    return (
        Conv(name, out, kernel, stride, padding, fill=std, bias=bias, groups=groups, relu=False),
        Norm(f"bn{number}", affine=True, eps=_EPS),
        Relu(f"relu{number}"),
    )


def table(variant: str) -> tuple[Row, ...]:
    """The layers of "v1", "v2", "jia" or "jia-plain"."""

    def before(number: int) -> tuple[Row, ...]:
        return (Norm(f"bn{number}", affine=False, eps=_EPS),) if variant == "v2" else ()

    last = (Norm("bn6", affine=True, eps=_EPS),) if variant == "jia" else ()
    return (
        Scale("scale", 1 / 256),
        *_convolution(1, variant),
        MaxPool("pool1"),
        *before(2),
        *_convolution(2, variant),
        MaxPool("pool2"),
        *before(3),
        *_convolution(3, variant),
        *before(4),
        *_convolution(4, variant),
        *before(5),
        *_convolution(5, variant),
        MaxPool("pool5"),
        *last,
        Dense("fc6", 4096, fill=gaussian(0.005), bias=0.1),
        Dropout("drop6", p=0.5),
        Dense("fc7", 4096, fill=gaussian(0.005), bias=0.1),
        Dropout("drop7", p=0.5),
        Dense(
            "fc8", CLASSES, fill=gaussian(0.01), bias=0.01 if variant == "v2" else 0.0, relu=False
        ),
    )


def build(
    task: Task,
    width: float,
    generator: torch.Generator | None,
    *,
    variant: Literal["v1", "v2", "jia", "jia-plain"] = "v2",
) -> TableNetwork:
    """Builds the network; fc6 grows with the size of the images.

    Raises:
        UserError: if the images are too small for three poolings.
    """
    rows = table(variant)
    check_image("alexnet-bn", rows, task.size)
    return TableNetwork(rows, task, width=width, layers=Layers(generator))
