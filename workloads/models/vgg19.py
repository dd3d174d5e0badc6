"""VGG-19: sixteen 3x3 convolutions and three dense layers; the heaviest gradient of the set.

143,667,240 parameters in 38 tensors at 224 pixels and 1000 classes. The published run started from
the weights of a smaller network; here convolutions and the first two dense layers start by He's
rule, which needs none.

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition"
(2014), configuration E.
"""

from __future__ import annotations

import torch

from commbench.workloads.models.layers import Layers, gaussian, msra
from commbench.workloads.models.table import (
    CLASSES,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    Row,
    TableNetwork,
    check_image,
)
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=224, laptop_size=48)

# Channels and number of the convolutions of each block, which a 2x2 pool ends.
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def _block(number: int, channels: int, convolutions: int) -> tuple[Row, ...]:
    return (
        *(
            Conv(f"conv{number}_{i}", channels, kernel=3, stride=1, padding=1, fill=msra)
            for i in range(1, convolutions + 1)
        ),
        MaxPool(f"pool{number}", kernel=2, stride=2),
    )


TABLE: tuple[Row, ...] = (
    *(row for number, block in enumerate(BLOCKS, 1) for row in _block(number, *block)),
    Dense("fc6", 4096, fill=msra),
    Dropout("drop6", p=0.5),
    Dense("fc7", 4096, fill=msra),
    Dropout("drop7", p=0.5),
    Dense("fc8", CLASSES, fill=gaussian(0.01), relu=False),
)


def build(task: Task, width: float, generator: torch.Generator | None) -> TableNetwork:
    """Builds the network; fc6 grows with the size of the images.

    Raises:
        UserError: if the images are too small for five poolings.
    """
    check_image("vgg19", TABLE, task.size)
    return TableNetwork(TABLE, task, width=width, layers=Layers(generator))
