"""Layer tables: networks that are one row after another, written as the papers print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from commbench.errors import UserError
from commbench.workloads.models.dropout import SampleDropout
from commbench.workloads.models.layers import Filler, Layers, lrn, scaled
from commbench.workloads.models.network import Network
from commbench.workloads.task import Task

CLASSES = 0
"""As a row's width: the number of classes."""


@dataclass(frozen=True)
class Conv:
    """A convolution, followed by ReLU; its biases start at `bias`, None for none."""

    name: str
    out_channels: int
    kernel: int
    stride: int
    padding: int
    fill: Filler
    bias: float | None = 0.0
    groups: int = 1
    relu: bool = True


@dataclass(frozen=True)
class Dense:
    """A dense layer, followed by ReLU."""

    name: str
    out_features: int
    fill: Filler
    bias: float = 0.0
    relu: bool = True


@dataclass(frozen=True)
class MaxPool:
    """Caffe's max pooling: no padding, and the last window may hang over the edge (ceil)."""

    name: str
    kernel: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Lrn:
    """Caffe's response normalisation over 5 channels: k 1, alpha 1e-4 / 5, beta 0.75."""

    name: str


@dataclass(frozen=True)
class Norm:
    """Batch normalisation."""

    name: str
    affine: bool
    eps: float


@dataclass(frozen=True)
class Relu:
    """ReLU where it does not follow its layer at once."""

    name: str


@dataclass(frozen=True)
class Dropout:
    """Zeroes each activation with probability p."""

    name: str
    p: float


@dataclass(frozen=True)
class Scale:
    """Multiplies by a constant."""

    name: str
    factor: float


Row = Conv | Dense | MaxPool | Lrn | Norm | Relu | Dropout | Scale


def conv_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """Side of a convolution's output in Caffe: floor((h + 2p - k) / s) + 1."""
    return (side + 2 * padding - kernel) // stride + 1


def pool_side(side: int, kernel: int, stride: int) -> int:
    """Side of a pooling's output in Caffe: ceil((h - k) / s) + 1."""
    return -((kernel - side) // stride) + 1


def last_map(rows: Sequence[Row], image_size: int) -> int:
    """Side of the last map before dense layers or the final average; 0 if none is left."""
    side = image_size
    for row in rows:
        if isinstance(row, Conv):
            side = conv_side(side, row.kernel, row.stride, row.padding)
        elif isinstance(row, MaxPool):
            side = pool_side(side, row.kernel, row.stride)
        if side < 1:
            return 0
    return side


def smallest_image(rows: Sequence[Row]) -> int:
    """The smallest image side in pixels that leaves a map."""
    return next(size for size in range(1, 1000) if last_map(rows, size))


class TableNetwork(Network):
    """The rows in a chain; a map that is left at the end is averaged.

    Input `(b, *task.shape) float32`, output `(b, classes) float32`.
    """

    def __init__(self, rows: Sequence[Row], task: Task, *, width: float, layers: Layers) -> None:
        """Builds the rows in their order, channels times `width`."""
        super().__init__(task)
        self.features = nn.Sequential()
        side = last_map(rows, task.size) if task.kind == "images" else 0
        # Numbers in a sample, where the next row is dense and the last one was not.
        channels, flat = (3, False) if task.kind == "images" else (task.size, True)
        groups = max((row.groups for row in rows if isinstance(row, Conv)), default=1)
        for number, row in enumerate(rows):
            if isinstance(row, Dense) and not flat:
                self.features.add_module("flatten", nn.Flatten())
                channels, flat = channels * side**2, True
            made = _layer(row, channels, layers, classes=task.classes, width=width, groups=groups)
            module, channels = made or (_passive(row, number, channels, layers), channels)
            self.features.add_module(row.name, module)
            if isinstance(row, Conv | Dense) and row.relu:
                self.features.add_module(f"{row.name}_relu", nn.ReLU(inplace=True))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)` of `(b, *task.shape)`."""
        out = cast("torch.Tensor", self.features(inputs))
        return out.mean(dim=(2, 3)) if out.dim() == 4 else out


def check_image(name: str, rows: Sequence[Row], image_size: int) -> None:
    """Refuses images that are too small for the rows.

    Raises:
        UserError: naming the smallest size.
    """
    if not last_map(rows, image_size):
        raise UserError(
            f"image size {image_size} is too small for {name}: its pools leave nothing; "
            f"use {smallest_image(rows)} or more"
        )


def _layer(
    row: Row, channels: int, layers: Layers, *, classes: int, width: float, groups: int
) -> tuple[nn.Module, int] | None:
    """The module of a row with weights and the channels it puts out; None for another row."""
    if isinstance(row, Conv):
        # A multiple of the network's groups everywhere: the next layer may be the grouped one.
        out = scaled(row.out_channels, width, groups) if row.out_channels else classes
        conv = layers.conv(
            *(channels, out, row.kernel, row.stride, row.padding),
            groups=row.groups,
            fill=row.fill,
            bias=row.bias,
        )
        return conv, out
    if isinstance(row, Dense):
        out = scaled(row.out_features, width) if row.out_features else classes
        return layers.dense(channels, out, fill=row.fill, bias=row.bias), out
    return None


def _passive(row: Row, number: int, channels: int, layers: Layers) -> nn.Module:
    """The module of a row that keeps the channels."""
    if isinstance(row, MaxPool):
        return nn.MaxPool2d(row.kernel, row.stride, ceil_mode=True)
    if isinstance(row, Lrn):
        return lrn()
    if isinstance(row, Norm):
        return layers.norm(channels, eps=row.eps, affine=row.affine)
    if isinstance(row, Dropout):
        return SampleDropout(row.p, layer=number)
    if isinstance(row, Scale):
        return Scaling(row.factor)
    return nn.ReLU(inplace=True)


class Scaling(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        """Takes the constant."""
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return x * self.factor
