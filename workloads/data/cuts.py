"""Which part of a picture becomes the input: chosen from its size alone, before it is decoded.

Sources: Szegedy et al., "Going Deeper with Convolutions" (2014) for parts of random area and
aspect; Facebook's fb.resnet.torch, which Goyal et al. (2017) use, for the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from commbench.workloads.data.decoding import SHRINKS

_ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels; right and bottom lie outside."""


@dataclass(frozen=True)
class Cut:
    """A box of the picture, scaled; of that, a square.

    Attributes:
        box: of the whole picture.
        to: width and height that it is scaled to.
        at: left and top of the square in the scaled box.
    """

    box: Box
    to: tuple[int, int]
    at: tuple[int, int] = (0, 0)

    @property
    def shrink(self) -> int:
        """The most that a JPEG's sides can be divided by with the box no smaller than it ends."""
        left, top, right, bottom = self.box
        for shrink in SHRINKS:
            if right - left >= shrink * self.to[0] and bottom - top >= shrink * self.to[1]:
                return shrink
        return 1

    def box_in(self, width: int, of: tuple[int, int]) -> Box:
        """The box where a picture of the size `of` was decoded, shrunk or not, to that width."""
        if width == of[0]:
            return self.box
        width, height = (-(-side // self.shrink) for side in of)
        left, right = _scaled(self.box[0], self.box[2], width / of[0])
        top, bottom = _scaled(self.box[1], self.box[3], height / of[1])
        return left, top, right, bottom


def _scaled(start: int, stop: int, factor: float) -> tuple[int, int]:
    """The nearest whole pixels, at least one."""
    first = int(start * factor + 0.5)
    return first, max(first + 1, int(stop * factor + 0.5))


def shorter_side(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height scaled so that the shorter one is `size`."""
    scale = size / min(width, height)
    return max(size, round(width * scale)), max(size, round(height * scale))


def centre_cut(width: int, height: int, size: int, margin: int) -> Cut:
    """The shorter side scaled to `size + margin`, and the square in the middle."""
    to = shorter_side(width, height, size + margin)
    return Cut((0, 0, width, height), to, ((to[0] - size) // 2, (to[1] - size) // 2))


def random_cut(width: int, height: int, size: int, margin: int, random: np.random.Generator) -> Cut:
    """The shorter side scaled to `size + margin`, and a square anywhere."""
    to = shorter_side(width, height, size + margin)
    left = int(random.integers(to[0] - size + 1))
    top = int(random.integers(to[1] - size + 1))
    return Cut((0, 0, width, height), to, (left, top))


def random_resized_cut(width: int, height: int, size: int, random: np.random.Generator) -> Cut:
    """A part of 8 to 100 % of the area and aspect 3/4 to 4/3, scaled to a square.

    After ten draws that do not fit the picture, the square in the middle is taken.
    """
    box = random_box(width, height, random)
    return centre_cut(width, height, size, 0) if box is None else Cut(box, (size, size))


def random_box(width: int, height: int, random: np.random.Generator) -> Box | None:
    """Such a part; None where ten draws do not fit."""
    for _ in range(_ATTEMPTS):
        area = random.uniform(0.08, 1.0) * width * height
        aspect = random.uniform(3 / 4, 4 / 3)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if random.random() < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            left = int(random.integers(width - w + 1))
            top = int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    return None
