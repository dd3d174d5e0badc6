"""Batches of pictures in the making: each picture by itself, or all together on their device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.workloads.data import transforms
from commbench.workloads.data.augment import Draw, Numbers, draw
from commbench.workloads.data.cuts import Box
from commbench.workloads.data.decoding import Encoded, Pixels
from commbench.workloads.data.memory import Pool

if TYPE_CHECKING:
    from commbench.workloads.data.pictures import Pictures

_numbers = Numbers()
_pool = Pool()


class _Batch:
    """What both have in common: labels, draws, and what could not be read."""

    def __init__(
        self,
        pictures: Pictures,
        indices: NDArray[np.int64],
        keys: NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        """See `Split.begin`."""
        self.pictures = pictures
        self.indices = indices
        self.keys = keys
        self.device = device
        # Memory that the system may move cannot be copied to a GPU while other things go on.
        self.pinned = device.type != "cpu"
        self.labels = torch.empty(len(indices), dtype=torch.int64, pin_memory=self.pinned)
        self.unreadable: list[dict[str, str]] = [{} for _ in indices]

    @property
    def parts(self) -> int:
        """One for each picture."""
        return len(self.indices)

    def load(self, part: int) -> tuple[Draw, Pixels, Box]:
        """Draw for a picture and decode it, as large as that takes; the cut's box in it."""

        def decode(encoded: Encoded) -> tuple[Draw, Pixels, Box]:
            whole = (encoded.width, encoded.height)
            random = None if self.keys is None else _numbers.of(int(self.keys[part]))
            drawn = draw(self.pictures.how, *whole, self.pictures.size, random)
            pixels = encoded.pixels(drawn.cut.shrink, rows=drawn.cut.box[3])
            return drawn, pixels, drawn.cut.box_in(pixels.shape[1], whole)

        index = int(self.indices[part])
        found = self.pictures.load(index, self.unreadable[part], decode)
        self.labels[part] = found.label
        return found.picture

    def settle(self) -> None:
        """See `Begun.settle`; in the order of the batch, whichever thread was first."""
        for names in self.unreadable:
            for name, reason in names.items():
                self.pictures.corrupt.add(name, reason)


class OnHost(_Batch):
    """Every picture is an input as soon as its thread is done with it."""

    def __init__(
        self,
        pictures: Pictures,
        indices: NDArray[np.int64],
        keys: NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        """See `Split.begin`."""
        super().__init__(pictures, indices, keys, device)
        shape = (len(indices), 3, pictures.size, pictures.size)
        if self.pinned:
            self.images = torch.empty(shape, pin_memory=True)
        else:
            self.images = torch.from_numpy(_pool.take(shape))

    def make(self, part: int) -> None:
        """See `Begun.make`."""
        drawn, pixels, box = self.load(part)
        square = transforms.square(pixels, box, drawn.cut, self.pictures.size)
        image = self.images[part : part + 1]
        # Bytes are turned from rows of pixels into planes, and flipped there, in less time than
        # numbers; and NumPy does the former in less time than torch.
        planes = torch.from_numpy(np.ascontiguousarray(square.numpy().transpose(2, 0, 1)))
        image[0] = planes.flip(2) if drawn.flip else planes
        transforms.colour(image, [drawn], std=self.pictures.how.std)

    def seal(self) -> None:
        """There is nothing left."""

    def hand_over(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Begun.hand_over`."""
        return (
            self.images.to(self.device, non_blocking=True),
            self.labels.to(self.device, non_blocking=True),
        )


class OnDevice(_Batch):
    """Threads decode and cut; the device scales and colours all pictures together."""

    def __init__(
        self,
        pictures: Pictures,
        indices: NDArray[np.int64],
        keys: NDArray[np.int64] | None,
        device: torch.device,
    ) -> None:
        """See `Split.begin`."""
        super().__init__(pictures, indices, keys, device)
        self.boxes: dict[int, tuple[Draw, Pixels]] = {}

    def make(self, part: int) -> None:
        """See `Begun.make`."""
        drawn, pixels, (left, top, right, bottom) = self.load(part)
        self.boxes[part] = drawn, pixels[top:bottom, left:right].copy()

    def seal(self) -> None:
        """Put the boxes side by side, in frames as large as the largest of them."""
        ordered = [self.boxes.pop(part) for part in range(self.parts)]
        self.draws = [drawn for drawn, _ in ordered]
        shapes = np.array([pixels.shape[:2] for _, pixels in ordered])
        frames = torch.empty(
            (self.parts, *shapes.max(axis=0).tolist(), 3), dtype=torch.uint8, pin_memory=self.pinned
        )
        for frame, (_, pixels) in zip(frames.numpy(), ordered, strict=True):
            frame[: pixels.shape[0], : pixels.shape[1]] = pixels
        self.frames = frames
        self.extents = torch.from_numpy(shapes[:, ::-1].astype(np.float32))

    def hand_over(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Begun.hand_over`."""
        frames, extents, labels = (
            one.to(self.device, non_blocking=True)
            for one in (self.frames, self.extents, self.labels)
        )
        images = transforms.squares(frames, extents, self.draws, self.pictures.size)
        transforms.colour(images, self.draws, std=self.pictures.how.std)
        return images, labels
