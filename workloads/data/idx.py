"""The idx format of MNIST and its successors, plain or gzipped, checked by SHA-256.

Layout: two zero bytes, a type byte (0x08: unsigned byte), the number of dimensions, each dimension
as a big-endian uint32, then the elements in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError

_UNSIGNED_BYTE = 0x08


def decode_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in the bytes of a plain idx file.

    Raises:
        ValueError: if the bytes are not an idx file of unsigned bytes, or are too few or too many.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise ValueError("not an idx file of unsigned bytes")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError("the header is cut short")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.uint64))
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes where the header promises {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The bytes of a plain idx file holding `array`."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def read_idx(folder: Path, name: str, sha256: Mapping[str, str], advice: str) -> NDArray[np.uint8]:
    """Reads `name`.gz or plain `name` from `folder`.

    Args:
        folder: where to look.
        name: file name without `.gz`.
        sha256: digest of the plain content by name, so that repacking changes nothing.
        advice: what the user can do; ends the error line.

    Raises:
        UserError: if there is no such file, or its content is not the published one.
    """
    path = folder / f"{name}.gz"
    if not path.exists():
        path = folder / name
    if not path.exists():
        raise UserError(f"no {name}.gz or {name} in {folder}: {advice}")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): {advice}") from error
    if hashlib.sha256(content).hexdigest() != sha256[name]:
        raise UserError(f"{path} is not the published file (SHA-256 differs): {advice}")
    return decode_idx(content)
