"""JPEGs by libjpeg-turbo, through simplejpeg, from the top down to the last row that is wanted.

Most JPEGs hold their rows one after another, so nothing below that row need be decoded. simplejpeg
has no option for it, but the height stands in the header: with less written there the decoder stops
early. Then it looks for the end of the file, as always, and complains of the bytes that it skips.
What it tells is its first complaint, so that one says that all before was well; at any other the
caller decodes the whole picture, and finds out.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

# Rows less than this are a row of blocks, which is decoded anyway.
_BLOCKS = 16
# Colours of half the height are smoothed over the rows next to theirs.
_NEXT = 2
_LEFT_OVER = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9")
_SEQUENTIAL = (0xC0, 0xC1)
_SCAN, _RESTARTS, _TABLES = 0xDA, 0xDD, (0xC4, 0xCC)


def decode(data: bytes, width: int, height: int, *, shrink: int, rows: int) -> NDArray[np.uint8]:
    """The upper part of a picture, or all of it.

    Args:
        data: a JPEG that is neither CMYK nor YCCK.
        width: in its header.
        height: in its header.
        shrink: what its sides are divided by, rounded up: 1, 2, 4 or 8.
        rows: how many are wanted, in pixels of the whole picture.

    Returns:
        `(h, w, 3) uint8`; h may be that of the whole picture.

    Raises:
        ValueError: libjpeg-turbo finds fault with it.
    """
    import simplejpeg

    upper = shrink * (-(-rows // shrink) + _NEXT)
    if upper + _BLOCKS <= height and (at := _height_at(data)):
        shortened = bytearray(data)
        shortened[at : at + 2] = upper.to_bytes(2, "big")
        made = np.empty((upper // shrink, -(-width // shrink), 3), np.uint8)
        try:
            simplejpeg.decode_jpeg(shortened, **_least(width, upper, shrink), buffer=made)
        except ValueError as error:
            if _LEFT_OVER.fullmatch(str(error)):
                return made
        else:
            return made
    whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, **_least(width, height, shrink))
    return whole


def _least(width: int, height: int, shrink: int) -> dict[str, int]:
    """What to ask for: the smallest size that is not below is taken, and the whole for 0."""
    if shrink == 1:
        return {}
    return {"min_width": -(-width // shrink), "min_height": -(-height // shrink)}


def _height_at(data: bytes) -> int | None:
    """Where the header has the height; None unless one scan without restarts holds all rows."""
    at, found = 2, None
    while at + 10 < len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == _SCAN:
            return found if found and data[at + 4] == data[found + 4] else None  # all colours in it
        if kind in _SEQUENTIAL:
            found = at + 5
        elif kind == _RESTARTS or (0xC0 <= kind <= 0xCF and kind not in _TABLES):
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
