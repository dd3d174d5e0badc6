"""Pictures packed into one LMDB folder or one HDF5 file by `commbench data pack`; docs/DATA.md.

Both hold a header in JSON, written last, and for each split the pictures' bytes, labels, names and
digests. Files are opened read-only when the first picture is read, and by each process for itself:
neither library's handles survive a fork.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.decoding import CorruptImageError

FORMAT = "commbench pictures"
VERSION = 1
SPLITS = ("train", "val")
LMDB_SUFFIXES = frozenset({".lmdb"})
HDF5_SUFFIXES = frozenset({".h5", ".hdf5"})
DIGEST_BYTES = 16
HEADER = "commbench"


def digest(data: bytes) -> bytes:
    """BLAKE2b of a picture's bytes, 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def parts_folder(path: Path) -> Path:
    """Where an unfinished packing keeps what it has."""
    return path.with_name(path.name + ".parts")


class Container(Protocol):
    """An open file of either kind."""

    def table(self, name: str) -> bytes | None:
        """What is stored under a name, such as "train/labels"; None where there is nothing."""
        ...

    def picture(self, split: str, index: int) -> bytes:
        """The bytes of a picture."""
        ...


class LmdbContainer:
    """An LMDB folder: keys "train/labels" and "train/00000000"."""

    def __init__(self, path: Path) -> None:
        import lmdb

        try:
            self.environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
            info, stat = self.environment.info(), self.environment.stat()
        except lmdb.Error as error:
            raise OSError(str(error)) from error
        # Reading behind the end of a mapped file would kill the process.
        needed, length = (info["last_pgno"] + 1) * stat["psize"], (path / "data.mdb").stat().st_size
        if length < needed:
            self.environment.close()
            raise OSError(f"it is cut short, {length:,} of {needed:,} bytes")

    def table(self, name: str) -> bytes | None:
        """See `Container.table`."""
        with self.environment.begin() as transaction:
            value: bytes | None = transaction.get(name.encode())
        return value

    def picture(self, split: str, index: int) -> bytes:
        """See `Container.picture`."""
        data = self.table(f"{split}/{index:08d}")
        if data is None:
            raise OSError("it is missing")
        return data


class Hdf5Container:
    """An HDF5 file: datasets "train/labels" and "train/data" with "train/ends", all bytes."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.file = h5py.File(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.places: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def table(self, name: str) -> bytes | None:
        """See `Container.table`."""
        if name not in self.file:
            return None
        return bytes(self.file[name][:].tobytes())

    def picture(self, split: str, index: int) -> bytes:
        """See `Container.picture`."""
        # Not through HDF5, which lets one thread in at a time and keeps Python's lock meanwhile.
        first, ends = self.places.get(split) or self._place(split)
        start = int(ends[index - 1]) if index else 0
        length = int(ends[index]) - start
        data = os.pread(self.descriptor, length, first + start)
        if len(data) != length:
            raise OSError("it is cut short")
        return data

    def _place(self, split: str) -> tuple[int, NDArray[np.int64]]:
        """Where the pictures of a split begin in the file, and where each ends from there on."""
        first = self.file[f"{split}/data"].id.get_offset()
        if first is None:
            raise OSError(f"{split}/data does not lie in one piece, pack the pictures again")
        ends = np.frombuffer(self.table(f"{split}/ends") or b"", "<i8")
        self.places[split] = first, ends
        return first, ends


_containers: dict[tuple[int, Path], Container] = {}
_opening = threading.Lock()


def _open(path: Path) -> Container:
    """The file, opened once by each process; its threads share it."""
    own = os.getpid()
    if found := _containers.get((own, path)):
        return found
    with _opening:
        for process, other in list(_containers):
            if process != own:
                # A parent's: LMDB lets the child open it anew when its copy of the handle is gone.
                del _containers[process, other]
        if (own, path) not in _containers:
            kind = LmdbContainer if path.suffix in LMDB_SUFFIXES else Hdf5Container
            _containers[own, path] = kind(path)
        return _containers[own, path]


@dataclass(frozen=True, eq=False)
class PackedSource:
    """One split of a packed file.

    Attributes:
        path: the file.
        split: "train" or "val".
        labels: `(n,) int64`.
        names: of the files that were packed.
        digests: `(n, 16) uint8`, see `digest`.
    """

    path: Path
    split: str
    labels: NDArray[np.int64]
    names: list[str]
    digests: NDArray[np.uint8]

    def name(self, index: int) -> str:
        """The name that a picture had before."""
        return self.names[index]

    def changed(self, index: int, data: bytes) -> bool:
        """Whether these are other bytes than those that were packed."""
        return bool(digest(data) != self.digests[index].tobytes())

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        try:
            return _open(self.path).picture(self.split, index)
        except OSError as error:
            raise CorruptImageError(str(error)) from error


def load_packed(path: Path) -> tuple[dict[str, Any], PackedSource, PackedSource]:
    """The header and both splits.

    Raises:
        UserError: there is no such file, it is not complete, or not one of `commbench data pack`.
    """
    path = path.absolute()
    if not path.exists():
        if parts_folder(path).exists():
            raise UserError(
                f"{path} is incomplete, its packing was interrupted: run the same "
                "`commbench data pack` again, which goes on where it stopped"
            )
        raise UserError(f"{path}: no such file")
    try:
        container = _open(path)
        text = container.table(HEADER)
        header = json.loads(text) if text else {}
        if header.get("format") != FORMAT:
            raise UserError(
                f"{path} is incomplete or not packed by commbench: make it by `commbench data pack`"
            )
        if header["version"] != VERSION:
            raise UserError(f"{path} has version {header['version']}, this commbench reads 1")
        train, val = (_source(container, path, split, header["counts"]) for split in SPLITS)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return header, train, val


def _source(container: Container, path: Path, split: str, counts: dict[str, int]) -> PackedSource:
    labels, names, digests = (
        container.table(f"{split}/{table}") or b"" for table in ("labels", "names", "digests")
    )
    source = PackedSource(
        path,
        split,
        np.frombuffer(labels, "<i8").astype(np.int64),
        names.decode().split("\n"),
        np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
    )
    lengths = {len(source.labels), len(source.names), len(source.digests), counts[split]}
    if len(lengths) != 1:
        raise ValueError(f"its tables of {split} have {sorted(lengths)} rows")
    return source
