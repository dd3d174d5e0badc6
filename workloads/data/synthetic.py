"""Images made up from a seed: a coarse random pattern per class under noise, easy to learn.

They need no file and come with any number of classes, for timing and for tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.dataset import Dataset, gray_dataset

TRAIN_SAMPLES = 10_000
TEST_SAMPLES = 2_000
_SIDE = 28
_CELL = 4


def make_synthetic(*, classes: int, image_size: int, seed: int) -> Dataset:
    """10,000 training and 2,000 test images, the classes in turn; the same bytes for a seed.

    Raises:
        UserError: for fewer than two classes.
    """
    if classes < 2:
        raise UserError(f"{classes} classes: synthetic data needs at least 2")
    cells = _SIDE // _CELL
    coarse = random_bytes(seed, 0, classes * cells * cells).reshape(classes, cells, cells)
    patterns = coarse.repeat(_CELL, axis=1).repeat(_CELL, axis=2)
    return gray_dataset(
        "synthetic",
        f"synthetic, seed {seed}",
        classes=classes,
        image_size=image_size,
        train=_split(patterns, TRAIN_SAMPLES, seed, 1),
        test=_split(patterns, TEST_SAMPLES, seed, 2),
    )


def _split(
    patterns: NDArray[np.uint8], samples: int, seed: int, stream: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = np.arange(samples, dtype=np.int64) % len(patterns)
    noise = random_bytes(seed, stream, samples * _SIDE * _SIDE).reshape(samples, _SIDE, _SIDE)
    return patterns[labels] // 2 + noise // 2, labels


def random_bytes(seed: int, stream: int, count: int) -> NDArray[np.uint8]:
    """Raw bytes of the generator keyed by (seed, stream), the same everywhere."""
    # Raw words: NumPy promises the streams of bit generators for ever, those of distributions not.
    generator = np.random.Philox(key=np.array([seed, stream], np.uint64))
    words: NDArray[np.uint64] = generator.random_raw(-(-count // 8)).astype("<u8")
    return words.view(np.uint8)[:count]
