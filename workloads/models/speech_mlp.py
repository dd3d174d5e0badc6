"""A multilayer perceptron the size of FireCaffe's "MSFT-Speech": 151 MB of weights, 74 MB of data.

The paper gives no layers, and no network in print has both of its figures. This one is made up to:
frames of 440 numbers (11 of 40 filter banks), eight hidden layers of 2200 and 1300 answers have
37,726,900 parameters in 18 tensors (150.9 MB), and 1024 frames enter dense layers as 73.9 MB.

Source of the sizes: Iandola et al., "FireCaffe" (CVPR 2016), Table 1.
"""

from __future__ import annotations

import torch

from commbench.workloads.models.layers import Layers, gaussian, msra
from commbench.workloads.models.table import CLASSES, Dense, Row, TableNetwork
from commbench.workloads.task import Task

TASK = Task("frames", classes=1300, size=440)

TABLE: tuple[Row, ...] = (
    *(Dense(f"fc{i}", 2200, fill=msra) for i in range(1, 9)),
    Dense("fc9", CLASSES, fill=gaussian(0.01), relu=False),
)


def build(task: Task, width: float, generator: torch.Generator | None) -> TableNetwork:
    """Builds the network."""
    return TableNetwork(TABLE, task, width=width, layers=Layers(generator))
