"""AlexNet and CaffeNet as released with Caffe: five convolutions and three dense layers.

At 227 pixels and 1000 classes 62,378,344 parameters in 16 tensors; with `groups=2`, as published,
60,965,224. Ungrouped is the network of FireCaffe's Table 1 and of Jia et al.

Source: Krizhevsky, Sutskever, Hinton (2012); BVLC/caffe models/bvlc_alexnet and
models/bvlc_reference_caffenet, which pools before it normalises and starts the biases at 1.
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
    Lrn,
    MaxPool,
    Row,
    TableNetwork,
    check_image,
)
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=227, laptop_size=48)


def table(groups: int, variant: str) -> tuple[Row, ...]:
    """The layers; the two towers of the published network are `groups` 2."""
    std, high = gaussian(0.01), 0.1 if variant == "alexnet" else 1.0

    def reduced(number: int) -> tuple[Row, ...]:
        rows = (Lrn(f"norm{number}"), MaxPool(f"pool{number}"))
        return rows if variant == "alexnet" else rows[::-1]

    return (
        Conv("conv1", 96, kernel=11, stride=4, padding=0, fill=std),
        *reduced(1),
        Conv("conv2", 256, kernel=5, stride=1, padding=2, fill=std, bias=high, groups=groups),
        *reduced(2),
        Conv("conv3", 384, kernel=3, stride=1, padding=1, fill=std),
        Conv("conv4", 384, kernel=3, stride=1, padding=1, fill=std, bias=high, groups=groups),
        Conv("conv5", 256, kernel=3, stride=1, padding=1, fill=std, bias=high, groups=groups),
        MaxPool("pool5"),
        Dense("fc6", 4096, fill=gaussian(0.005), bias=high),
        Dropout("drop6", p=0.5),
        Dense("fc7", 4096, fill=gaussian(0.005), bias=high),
        Dropout("drop7", p=0.5),
        Dense("fc8", CLASSES, fill=std, relu=False),
    )


def build(
    task: Task,
    width: float,
    generator: torch.Generator | None,
    *,
    groups: Literal[1, 2] = 1,
    variant: Literal["alexnet", "caffenet"] = "alexnet",
) -> TableNetwork:
    """Builds the network; fc6 grows with the size of the images.

    Raises:
        UserError: if the images are too small for three poolings.
    """
    rows = table(groups, variant)
    check_image("alexnet", rows, task.size)
    return TableNetwork(rows, task, width=width, layers=Layers(generator))
