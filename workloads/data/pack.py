"""Packs pictures into one file, by several processes, and goes on after an interruption.

Each process turns its share of the pictures into parts, small files beside the result that appear
under their names when they are whole. When all are there they are put together, under another name
too, and the result is renamed in the end. So a restart makes the parts that are missing, and a file
under its proper name is complete. It takes twice the space of the result for a while.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np

from commbench.errors import EXIT_BUG, UserError
from commbench.workloads.data import decoding, packed
from commbench.workloads.data.cuts import shorter_side
from commbench.workloads.data.pictures import Source

PART = 256
"""Pictures in a part."""


@dataclass(frozen=True)
class Packing:
    """What is done to every picture.

    Attributes:
        size: its shorter side in pixels, if it is longer; None leaves the bytes as they are.
        raw: keep plain pixels instead of a JPEG.
        quality: of the JPEG that a picture of another size becomes, 1 to 95.
    """

    size: int | None = None
    raw: bool = False
    quality: int = 95

    def encode(self, data: bytes) -> bytes:
        """The bytes to keep.

        Raises:
            CorruptImageError: they are no picture.
        """
        from PIL.Image import Resampling

        image = decoding.decode(data)
        smaller = self.size is not None and min(image.size) > self.size
        if smaller:
            assert self.size is not None
            to = shorter_side(*image.size, self.size)
            image = image.resize(to, Resampling.BILINEAR)
        if self.raw:
            return decoding.encode_raw(image)
        return decoding.encode_jpeg(image, self.quality) if smaller else data


@dataclass(frozen=True)
class Work:
    """The parts of one packing.

    Attributes:
        sources: the pictures of each split.
        packing: what is done to each.
        folder: where the parts go.
    """

    sources: dict[str, Source]
    packing: Packing
    folder: Path

    def parts(self) -> list[tuple[str, int, int]]:
        """Split, first picture and the one behind the last of every part."""
        return [
            (split, start, min(start + PART, len(source.labels)))
            for split, source in self.sources.items()
            for start in range(0, len(source.labels), PART)
        ]

    def path(self, split: str, start: int) -> Path:
        """The file of a part."""
        return self.folder / f"{split}-{start:08d}.npz"

    def make(self, split: str, start: int, stop: int) -> None:
        """Write one part; a picture that cannot be decoded stays as it is, and is marked.

        Raises:
            CorruptImageError: one cannot even be read.
        """
        values, corrupt = [], []
        for index in range(start, stop):
            data = self.sources[split].read(index)
            broken = False
            try:
                kept = self.packing.encode(data)
            except decoding.CorruptImageError:
                kept, broken = data, True
            values.append(kept)
            corrupt.append(broken)
        path = self.path(split, start)
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        with hidden.open("wb") as file:
            np.savez(
                file,
                data=np.frombuffer(b"".join(values), np.uint8),
                ends=np.cumsum([len(value) for value in values], dtype=np.int64),
                digests=np.frombuffer(b"".join(map(packed.digest, values)), np.uint8),
                corrupt=np.array(corrupt),
            )
        hidden.replace(path)


def pack(
    destination: Path,
    *,
    classes: list[str],
    origin: str,
    sources: dict[str, Source],
    packing: Packing,
    workers: int,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Make `destination`, an LMDB folder or HDF5 file by its suffix.

    Args:
        destination: must not exist, but may have been begun.
        classes: names, by label.
        origin: where the pictures come from, for the header.
        sources: "train" and "val".
        packing: what is done to each picture.
        workers: processes.
        progress: called now and then with the pictures done and all.

    Returns:
        The names of the pictures that cannot be decoded; they were copied as they are.

    Raises:
        UserError: it exists, was begun in another way, or cannot be written.
    """
    if destination.suffix not in packed.LMDB_SUFFIXES | packed.HDF5_SUFFIXES:
        raise UserError(f"{destination}: the name must end in .lmdb, .h5 or .hdf5")
    if destination.exists():
        raise UserError(f"{destination} exists: remove it, or choose another name")
    if not destination.parent.is_dir():
        raise UserError(f"{destination.parent}: no such folder")
    work = Work(sources, packing, packed.parts_folder(destination))
    header = {
        "format": packed.FORMAT,
        "version": packed.VERSION,
        "classes": classes,
        "origin": origin,
        "counts": {split: len(source.labels) for split, source in sources.items()},
        **asdict(packing),
    }
    try:
        _begin(work, header)
        _make_all(work, workers, progress)
        corrupt = _put_together(work, header, destination)
        shutil.rmtree(work.folder)
    except OSError as error:
        raise UserError(f"cannot write {destination}: {error.strerror or error}") from error
    return corrupt


def _begin(work: Work, header: dict[str, Any]) -> None:
    """Make the folder of parts, or see that it was made for the same."""
    names = hashlib.sha256()
    for source in work.sources.values():
        for index in range(len(source.labels)):
            names.update(f"{source.name(index)}\n".encode())
        names.update(np.asarray(source.labels, "<i8").tobytes())
    plan = json.dumps({**header, "names": names.hexdigest()}, sort_keys=True)
    work.folder.mkdir(exist_ok=True)
    path = work.folder / "plan.json"
    if path.exists() and path.read_text() != plan:
        raise UserError(
            f"{work.folder} was begun with other pictures or options: remove it to begin anew"
        )
    hidden = path.with_name(".plan.json")
    hidden.write_text(plan)
    hidden.replace(path)


def _make_all(work: Work, workers: int, progress: Callable[[int, int], None]) -> None:
    parts = work.parts()
    missing = [part for part in parts if not work.path(part[0], part[1]).exists()]
    total = sum(stop - start for _, start, stop in parts)
    before = total - sum(stop - start for _, start, stop in missing)
    context = multiprocessing.get_context("fork")
    done: Synchronized[int] = context.Value("q", 0)
    processes = [
        context.Process(target=_work, args=(work, missing[first::workers], done, os.getpid()))
        for first in range(min(workers, len(missing)))
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(0.1)
            progress(before + done.value, total)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if any(process.exitcode for process in processes):
        raise UserError(
            "a packing process ended early, see above; run the same command again to go on"
        )
    progress(total, total)


def _work(
    work: Work, parts: list[tuple[str, int, int]], done: Synchronized[int], parent: int
) -> None:
    """Make parts one after another, in a process of their own."""
    for split, start, stop in parts:
        if os.getppid() != parent:  # killed: nobody waits for the rest
            return
        try:
            work.make(split, start, stop)
        except (OSError, decoding.CorruptImageError) as error:
            print(f"commbench: packing {split} {start} to {stop}: {error}", file=sys.stderr)
            sys.exit(EXIT_BUG)
        with done.get_lock():
            done.value += stop - start


def _put_together(work: Work, header: dict[str, Any], destination: Path) -> list[str]:
    hidden = work.folder / f"result{destination.suffix}"
    if hidden.is_dir():
        shutil.rmtree(hidden)
    hidden.unlink(missing_ok=True)
    tables: dict[str, bytes] = {}
    corrupt: list[str] = []
    for split, source in work.sources.items():
        names = [source.name(index) for index in range(len(source.labels))]
        marks, digests, lengths = [], [], []
        for start, part in _stored(work, split):
            marks += [start + int(index) for index in np.flatnonzero(part["corrupt"])]
            digests.append(part["digests"].tobytes())
            lengths.append(np.diff(part["ends"], prepend=0))
        corrupt += [names[index] for index in marks]
        tables[f"{split}/labels"] = np.asarray(source.labels, "<i8").tobytes()
        tables[f"{split}/names"] = "\n".join(names).encode()
        tables[f"{split}/digests"] = b"".join(digests)
        tables[f"{split}/ends"] = np.cumsum(np.concatenate(lengths)).astype("<i8").tobytes()
    write = _write_lmdb if destination.suffix in packed.LMDB_SUFFIXES else _write_hdf5
    write(hidden, work, tables, json.dumps(header).encode())
    hidden.replace(destination)
    return corrupt


def _stored(work: Work, split: str) -> Iterator[tuple[int, Any]]:
    """The parts of a split in order, each with the number of its first picture."""
    for start in range(0, len(work.sources[split].labels), PART):
        with np.load(work.path(split, start)) as part:
            yield start, part


def _write_hdf5(path: Path, work: Work, tables: dict[str, bytes], header: bytes) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for split in work.sources:
            total = int(np.frombuffer(tables[f"{split}/ends"], "<i8")[-1])
            data = file.create_dataset(f"{split}/data", (total,), np.uint8)
            at = 0
            for _, part in _stored(work, split):
                block = part["data"]
                data[at : at + len(block)] = block
                at += len(block)
        for name, value in tables.items():
            file[name] = np.frombuffer(value, np.uint8)
        file[packed.HEADER] = np.frombuffer(header, np.uint8)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _write_lmdb(path: Path, work: Work, tables: dict[str, bytes], header: bytes) -> None:
    import lmdb

    # A page for the end of each value and of each key, and room for the tree above them. The file
    # becomes only as long as what is written.
    pictures = sum(len(source.labels) for source in work.sources.values())
    stored = sum(int(np.frombuffer(tables[f"{split}/ends"], "<i8")[-1]) for split in work.sources)
    room = stored + 3 * 4096 * pictures + 2 * sum(map(len, tables.values())) + (64 << 20)
    with lmdb.open(str(path), map_size=room) as environment:
        for split in work.sources:
            for start, part in _stored(work, split):
                data, first = part["data"].tobytes(), 0
                with environment.begin(write=True) as transaction:
                    for index, stop in enumerate(part["ends"].tolist(), start):
                        transaction.put(f"{split}/{index:08d}".encode(), data[first:stop])
                        first = stop
        with environment.begin(write=True) as transaction:
            for name, value in tables.items():
                transaction.put(name.encode(), value)
            transaction.put(packed.HEADER.encode(), header)
    (path / "lock.mdb").unlink(missing_ok=True)
