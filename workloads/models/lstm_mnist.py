"""An LSTM that reads an image row by row, as LEGW trains on MNIST.

28 rows of 28 pixels, a dense layer of 128 on each, one LSTM layer of 128 and a dense layer: 136,586
parameters in 6 tensors with 10 classes. LEGW gives the sizes; that weights start as Caffe's xavier,
the forget gate's bias at 1, and pixels are divided by 255 is ours.

Source: You et al., "Large-batch training for LSTM and beyond" (2019).
"""

from __future__ import annotations

from typing import cast

import torch

from commbench.errors import UserError
from commbench.workloads.models.layers import Layers, scaled, xavier
from commbench.workloads.models.lstm import Lstm
from commbench.workloads.models.network import Network
from commbench.workloads.task import Task

TASK = Task("images", classes=10, size=28)
HIDDEN = 128


class MnistLstm(Network):
    """Input `(b, 3, S, S) float32` in the 0-255 range, output `(b, classes) float32`."""

    def __init__(self, task: Task, *, width: float, layers: Layers) -> None:
        """S steps of S pixels each."""
        super().__init__(task)
        hidden = scaled(HIDDEN, width)
        self.rows = layers.dense(task.size, hidden, fill=xavier)
        self.lstm = Lstm(hidden, hidden, layers=layers, fill=xavier, forget_bias=1.0)
        self.classifier = layers.dense(hidden, task.classes, fill=xavier)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)` after the last row; colours are averaged."""
        out, _ = self.lstm(self.rows(images.mean(dim=1) / 255))
        return cast("torch.Tensor", self.classifier(out[:, -1]))


def build(task: Task, width: float, generator: torch.Generator | None) -> MnistLstm:
    """Builds the network for images of any size.

    Raises:
        UserError: if there is no pixel.
    """
    if task.size < 1:
        raise UserError(f"image size {task.size} is too small for lstm-mnist: use 1 or more")
    return MnistLstm(task, width=width, layers=Layers(generator))
