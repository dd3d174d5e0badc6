"""Pictures that are read and decoded as they are needed, from files of any kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.augment import Augmentation, prepare
from commbench.workloads.data.transforms import CorruptImageError, decode, generator

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Source(Protocol):
    """Encoded pictures of one split, by number.

    Attributes:
        labels: `(n,) int64`.
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each picture, `(n,) int64`."""
        ...

    def name(self, index: int) -> str:
        """What a picture is called, for messages."""
        ...

    def read(self, index: int) -> bytes:
        """Its bytes.

        Raises:
            CorruptImageError: they cannot be read.
        """
        ...


@dataclass(eq=False)
class Corrupt:
    """The pictures that this rank could not decode, each once.

    Attributes:
        limit: a run with more is refused.
        names: in the order found, with the reason.
    """

    limit: int
    names: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """Take note of one.

        Raises:
            UserError: it is one too many.
        """
        self.names[name] = reason
        self.check(self.names)

    def check(self, names: dict[str, str]) -> None:
        """Raises a UserError if these, perhaps of all ranks, are more than the limit."""
        if len(names) > self.limit:
            last = next(reversed(names))
            raise UserError(
                f"{len(names)} corrupt pictures, the last {last} ({names[last]}): repair the data "
                f"(`commbench data check` names them all), or allow more than {self.limit} by "
                "--max-corrupt"
            )


@dataclass(frozen=True, eq=False)
class Pictures:
    """A split over a source; a corrupt picture is replaced by the next one, label and all.

    Attributes:
        source: where the pictures are.
        size: side of the inputs in pixels.
        how: what is done to pictures in training.
        corrupt: takes note of corrupt ones, for both splits.
    """

    source: Source
    size: int
    how: Augmentation
    corrupt: Corrupt

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.source.labels)

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Split.batch`.

        Raises:
            UserError: for more corrupt pictures than are allowed.
        """
        import torch

        images = np.empty((len(indices), 3, self.size, self.size), np.float32)
        labels = np.empty(len(indices), np.int64)
        for place, index in enumerate(indices.tolist()):
            image, labels[place] = self._load(index)
            random = None if keys is None else generator(int(keys[place]))
            images[place] = prepare(image, self.size, self.how, random)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _load(self, index: int) -> tuple[Image, int]:
        for step in range(len(self)):
            at = (index + step) % len(self)
            try:
                return decode(self.source.read(at)), int(self.source.labels[at])
            except CorruptImageError as error:
                self.corrupt.add(self.source.name(at), str(error))
        raise UserError(f"not one of {len(self)} pictures can be read: repair the data")
