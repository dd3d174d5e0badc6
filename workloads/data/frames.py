"""Frames made up from a seed, as a speech model takes them: a vector per class under noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from commbench.workloads.data.dataset import Dataset, Whole
from commbench.workloads.data.synthetic import TEST_SAMPLES, TRAIN_SAMPLES, random_bytes

if TYPE_CHECKING:
    import torch

# The synthetic images use 0 to 2 of the generator's streams, the text 6 and 7.
_PATTERNS, _TRAIN, _TEST = 3, 4, 5
_MEAN, _SPREAD = 127.0, 52.0  # of the mean of two random bytes


@dataclass(frozen=True, eq=False)
class Frames:
    """Vectors in memory.

    Attributes:
        frames: `(n, size) uint8`; batches hold them with mean 0 and variance 1.
        labels: `(n,) int64`.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def batch(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Split.batch`."""
        import torch

        frames = (self.frames[indices].astype(np.float32) - _MEAN) / _SPREAD
        return torch.from_numpy(frames), torch.from_numpy(self.labels[indices])

    def begin(
        self, indices: NDArray[np.int64], keys: NDArray[np.int64] | None, device: torch.device
    ) -> Whole:
        """See `Split.begin`."""
        return Whole(partial(self.batch, indices, keys), device)


def make_frames(*, classes: int, size: int, seed: int) -> Dataset:
    """10,000 training and 2,000 test frames, the classes in turn; the same bytes for a seed."""
    patterns = random_bytes(seed, _PATTERNS, classes * size).reshape(classes, size)

    def split(samples: int, stream: int) -> Frames:
        labels = np.arange(samples, dtype=np.int64) % classes
        noise = random_bytes(seed, stream, samples * size).reshape(samples, size)
        return Frames(patterns[labels] // 2 + noise // 2, labels)

    return Dataset(
        name="synthetic",
        source=f"synthetic frames, seed {seed}",
        classes=classes,
        train=split(TRAIN_SAMPLES, _TRAIN),
        test=split(TEST_SAMPLES, _TEST),
    )
