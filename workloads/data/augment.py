"""How pictures become inputs: what is done to those trained on, by the name of a recipe.

Pictures are tested alike in all of them: shorter side to 8/7 of the input (256 for 224), and the
square in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data import transforms

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training picture.

    Attributes:
        crop: "centre" as in a test, "random" a square anywhere, "resized" one of random area.
        flip: left for right, every other time.
        jitter: brightness, contrast and saturation change.
        lighting: colours change along their principal components.
        std: divide by ImageNet's standard deviation; otherwise only the mean is subtracted, from
            colours from 0 to 255, as Caffe's recipes expect.
    """

    crop: Literal["centre", "random", "resized"] = "centre"
    flip: bool = False
    jitter: bool = False
    lighting: bool = False
    std: bool = False


AUGMENTATIONS = {
    "caffe": Augmentation(crop="random", flip=True),
    "alexnet": Augmentation(crop="random", flip=True, lighting=True),
    "goyal": Augmentation(crop="resized", flip=True, std=True),
    "fb-resnet": Augmentation(crop="resized", flip=True, jitter=True, lighting=True, std=True),
    "none": Augmentation(),
}
"""`caffe` is from Caffe's ImageNet examples, so NiN's and GoogLeNet's; `goyal` is Goyal's."""


def parse_augmentation(name: str) -> Augmentation:
    """The augmentation of that name.

    Raises:
        UserError: there is none.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation {name!r}: choose from {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def prepare(
    image: Image, size: int, how: Augmentation, random: np.random.Generator | None
) -> NDArray[np.float32]:
    """The input `(3, size, size) float32` that an RGB picture gives.

    Args:
        image: of any size.
        size: side of the input in pixels.
        how: what is done in training; in a test only `std` of it counts.
        random: the sample's own numbers; None in a test.
    """
    if random is not None and how.crop == "resized":
        image = transforms.random_resized_crop(image, size, random)
    else:
        image = transforms.resize_shorter(image, size * 8 // 7)
        if random is not None and how.crop == "random":
            image = transforms.random_crop(image, size, random)
        else:
            image = transforms.centre_crop(image, size)
    if random is not None and how.flip:
        image = transforms.random_flip(image, random)
    pixels = transforms.to_pixels(image)
    if random is not None and how.jitter:
        pixels = transforms.colour_jitter(pixels, random)
    if random is not None and how.lighting:
        pixels = transforms.lighting(pixels, random)
    pixels = pixels - transforms.MEAN
    if how.std:
        pixels = pixels / transforms.STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
