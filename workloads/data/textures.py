"""Made-up photographs: JPEGs of ImageNet's sizes and layout, to time decoding by.

How long a JPEG takes depends on its pixels and its bytes. Amplitudes of photographs fall with the
spatial frequency as 1/f, and their colours are much alike (Field, "Relations between the statistics
of natural images", 1987); textures that do as well take as many bytes: some 110 KB at 500 x 375 and
quality 90, as ImageNet's mean picture does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.decoding import encode_jpeg

SIZES = ((500, 375), (500, 375), (375, 500), (500, 333))
"""Widths and heights that ImageNet's pictures mostly have, in turn."""

_SHEET = 1024
_SHEETS = 4
_GREY, _COLOUR = 55.0, 25.0  # deviations, of what the colours share and of what each has alone


def write_textures(
    root: Path,
    *,
    train: int,
    val: int = 8,
    classes: int = 4,
    sizes: Sequence[tuple[int, int]] = SIZES,
    quality: int = 90,
    seed: int = 1,
) -> None:
    """Write `root/train/CLASS/*.JPEG` and `root/val` alike; the same bytes for the same seed.

    Args:
        root: a folder that does not exist.
        train: pictures to train on, the classes in turn.
        val: pictures to test on.
        classes: their number.
        sizes: width and height of the pictures, in turn; at most 1024.
        quality: of the JPEGs.
        seed: of the pictures.

    Raises:
        UserError: the folder exists or cannot be written.
    """
    from PIL import Image

    random = np.random.default_rng([seed, 1])
    sheets = _sheets(seed)
    try:
        root.mkdir()
        for split, count in (("train", train), ("val", val)):
            for number in range(count):
                folder = root / split / f"n{number % classes:08d}"
                folder.mkdir(parents=True, exist_ok=True)
                width, height = sizes[number % len(sizes)]
                sheet = sheets[number % _SHEETS]
                left = int(random.integers(_SHEET - width + 1))
                top = int(random.integers(_SHEET - height + 1))
                part = sheet[top : top + height, left : left + width, random.permutation(3)]
                data = encode_jpeg(Image.fromarray(part), quality)
                (folder / f"{folder.name}_{number}.JPEG").write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {root}: {error.strerror or error}") from error


@functools.cache
def _sheets(seed: int) -> list[NDArray[np.uint8]]:
    """Large textures to cut pictures out of."""
    random = np.random.default_rng(seed)
    return [_sheet(random) for _ in range(_SHEETS)]


def _sheet(random: np.random.Generator) -> NDArray[np.uint8]:
    grey = _GREY * _noise(random)
    planes = [127 + grey + _COLOUR * _noise(random) for _ in range(3)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def _noise(random: np.random.Generator) -> NDArray[np.float64]:
    """Noise of deviation 1 whose amplitude falls with the frequency as 1/f."""
    frequency = np.hypot(np.fft.fftfreq(_SHEET)[:, None], np.fft.rfftfreq(_SHEET)[None])
    frequency[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(random.normal(size=(_SHEET, _SHEET))) / frequency
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum)
    noise /= noise.std()
    return noise
