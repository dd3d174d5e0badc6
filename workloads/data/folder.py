"""Pictures in folders as ImageNet has them.

ROOT/train/CLASS/*.JPEG, and ROOT/val either alike or flat, as ImageNet's own archive unpacks, with
ROOT/val.txt of Caffe ("FILE CLASS" a line, CLASS by name or by number in sorted order) or
ROOT/LOC_val_solution.csv of Kaggle ("FILE,CLASS x y x y ..." below a heading). Classes are numbered
in the sorted order of their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.decoding import CorruptImageError

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp", ".gif", ".ppm"})
LISTS = ("val.txt", "LOC_val_solution.csv")


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Files of pictures.

    Attributes:
        folder: which all names are relative to.
        names: relative paths.
        labels: `(n,) int64`.
    """

    folder: Path
    names: list[str]
    labels: NDArray[np.int64]

    def name(self, index: int) -> str:
        """The path of a picture."""
        return f"{self.folder.name}/{self.names[index]}"

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        try:
            # One call each. (A memory map was no faster, pathlib a tenth of a millisecond slower.)
            file = os.open(os.path.join(self.folder, self.names[index]), os.O_RDONLY)
            try:
                return os.read(file, os.fstat(file).st_size)
            finally:
                os.close(file)
        except OSError as error:
            raise CorruptImageError(error.strerror or str(error)) from error


def scan_folder(root: Path) -> tuple[list[str], FolderSource, FolderSource]:
    """The names of the classes, the training and the test pictures, in sorted order.

    Raises:
        UserError: a folder is missing or has no classes or pictures, the classes of train and val
            differ, or pictures of val have no label.
    """
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise UserError(
                f"{root}: no folder {part} in it; expected {root}/train/CLASS/*.JPEG and "
                f"{root}/val alike"
            )
    classes = _subfolders(root / "train")
    if not classes:
        raise UserError(f"{root / 'train'}: no classes, which are folders of pictures")
    train = _by_class(root / "train", classes)
    found = _subfolders(root / "val")
    if not found:
        return classes, train, _by_list(root, classes)
    if different := sorted(set(classes) ^ set(found)):
        only = "train" if different[0] in classes else "val"
        raise UserError(
            f"{root}: train has {len(classes)} classes and val {len(found)}, and they differ: "
            f"{different[0]} is only in {only}"
        )
    return classes, train, _by_class(root / "val", classes)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _pictures(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from sorted(e.name for e in entries if Path(e.name).suffix.lower() in SUFFIXES)


def _by_class(folder: Path, classes: list[str]) -> FolderSource:
    names: list[str] = []
    counts = []
    for label in classes:
        before = len(names)
        names += [f"{label}/{name}" for name in _pictures(folder / label)]
        counts.append(len(names) - before)
    if not names:
        raise UserError(f"{folder}: {len(classes)} classes and no picture in them")
    return FolderSource(folder, names, np.repeat(np.arange(len(classes)), counts))


def _by_list(root: Path, classes: list[str]) -> FolderSource:
    folder = root / "val"
    names = list(_pictures(folder))
    if not names:
        raise UserError(f"{folder}: neither classes nor pictures in it")
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder}: pictures without classes; put a list of them at {root / LISTS[0]} "
            f"('FILE CLASS' a line) or {root / LISTS[1]}"
        )
    numbers = {label: number for number, label in enumerate(classes)}
    labels = {}
    for file, label in _entries(path):
        number = int(label) if label.isdecimal() and label not in numbers else numbers.get(label)
        if number is None or number >= len(classes):
            raise UserError(f"{path}: {file} is of class {label}, which train has not")
        labels[file] = number
    keys = [name if name in labels else Path(name).stem for name in names]
    for name, key in zip(names, keys, strict=True):
        if key not in labels:
            raise UserError(f"{path}: no class for {folder / name}")
    return FolderSource(folder, names, np.array([labels[key] for key in keys], np.int64))


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    """The pairs of a picture's name, perhaps without its suffix, and its class."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[path.suffix == ".csv" :], 1 + (path.suffix == ".csv")):
        words = line.replace(",", " ").split()
        if not words:
            continue
        if len(words) < 2:
            raise UserError(f"{path}, line {number}: {line!r} is not a picture and its class")
        yield words[0], words[1]
