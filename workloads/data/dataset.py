"""What the trainer sees of a data set, and images held in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from commbench.workloads.data.pictures import Corrupt

CHANNELS = 3


class Split(Protocol):
    """One half of a data set: training or test."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The samples at `indices` `(b,) int64`, on the CPU.

        Args:
            indices: which samples.
            keys: `(b,) int64` of `sample_keys`, what augmentation draws from; None in a test.

        Returns:
            Images `(b, 3, S, S) float32`, mean-subtracted in the 0-255 range, or frames
            `(b, size) float32`, and labels `(b,) int64`; or texts `(b, words) int64` and the word
            after each, alike. A sample's numbers do not depend on the rest of the batch.
        """
        ...

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Begun:
        """The same batch for a device, in parts that several threads may make."""
        ...


class Begun(Protocol):
    """A batch in the making.

    Attributes:
        parts: how many there are, to be made in any order and at once.
    """

    @property
    def parts(self) -> int:
        """Their number."""
        ...

    def make(self, part: int) -> None:
        """Make one, on any thread."""
        ...

    def seal(self) -> None:
        """What there is to do when all are made, on any thread."""
        ...

    def hand_over(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Split.batch`, but on the device; on the thread that uses it, once.

        Copies to a GPU are only begun, in its current stream.
        """
        ...

    def settle(self) -> None:
        """Take note of what could not be read, when the batch's turn has come.

        Raises:
            UserError: it is more than is allowed.
        """
        ...


class Whole:
    """A batch that is made in one part."""

    parts = 1

    def __init__(
        self, make: Callable[[], tuple[torch.Tensor, torch.Tensor]], device: torch.device
    ) -> None:
        """By what it is made, and for which device."""
        self._make = make
        self._device = device

    def make(self, part: int) -> None:
        """See `Begun.make`."""
        self._made = self._make()

    def seal(self) -> None:
        """Lock it into memory where a GPU is to copy it meanwhile."""
        if self._device.type != "cpu":
            inputs, targets = self._made
            self._made = inputs.pin_memory(), targets.pin_memory()

    def hand_over(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Begun.hand_over`."""
        inputs, targets = self._made
        return (
            inputs.to(self._device, non_blocking=True),
            targets.to(self._device, non_blocking=True),
        )

    def settle(self) -> None:
        """What is in memory can be read."""


@dataclass(frozen=True)
class Dataset:
    """A training and a test split.

    Attributes:
        name: what `--data` called it.
        source: where it came from, for the run's record.
        classes: width of the classifier's head; every label is below it.
        train: what is trained on.
        test: what top-1 is measured on.
        in_order: an epoch takes the training samples by increasing index; otherwise shuffled.
        corrupt: the samples that could not be read, where that can happen.
        in_memory: whether a batch takes no reading and next to no work.
    """

    name: str
    source: str
    classes: int
    train: Split
    test: Split
    in_order: bool = False
    corrupt: Corrupt | None = None
    in_memory: bool = True


@dataclass(frozen=True, eq=False)
class GrayImages:
    """Grayscale images in memory; a batch is centred, resized and replicated to three channels.

    Attributes:
        images: `(n, h, w) uint8`.
        labels: `(n,) int64`.
        mean: `(h, w) float32`, subtracted before resizing: the mean image of the training split,
            for both splits (Caffe's mean file).
        image_size: side S of the images in a batch, by bilinear interpolation.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    mean: NDArray[np.float32]
    image_size: int

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Split.batch`."""
        import torch
        from torch.nn import functional

        centred = torch.from_numpy(self.images[indices] - self.mean).unsqueeze(1)
        size = (self.image_size, self.image_size)
        resized = functional.interpolate(centred, size, mode="bilinear", align_corners=False)
        images = resized.expand(-1, CHANNELS, -1, -1).contiguous()
        return images, torch.from_numpy(self.labels[indices])

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Whole:
        """See `Split.begin`."""
        return Whole(partial(self.batch, indices, keys), device)


def gray_dataset(
    name: str,
    source: str,
    *,
    classes: int,
    image_size: int,
    train: tuple[NDArray[np.uint8], NDArray[np.int64]],
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> Dataset:
    """Pairs up two splits of (images, labels), both centred by the training split's mean image."""
    mean = train[0].mean(axis=0, dtype=np.float64).astype(np.float32)
    return Dataset(
        name=name,
        source=source,
        classes=classes,
        train=GrayImages(*train, mean, image_size),
        test=GrayImages(*test, mean, image_size),
    )
