"""Pictures that are read and decoded as they are needed, from files of any kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.augment import Augmentation
from commbench.workloads.data.decoding import CorruptImageError, Encoded, examine

if TYPE_CHECKING:
    import torch

    from commbench.workloads.data.dataset import Begun

T = TypeVar("T")


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


@dataclass(frozen=True)
class Found(Generic[T]):
    """A picture, in some form, and its class."""

    picture: T
    label: int


@dataclass(frozen=True, eq=False)
class Pictures:
    """A split over a source; a corrupt picture is replaced by the next one, label and all.

    Attributes:
        source: where the pictures are.
        size: side of the inputs in pixels.
        how: what is done to pictures in training.
        corrupt: takes note of corrupt ones, for both splits.
        augment_on: "device" scales and colours a whole batch where it is used; "cpu" one picture at
            a time, in the thread that decoded it; "auto" is "device" for a GPU.
    """

    source: Source
    size: int
    how: Augmentation
    corrupt: Corrupt
    augment_on: str = "auto"

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

        begun = self.begin(indices, keys, torch.device("cpu"))
        for part in range(begun.parts):
            begun.make(part)
        begun.seal()
        begun.settle()
        return begun.hand_over()

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Begun:
        """See `Split.begin`; a part is a picture."""
        from commbench.workloads.data.batches import OnDevice, OnHost

        where = self.augment_on
        if where == "auto":
            where = "cpu" if device.type == "cpu" else "device"
        return (OnDevice if where == "device" else OnHost)(self, indices, keys, device)

    def load(
        self, index: int, unreadable: dict[str, str], decode: Callable[[Encoded], T]
    ) -> Found[T]:
        """Decode a picture, or the next one that can be.

        Args:
            index: its number.
            unreadable: where to put the names of those that cannot, with the reason.
            decode: gets the picture once its header is read; may raise `CorruptImageError`.

        Raises:
            UserError: not one of all can be read.
        """
        for step in range(len(self)):
            at = (index + step) % len(self)
            try:
                return Found(decode(examine(self.source.read(at))), int(self.source.labels[at]))
            except CorruptImageError as error:
                unreadable[self.source.name(at)] = str(error)
        raise UserError(f"not one of {len(self)} pictures can be read: repair the data")
