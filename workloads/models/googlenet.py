"""GoogLeNet as released with Caffe: nine Inception blocks and two auxiliary classifiers.

13,378,280 parameters in 128 tensors at 224 pixels and 1000 classes. The auxiliary classifiers,
which only training uses and whose losses count 0.3 each, hold almost half of them: 6,998,552 are
left with `auxiliary=off`.

Source: Szegedy et al., "Going deeper with convolutions" (2014), Table 1; BVLC/caffe
models/bvlc_googlenet.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn

from commbench.errors import UserError
from commbench.workloads.models.dropout import SampleDropout
from commbench.workloads.models.layers import Layers, lrn, scaled, xavier
from commbench.workloads.models.network import Network
from commbench.workloads.models.table import conv_side, pool_side
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=224, laptop_size=48)
AUXILIARY_WEIGHT = 0.3

# Output channels of: 1x1, 3x3's reduction, 3x3, 5x5's reduction, 5x5, the pool's projection.
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_AFTER = ("3b", "4e")
AUXILIARY_AFTER = ("4a", "4d")
_BIAS = 0.2  # of all convolutions and of the auxiliary classifiers' hidden layers, at the start


class Conv(nn.Module):
    """A convolution and its ReLU."""

    def __init__(
        self, layers: Layers, channels: int, out: int, kernel: int, stride: int = 1
    ) -> None:
        """Pads so that stride 1 keeps the size."""
        super().__init__()
        self.conv = layers.conv(channels, out, kernel, stride, kernel // 2, fill=xavier, bias=_BIAS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rectified convolution."""
        return torch.relu(self.conv(x))


class Inception(nn.Module):
    """Four branches over one input, their channels side by side."""

    def __init__(self, layers: Layers, channels: int, outs: list[int]) -> None:
        """Takes a row of `BLOCKS`."""
        super().__init__()
        one, reduce3, three, reduce5, five, projection = outs
        self.branches = nn.ModuleList(
            [
                Conv(layers, channels, one, 1),
                nn.Sequential(Conv(layers, channels, reduce3, 1), Conv(layers, reduce3, three, 3)),
                nn.Sequential(Conv(layers, channels, reduce5, 1), Conv(layers, reduce5, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv(layers, channels, projection, 1)),
            ]
        )
        self.out_channels = one + three + five + projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the same size, `out_channels` of them."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Auxiliary(nn.Module):
    """A classifier on the maps of an inner block."""

    def __init__(
        self, layers: Layers, channels: int, side: int, task: Task, *, width: float, layer: int
    ) -> None:
        """Takes maps of `side` pixels; of maps under 5 pixels, the pool takes the mean."""
        super().__init__()
        self.pool = nn.AvgPool2d(min(5, side), 3, ceil_mode=True)
        pooled = pool_side(side, min(5, side), 3)
        maps, hidden = scaled(128, width), scaled(1024, width)
        self.conv = Conv(layers, channels, maps, 1)
        self.fc = layers.dense(maps * pooled**2, hidden, fill=xavier, bias=_BIAS)
        self.drop = SampleDropout(0.7, layer=layer)
        self.classifier = layers.dense(hidden, task.classes, fill=xavier)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)`."""
        hidden = torch.relu(self.fc(self.conv(self.pool(maps)).flatten(1)))
        return cast("torch.Tensor", self.classifier(self.drop(hidden)))


class GoogLeNet(Network):
    """Input `(b, 3, S, S) float32`, output `(b, classes) float32` of the main classifier."""

    def __init__(self, task: Task, *, width: float, auxiliary: bool, layers: Layers) -> None:
        """Builds stem, blocks and classifiers in the order of the table."""
        super().__init__(task)
        side = _sides(task.size)
        narrow, channels = scaled(64, width), scaled(192, width)
        self.stem = nn.Sequential(
            Conv(layers, 3, narrow, 7, 2),
            _pool(),
            lrn(),
            Conv(layers, narrow, narrow, 1),
            Conv(layers, narrow, channels, 3),
            lrn(),
            _pool(),
        )
        self.blocks, self.auxiliaries = nn.ModuleDict(), nn.ModuleDict()
        for name, outs in BLOCKS.items():
            block = Inception(layers, channels, [scaled(out, width) for out in outs])
            self.blocks[name], channels = block, block.out_channels
            if auxiliary and name in AUXILIARY_AFTER:
                number = 1 + len(self.auxiliaries)
                self.auxiliaries[name] = Auxiliary(
                    layers, channels, side["4"], task, width=width, layer=number
                )
        self.pool = _pool()
        self.drop = SampleDropout(0.4, layer=0)
        self.classifier = layers.dense(channels, task.classes, fill=xavier)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)` of the main classifier."""
        return self._classify(images, [])

    def loss_sum(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The main classifier's cross-entropy and 0.3 times each auxiliary one's."""
        others: list[torch.Tensor] = []
        logits = [self._classify(inputs, others), *others]
        losses = [self.cross_entropy(one, targets) for one in logits]
        return losses[0] + AUXILIARY_WEIGHT * sum(losses[1:], torch.zeros_like(losses[0]))

    def _classify(self, images: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
        """The main logits; in training mode, the auxiliary ones are added to `others`."""
        maps = self.stem(images)
        for name, block in self.blocks.items():
            maps = block(maps)
            if self.training and name in self.auxiliaries:
                others.append(self.auxiliaries[name](maps))
            if name in POOL_AFTER:
                maps = self.pool(maps)
        return cast("torch.Tensor", self.classifier(self.drop(maps.mean(dim=(2, 3)))))


def build(
    task: Task,
    width: float,
    generator: torch.Generator | None,
    *,
    auxiliary: Literal["on", "off"] = "on",
) -> GoogLeNet:
    """Builds the network; the auxiliary classifiers grow with the size of the images.

    Raises:
        UserError: if the images are too small for four poolings.
    """
    if not _sides(task.size)["5"]:
        least = next(size for size in range(1, 225) if _sides(size)["5"])
        raise UserError(
            f"image size {task.size} is too small for googlenet: its pools leave nothing; "
            f"use {least} or more"
        )
    return GoogLeNet(task, width=width, auxiliary=auxiliary == "on", layers=Layers(generator))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _sides(image_size: int) -> dict[str, int]:
    """Side of the maps of the blocks 3, 4 and 5; 0 where there are none."""
    side = pool_side(conv_side(image_size, 7, 2, 3), 3, 2)
    sides = {}
    for block in "345":
        side = max(0, pool_side(side, 3, 2)) if side > 0 else 0
        sides[block] = side
    return sides
