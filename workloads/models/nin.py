"""Network in Network as trained on ImageNet by FireCaffe: twelve convolutions and no dense layer.

7,595,176 parameters in 24 tensors with 1000 classes. As in the released file the last convolution
has its ReLU too, so logits are never negative.

Source: Lin, Chen, Yan, "Network In Network" (2013); the layer table is the released Caffe file
(mavenlin's `nin_imagenet`), whose initial standard deviations differ from those in print: with
0.01 everywhere the loss does not leave ln(classes).
"""

from __future__ import annotations

import torch

from commbench.workloads.models.layers import Layers, gaussian
from commbench.workloads.models.table import (
    CLASSES,
    Conv,
    Dropout,
    MaxPool,
    Row,
    TableNetwork,
    check_image,
)
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=224, laptop_size=48)

# A global average pool follows the table.
TABLE: tuple[Row, ...] = (
    Conv("conv1", 96, kernel=11, stride=4, padding=0, fill=gaussian(0.01)),
    Conv("cccp1", 96, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    Conv("cccp2", 96, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    MaxPool("pool0"),
    Conv("conv2", 256, kernel=5, stride=1, padding=2, fill=gaussian(0.05)),
    Conv("cccp3", 256, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    Conv("cccp4", 256, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    MaxPool("pool2"),
    Conv("conv3", 384, kernel=3, stride=1, padding=1, fill=gaussian(0.01)),
    Conv("cccp5", 384, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    Conv("cccp6", 384, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    MaxPool("pool3"),
    Dropout("drop", p=0.5),
    Conv("conv4_1024", 1024, kernel=3, stride=1, padding=1, fill=gaussian(0.05)),
    Conv("cccp7", 1024, kernel=1, stride=1, padding=0, fill=gaussian(0.05)),
    Conv("cccp8", CLASSES, kernel=1, stride=1, padding=0, fill=gaussian(0.01)),
)


def build(task: Task, width: float, generator: torch.Generator | None) -> TableNetwork:
    """Builds the network, whose weights do not depend on the size of the images.

    Raises:
        UserError: if the images are too small for three poolings.
    """
    check_image("nin", TABLE, task.size)
    return TableNetwork(TABLE, task, width=width, layers=Layers(generator))
