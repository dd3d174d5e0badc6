"""How pictures become inputs: what is drawn for each, by the name of a recipe.

Pictures are tested alike in all of them: shorter side to 8/7 of the input (256 for 224), and the
square in the middle. What is drawn for a training picture depends on its size and on the key of the
sample that dropout's masks come from as well, so it is cut and coloured alike whichever rank and
whichever thread loads it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data import cuts
from commbench.workloads.data.cuts import Cut

BRIGHTNESS, CONTRAST, SATURATION = CHANGES = range(3)
"""The changes of a colour jitter."""

_JITTER = 0.4
_LIGHTING = 0.1
# Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks"
# (2012); the numbers are fb.resnet.torch's.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training picture.

    Attributes:
        crop: "centre" as in a test, "random" a square anywhere, "resized" one of random area.
        flip: left for right, every other time.
        jitter: brightness, contrast and saturation change by 1 +- 0.4, in random order.
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


@dataclass(frozen=True)
class Draw:
    """What is done to one picture.

    Attributes:
        cut: which part becomes the input.
        flip: left for right.
        jitter: the changes in their order, each with its strength; empty for none.
        light: what is added to red, green and blue, `(3,) float32`; None for nothing.
    """

    cut: Cut
    flip: bool = False
    jitter: tuple[tuple[int, float], ...] = ()
    light: NDArray[np.float32] | None = None


def generator(key: int) -> np.random.Generator:
    """Random numbers for one sample in one epoch; see `sample_keys` for the key, an int64."""
    return np.random.Generator(np.random.Philox(key=_philox_key(key)))


class Numbers(threading.local):
    """The numbers of `generator`, for one sample of a thread after the other.

    A new generator asks the system for entropy that nobody uses, which takes as long as all that
    is drawn from it.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=_philox_key(0))
        self._generator = np.random.Generator(self._bits)
        self._start = self._bits.state

    def of(self, key: int) -> np.random.Generator:
        """Those for a sample; valid until the next is asked for."""
        self._start["state"]["key"] = _philox_key(key)
        self._bits.state = self._start
        return self._generator


def _philox_key(key: int) -> NDArray[np.uint64]:
    return np.array([key & (2**64 - 1), 0], np.uint64)


def draw(
    how: Augmentation, width: int, height: int, size: int, random: np.random.Generator | None
) -> Draw:
    """What to do to a picture for an input of `size` x `size`.

    Args:
        how: what is done in training.
        width: of the picture.
        height: of the picture.
        size: of the input, in pixels.
        random: the sample's own numbers; None in a test.
    """
    margin = size * 8 // 7 - size
    if random is None:
        return Draw(cuts.centre_cut(width, height, size, margin))
    if how.crop == "resized":
        cut = cuts.random_resized_cut(width, height, size, random)
    elif how.crop == "random":
        cut = cuts.random_cut(width, height, size, margin, random)
    else:
        cut = cuts.centre_cut(width, height, size, margin)
    return Draw(
        cut,
        flip=how.flip and bool(random.random() < 0.5),
        jitter=draw_jitter(random) if how.jitter else (),
        light=draw_light(random) if how.lighting else None,
    )


def draw_jitter(random: np.random.Generator) -> tuple[tuple[int, float], ...]:
    """Brightness, contrast and saturation in random order, each by 1 +- 0.4."""
    order = random.permutation(len(CHANGES)).tolist()
    return tuple((change, 1 + random.uniform(-_JITTER, _JITTER)) for change in order)


def draw_light(random: np.random.Generator) -> NDArray[np.float32]:
    """A random multiple of the principal components of ImageNet's colours."""
    alphas = random.normal(0.0, _LIGHTING, 3)
    light: NDArray[np.float32] = (255 * _EIGENVECTORS @ (alphas * _EIGENVALUES)).astype(np.float32)
    return light
