"""ResNet-50: 53 convolutions, each with batch normalisation, and one dense layer.

25,557,032 parameters in 161 tensors with 1000 classes. `goyal` (the default) strides on the 3x3
convolution and starts the last scale of every block at zero, so that blocks begin as identities;
`v1` is He's: stride on the first 1x1 convolution, all scales start at one. The released Caffe file
of v1 also gives conv1 a bias, 64 parameters more, which batch normalisation takes out again.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (2015), Table 1; Goyal
et al., "Accurate, large minibatch SGD" (2017), section 5.1, and fb.resnet.torch.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn

from commbench.errors import UserError
from commbench.workloads.models.layers import Filler, Layers, gaussian, msra, msra_out, scaled
from commbench.workloads.models.network import Network
from commbench.workloads.task import Task

TASK = Task("images", classes=1000, size=224, laptop_size=48)

# Inner channels and blocks of each stage; blocks put out four times as many channels.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: `(b, c, h, w)` to `(b, 4 inner, h', w')`."""

    def __init__(
        self, channels: int, inner: int, stride: int, *, variant: str, layers: Layers
    ) -> None:
        """A block; the shortcut is a convolution where shapes change."""
        super().__init__()
        fill, goyal = _fill(variant), variant == "goyal"
        first, second = (1, stride) if goyal else (stride, 1)
        self.conv1 = layers.conv(channels, inner, 1, first, fill=fill, bias=None)
        self.bn1 = layers.norm(inner)
        self.conv2 = layers.conv(inner, inner, 3, second, 1, fill=fill, bias=None)
        self.bn2 = layers.norm(inner)
        self.conv3 = layers.conv(inner, 4 * inner, 1, fill=fill, bias=None)
        self.bn3 = layers.norm(4 * inner, gamma=0.0 if goyal else 1.0)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * inner:
            self.shortcut = nn.Sequential(
                layers.conv(channels, 4 * inner, 1, stride, fill=fill, bias=None),
                layers.norm(4 * inner),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both ways, rectified."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(cast("torch.Tensor", self.bn3(self.conv3(out)) + self.shortcut(x)))


class ResNet50(Network):
    """Input `(b, 3, S, S) float32`, output `(b, classes) float32`."""

    def __init__(self, task: Task, *, width: float, variant: str, layers: Layers) -> None:
        """Builds the stages in their order."""
        super().__init__(task)
        channels = scaled(64, width)
        self.conv1 = layers.conv(3, channels, 7, 2, 3, fill=_fill(variant), bias=None)
        self.bn1 = layers.norm(channels)
        # Caffe's pool has no padding but a last window that hangs over: as large a map.
        self.pool1 = (
            nn.MaxPool2d(3, 2, padding=1)
            if variant == "goyal"
            else nn.MaxPool2d(3, 2, ceil_mode=True)
        )
        self.stages = nn.Sequential()
        for stage, (base, blocks) in enumerate(STAGES):
            inner = scaled(base, width)
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                made = Bottleneck(channels, inner, stride, variant=variant, layers=layers)
                self.stages.add_module(f"stage{stage + 2}_{block + 1}", made)
                channels = 4 * inner
        self.fc = layers.dense(channels, task.classes, fill=gaussian(0.01))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(b, classes)` of images `(b, 3, S, S)`."""
        maps = self.stages(self.pool1(torch.relu(self.bn1(self.conv1(images)))))
        return cast("torch.Tensor", self.fc(maps.mean(dim=(2, 3))))


def build(
    task: Task,
    width: float,
    generator: torch.Generator | None,
    *,
    variant: Literal["goyal", "v1"] = "goyal",
) -> ResNet50:
    """Builds the network, whose weights do not depend on the size of the images.

    Raises:
        UserError: if the images are too small for the first pool.
    """
    if task.size < 3:
        raise UserError(f"image size {task.size} is too small for resnet50: use 3 or more")
    return ResNet50(task, width=width, variant=variant, layers=Layers(generator))


def _fill(variant: str) -> Filler:
    return msra_out if variant == "goyal" else msra
