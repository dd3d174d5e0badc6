"""What happens to a picture between its bytes and a batch: each step one small function.

The random ones take a NumPy Generator, and `generator` makes one from the key of a sample, so that
a picture is cut and coloured alike whichever rank loads it.

Sources: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks" (2012) for lighting; Szegedy et al., "Going Deeper with Convolutions" (2014) for crops of
random area and aspect; Facebook's fb.resnet.torch, which Goyal et al. (2017) use, for the numbers.
"""

from __future__ import annotations

import io
import math
import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.float32]
"""Colours of one picture, `(h, w, 3) float32` from 0 to 255."""

MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
STD = 255 * np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's training pictures, red, green, blue."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_ATTEMPTS = 10
_RAW = b"commbench-raw\0\0\0"
_RAW_SIZE = struct.Struct("<II")


class CorruptImageError(Exception):
    """Bytes that are no picture, or only part of one."""


def generator(key: int) -> np.random.Generator:
    """Random numbers for one sample in one epoch; see `sample_keys` for the key, an int64."""
    return np.random.Generator(np.random.Philox(key=np.array([key & (2**64 - 1), 0], np.uint64)))


def decode(data: bytes) -> Image:
    """The picture in bytes of any format that Pillow reads, or of `encode_raw`, in RGB.

    Raises:
        CorruptImageError: the bytes are no picture, or end too early.
    """
    from PIL import Image

    try:
        if data.startswith(_RAW):
            width, height = _RAW_SIZE.unpack_from(data, len(_RAW))
            return Image.frombytes("RGB", (width, height), data[len(_RAW) + _RAW_SIZE.size :])
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    # Pillow's plug-ins raise nearly anything on broken bytes.
    except Exception as error:
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def encode_raw(image: Image) -> bytes:
    """The plain pixels of an RGB picture, behind a mark and its width and height."""
    return _RAW + _RAW_SIZE.pack(*image.size) + image.tobytes()


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A JPEG of the picture."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def resize_shorter(image: Image, size: int) -> Image:
    """Scale so that the shorter side is `size` pixels, bilinear with antialiasing."""
    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    to = (max(size, round(width * scale)), max(size, round(height * scale)))
    return image if to == image.size else image.resize(to, Resampling.BILINEAR)


def centre_crop(image: Image, size: int) -> Image:
    """The square of `size` pixels in the middle of a picture at least as large."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_crop(image: Image, size: int, random: np.random.Generator) -> Image:
    """A square of `size` pixels anywhere in a picture at least as large."""
    left = int(random.integers(image.width - size + 1))
    top = int(random.integers(image.height - size + 1))
    return image.crop((left, top, left + size, top + size))


def random_resized_crop(image: Image, size: int, random: np.random.Generator) -> Image:
    """A part of 8 to 100 % of the area and aspect 3/4 to 4/3, scaled to `size` x `size`.

    After ten draws that do not fit the picture, the square in the middle is taken.
    """
    from PIL.Image import Resampling

    box = random_box(image.width, image.height, random)
    if box is None:
        return centre_crop(resize_shorter(image, size), size)
    return image.resize((size, size), Resampling.BILINEAR, box=box)


def random_box(
    width: int, height: int, random: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of such a part; None where ten draws do not fit."""
    for _ in range(_ATTEMPTS):
        area = random.uniform(0.08, 1.0) * width * height
        aspect = random.uniform(3 / 4, 4 / 3)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if random.random() < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            left = int(random.integers(width - w + 1))
            top = int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    return None


def random_flip(image: Image, random: np.random.Generator) -> Image:
    """Left for right, every other time."""
    from PIL.Image import Transpose

    return image.transpose(Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def to_pixels(image: Image) -> Pixels:
    """The colours `(h, w, 3) float32` of an RGB picture, from 0 to 255."""
    return np.asarray(image, np.float32)


def brightness(pixels: Pixels, alpha: float) -> Pixels:
    """Blend with black: alpha times every colour."""
    return pixels * np.float32(alpha)


def contrast(pixels: Pixels, alpha: float) -> Pixels:
    """Blend with the picture's mean grey."""
    grey = np.float32((pixels @ LUMA).mean(dtype=np.float64))
    return pixels * np.float32(alpha) + grey * np.float32(1 - alpha)


def saturation(pixels: Pixels, alpha: float) -> Pixels:
    """Blend with the picture in grey."""
    grey = (pixels @ LUMA)[..., None]
    return pixels * np.float32(alpha) + grey * np.float32(1 - alpha)


def colour_jitter(pixels: Pixels, random: np.random.Generator, strength: float = 0.4) -> Pixels:
    """Brightness, contrast and saturation in random order, each by 1 +- strength."""
    changes = (brightness, contrast, saturation)
    for index in random.permutation(len(changes)):
        pixels = changes[index](pixels, 1 + random.uniform(-strength, strength))
    return pixels


def lighting(pixels: Pixels, random: np.random.Generator, strength: float = 0.1) -> Pixels:
    """Add a random multiple of the principal components of ImageNet's colours."""
    alphas = random.normal(0.0, strength, 3)
    shift: Pixels = (255 * _EIGENVECTORS @ (alphas * _EIGENVALUES)).astype(np.float32)
    return pixels + shift


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of `(h, w)` grey or `(h, w, 3)` colours, which loses nothing."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
