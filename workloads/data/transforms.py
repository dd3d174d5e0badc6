"""What happens to pixels on their way to a batch, in torch: on the CPU and on a GPU alike.

A rank on CPUs scales one picture at a time, in bytes, as Pillow does. On a GPU a whole batch is
scaled at once: along each axis that is the product with a matrix, made for each picture from its
cut, and a flip is the same matrix with its rows in the other order. Colours are changed by one code
for one picture and for many.

A number of a batch never depends on how many threads torch has: sums over a picture are taken row
by row first, as torch gives a whole row to one thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from commbench.workloads.data.augment import CONTRAST, SATURATION, Draw
from commbench.workloads.data.cuts import Box, Cut
from commbench.workloads.data.decoding import Pixels

MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)
"""Of ImageNet's training pictures, red, green, blue."""

_LUMA = (0.299, 0.587, 0.114)
# So many pictures are scaled together: more would need memory, and keep no GPU busier.
_TOGETHER = 32


def square(pixels: Pixels, box: Box, cut: Cut, size: int) -> torch.Tensor:
    """The square of one picture, scaled bilinearly with antialiasing.

    Args:
        pixels: `(h, w, 3)`.
        box: the cut's, in these pixels.
        cut: what it is scaled to, and where the square lies.
        size: of the square.

    Returns:
        `(size, size, 3) uint8`, within two of what Pillow gives.
    """
    left, top, right, bottom = box
    # A copy in one piece is what torch's vector code takes.
    part = torch.from_numpy(pixels[top:bottom, left:right].copy())
    width, height = cut.to
    if part.shape[:2] != (height, width):
        part = functional.interpolate(
            part[None].permute(0, 3, 1, 2),
            (height, width),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )[0].permute(1, 2, 0)
    x, y = cut.at
    return part[y : y + size, x : x + size]


def squares(
    frames: torch.Tensor, extents: torch.Tensor, draws: Sequence[Draw], size: int
) -> torch.Tensor:
    """The squares of a batch, scaled bilinearly with antialiasing, and flipped.

    Args:
        frames: `(b, H, W, 3) uint8`, on any device: the boxes of the cuts, each in the upper left
            corner; what else is there does not matter.
        extents: `(b, 2) float32`, width and height of each box in the frames, on that device.
        draws: what to do to each.
        size: of the squares.

    Returns:
        `(b, 3, size, size) float32` from 0 to 255.
    """
    made = torch.empty((len(frames), 3, size, size), device=frames.device)
    to = torch.tensor([draw.cut.to for draw in draws], dtype=torch.float32)
    at = torch.tensor([draw.cut.at for draw in draws], dtype=torch.float32)
    flip = torch.tensor([draw.flip for draw in draws])
    to, at, flip = (one.to(frames.device, non_blocking=True) for one in (to, at, flip))
    for start in range(0, len(frames), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        part = frames[some].float()
        count, height, width, _ = part.shape
        x, y = extents[some].unbind(1)
        rows = weights(height, y, to[some, 1], at[some, 1], size)
        columns = weights(width, x, to[some, 0], at[some, 0], size)
        columns = torch.where(flip[some, None, None], columns.flip(1), columns)
        part = (rows @ part.view(count, height, width * 3)).view(count, size, width, 3)
        made[some] = part.permute(0, 3, 1, 2) @ columns.mT[:, None]
    return made


def weights(
    length: int, extent: torch.Tensor, to: torch.Tensor, at: torch.Tensor, size: int
) -> torch.Tensor:
    """Matrices that scale along one axis: a triangle around each place, as wide as a step.

    Args:
        length: of the axis in the frames.
        extent: `(b,) float32`, how much of it belongs to the picture.
        to: `(b,)`, what that is scaled to.
        at: `(b,)`, the first place that is wanted.
        size: how many are.

    Returns:
        `(b, size, length) float32`; each row adds up to 1.
    """
    step = (extent / to)[:, None, None]
    places = torch.arange(size, device=extent.device)[None, :, None] + at[:, None, None]
    pixels = torch.arange(length, device=extent.device)[None, None, :]
    apart = (pixels + 0.5 - (places + 0.5) * step).abs() / step.clamp(min=1)
    shares = (1 - apart).clamp(min=0) * (pixels < extent[:, None, None])
    return shares / shares.sum(2, keepdim=True)


def colour(images: torch.Tensor, draws: Sequence[Draw], *, std: bool) -> None:
    """Jitter, light and normalise, in place.

    Args:
        images: `(b, 3, h, w) float32` from 0 to 255.
        draws: what to do to each; either all of them jitter or none, and light alike.
        std: whether to divide by the deviation as well.
    """
    for turn in range(len(draws[0].jitter)):
        kinds, strengths = zip(*(draw.jitter[turn] for draw in draws), strict=True)
        change(images, kinds, strengths)
    if draws[0].light is not None:
        light = np.stack([draw.light for draw in draws if draw.light is not None])
        images += torch.from_numpy(light).to(images.device, non_blocking=True)[:, :, None, None]
    images -= _constant(MEAN, images.device)
    if std:
        images /= _constant(STD, images.device)


def change(images: torch.Tensor, kinds: Sequence[int], strengths: Sequence[float]) -> None:
    """Brightness, contrast or saturation of each picture, times its strength, in place.

    Blends with black, with the mean grey of the picture, or with the picture in grey.
    """
    kind = torch.tensor(kinds, device=images.device).view(-1, 1, 1, 1)
    strength = torch.tensor(strengths, device=images.device).view(-1, 1, 1, 1)
    grey = (images * _constant(_LUMA, images.device)).sum(1, keepdim=True)
    mean = (grey.sum(3).sum(2) / grey[0].numel()).view(-1, 1, 1, 1)
    nothing = torch.zeros((), device=images.device)
    other = torch.where(kind == SATURATION, grey, torch.where(kind == CONTRAST, mean, nothing))
    images *= strength
    images += other * (1 - strength)


@functools.cache
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A number for each colour, beside images on the device."""
    return torch.tensor(values, device=device)[None, :, None, None]
