"""Network in Network as trained on ImageNet by FireCaffe: twelve convolutions and no dense layer.

Source: Lin, Chen, Yan, "Network In Network" (2013); the layer table is the released Caffe file
(mavenlin's `nin_imagenet`), whose initial standard deviations differ from those in print: with
0.01 everywhere the loss does not leave ln(classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from commbench.errors import UserError
from commbench.workloads.models.dropout import SampleDropout


@dataclass(frozen=True)
class Conv:
    """A convolution with bias, always followed by ReLU; weights start as N(0, std^2), biases 0."""

    name: str
    out_channels: int
    kernel: int
    stride: int
    padding: int
    std: float


@dataclass(frozen=True)
class MaxPool:
    """Caffe's max pooling: no padding, and the last window may hang over the edge (ceil)."""

    name: str
    kernel: int = 3
    stride: int = 2


@dataclass(frozen=True)
class Dropout:
    """Zeroes each activation with probability p."""

    name: str
    p: float


Row = Conv | MaxPool | Dropout

# `cccp8` takes the number of classes as its width; a global average pool follows the table.
TABLE: tuple[Row, ...] = (
    Conv("conv1", 96, kernel=11, stride=4, padding=0, std=0.01),
    Conv("cccp1", 96, kernel=1, stride=1, padding=0, std=0.05),
    Conv("cccp2", 96, kernel=1, stride=1, padding=0, std=0.05),
    MaxPool("pool0"),
    Conv("conv2", 256, kernel=5, stride=1, padding=2, std=0.05),
    Conv("cccp3", 256, kernel=1, stride=1, padding=0, std=0.05),
    Conv("cccp4", 256, kernel=1, stride=1, padding=0, std=0.05),
    MaxPool("pool2"),
    Conv("conv3", 384, kernel=3, stride=1, padding=1, std=0.01),
    Conv("cccp5", 384, kernel=1, stride=1, padding=0, std=0.05),
    Conv("cccp6", 384, kernel=1, stride=1, padding=0, std=0.05),
    MaxPool("pool3"),
    Dropout("drop", p=0.5),
    Conv("conv4_1024", 1024, kernel=3, stride=1, padding=1, std=0.05),
    Conv("cccp7", 1024, kernel=1, stride=1, padding=0, std=0.05),
    Conv("cccp8", 0, kernel=1, stride=1, padding=0, std=0.01),
)
OUTPUT = "cccp8"


def last_map(image_size: int) -> int:
    """Side of the map that the final average pool sees: 6 for 224-pixel images, 0 if none is left.

    Caffe's sizes: convolution floor((h + 2p - k) / s) + 1, pooling ceil((h - k) / s) + 1.
    """
    side = image_size
    for row in TABLE:
        if isinstance(row, Conv):
            side = (side + 2 * row.padding - row.kernel) // row.stride + 1
        elif isinstance(row, MaxPool):
            side = -((row.kernel - side) // row.stride) + 1
        if side < 1:
            return 0
    return side


def smallest_image() -> int:
    """The smallest image side in pixels that leaves a map for the final average pool."""
    return next(size for size in range(1, 225) if last_map(size))


class NiN(nn.Module):
    """Twelve convolutions in four blocks, then the mean over the map that is left.

    Input `(b, 3, S, S) float32`, output `(b, classes) float32`. 24 parameter tensors; 7,595,176
    parameters with 1000 classes. As in the released file the last convolution has its ReLU too, so
    logits are never negative.
    """

    def __init__(self, classes: int, generator: torch.Generator) -> None:
        """Builds the layers of `TABLE` with weights drawn from `generator` in the table's order."""
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for number, row in enumerate(TABLE):
            if isinstance(row, Conv):
                width = classes if row.name == OUTPUT else row.out_channels
                self.features.add_module(row.name, _conv(row, channels, width, generator))
                self.features.add_module(f"{row.name}_relu", nn.ReLU(inplace=True))
                channels = width
            elif isinstance(row, MaxPool):
                pool = nn.MaxPool2d(row.kernel, row.stride, ceil_mode=True)
                self.features.add_module(row.name, pool)
            else:
                self.features.add_module(row.name, SampleDropout(row.p, layer=number))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)` of images `(b, 3, S, S)`."""
        return cast("torch.Tensor", self.features(images)).mean(dim=(2, 3))


def build(*, classes: int, image_size: int, generator: torch.Generator) -> NiN:
    """Builds the network for images of `image_size` pixels a side (which no weight depends on).

    Raises:
        UserError: if the images are too small for three poolings.
    """
    if not last_map(image_size):
        raise UserError(
            f"image size {image_size} is too small for nin: its pools leave nothing to average; "
            f"use {smallest_image()} or more"
        )
    return NiN(classes, generator)


def _conv(row: Conv, channels: int, width: int, generator: torch.Generator) -> nn.Conv2d:
    # skip_init: torch's default initialisation would draw from the global generator.
    conv = cast(
        "nn.Conv2d",
        nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, width, row.kernel, row.stride, row.padding
        ),
    )
    with torch.no_grad():
        conv.weight.normal_(0.0, row.std, generator=generator)
        cast("nn.Parameter", conv.bias).zero_()
    return conv
