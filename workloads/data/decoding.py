"""Between the bytes of a picture and its pixels.

A JPEG is decoded by libjpeg-turbo, through simplejpeg, which lets other threads run meanwhile.
Where half, a quarter or an eighth of its size will do, libjpeg leaves out the high frequencies and
much of the work behind its Huffman decoder. It knows n/8 of the size for every n, but has vector
code for these three alone: 5/8 to 7/8 were measured to take longer than the whole picture.

Pillow takes what is no JPEG, those in CMYK, and those that simplejpeg finds fault with; it has the
last word on whether a picture is corrupt.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from commbench.workloads.data import jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

SHRINKS = (8, 4, 2)
"""What a JPEG's sides can be divided by as it is decoded."""

Pixels = NDArray[np.uint8]
"""Colours of one picture, `(h, w, 3) uint8`."""

_JPEG = b"\xff\xd8"
_RAW = b"commbench-raw\0\0\0"
_RAW_SIZE = struct.Struct("<II")
_RAW_START = len(_RAW) + _RAW_SIZE.size
# The others become RGB only by way of Pillow's tables.
_TURBO_COLOURS = frozenset({"YCbCr", "RGB", "Gray"})


class CorruptImageError(Exception):
    """Bytes that are no picture, or only part of one."""


@dataclass(frozen=True)
class Encoded:
    """A picture of which only the header has been read.

    Attributes:
        data: its bytes.
        width, height: in pixels.
        kind: "jpeg" for simplejpeg, "raw" for `encode_raw`, "other" for Pillow.
    """

    data: bytes
    width: int
    height: int
    kind: Literal["jpeg", "raw", "other"]

    def pixels(self, shrink: int = 1, rows: int | None = None) -> Pixels:
        """The picture; a JPEG with sides divided by `shrink`, 1 or one of `SHRINKS`, rounded up.

        The array may be read-only. The others, and a JPEG that takes Pillow, are not shrunk.

        Args:
            shrink: see above.
            rows: how many are wanted, counted before they are shrunk; there may be more. What is
                wrong with a JPEG below them may pass unnoticed.

        Raises:
            CorruptImageError: the bytes are no picture, or end too early.
        """
        if self.kind == "raw":
            shape = (self.height, self.width, 3)
            return np.frombuffer(self.data, np.uint8, offset=_RAW_START).reshape(shape)
        if self.kind == "jpeg":
            try:
                return jpeg.decode(
                    self.data,
                    self.width,
                    self.height,
                    shrink=shrink,
                    rows=self.height if rows is None else rows,
                )
            except ValueError:
                pass
        return np.asarray(decode(self.data))


def examine(data: bytes) -> Encoded:
    """Read the header of a picture of any format that Pillow reads, or of `encode_raw`.

    Raises:
        CorruptImageError: the bytes are no picture.
    """
    if data.startswith(_JPEG):
        import simplejpeg

        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            pass
        else:
            if colours in _TURBO_COLOURS:
                return Encoded(data, width, height, "jpeg")
    if data.startswith(_RAW):
        if len(data) < _RAW_START:
            raise CorruptImageError("raw pixels end within their header")
        width, height = _RAW_SIZE.unpack_from(data, len(_RAW))
        if len(data) != _RAW_START + 3 * width * height:
            raise CorruptImageError(f"{len(data)} bytes are not {width} x {height} raw pixels")
        return Encoded(data, width, height, "raw")
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return Encoded(data, image.width, image.height, "other")
    # Pillow's plug-ins raise nearly anything on broken bytes.
    except Exception as error:
        raise CorruptImageError(f"{type(error).__name__}: {error}") from error


def decode(data: bytes) -> Image:
    """The whole picture as Pillow reads it, in RGB; also of `encode_raw`.

    Raises:
        CorruptImageError: the bytes are no picture, or end too early.
    """
    from PIL import Image

    if data.startswith(_RAW):
        return Image.fromarray(examine(data).pixels())
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
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


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of `(h, w)` grey or `(h, w, 3)` colours, which loses nothing."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
