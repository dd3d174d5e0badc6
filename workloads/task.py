"""What a model learns from: the kind of sample, its size, and how many answers there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["images", "text", "frames"]


@dataclass(frozen=True)
class Task:
    """A model's task as published; `dataclasses.replace` adapts it to a run.

    Attributes:
        kind: "images" are `(3, size, size) float32`, "text" is windows of `size` words as
            `(size,) int64`, "frames" are `(size,) float32`.
        classes: width of the output; of text, the size of the vocabulary.
        size: side of the images in pixels, words in a window, or numbers in a frame.
        laptop_size: what `commbench train` takes where no size is given; 0 for the published one.
    """

    kind: Kind
    classes: int
    size: int
    laptop_size: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (3, self.size, self.size) if self.kind == "images" else (self.size,)
