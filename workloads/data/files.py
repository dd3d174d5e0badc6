"""Data sets that lie in files: pictures in folders, LMDB and HDF5, and text in PTB's form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data import packed
from commbench.workloads.data.augment import parse_augmentation
from commbench.workloads.data.dataset import Dataset, GrayImages
from commbench.workloads.data.decoding import encode_png
from commbench.workloads.data.fashion import (
    CLASSES,
    load_fashion_mnist,
    load_fashion_mnist_subset,
)
from commbench.workloads.data.folder import scan_folder
from commbench.workloads.data.pictures import Corrupt, Pictures, Source
from commbench.workloads.data.text import PTB_FILES, load_ptb
from commbench.workloads.task import Task

_FASHION: dict[str, Callable[..., Dataset]] = {
    "fashion-mnist": partial(load_fashion_mnist, None),
    "fashion-mnist-subset": load_fashion_mnist_subset,
}


def open_pictures(path: Path) -> tuple[list[str], dict[str, Source]]:
    """The classes' names, and the pictures of "train" and "val".

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    if path.suffix in packed.LMDB_SUFFIXES | packed.HDF5_SUFFIXES:
        header, *halves = packed.load_packed(path)
        return header["classes"], dict(zip(packed.SPLITS, halves, strict=True))
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    classes, train, val = scan_folder(path.absolute())
    return classes, {"train": train, "val": val}


def open_named(name: str) -> tuple[list[str], dict[str, Source]]:
    """As `open_pictures`, of a path or of the Fashion-MNIST data sets.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    if name not in _FASHION:
        return open_pictures(Path(name))
    data = _FASHION[name](classes=CLASSES, image_size=1)
    halves = zip(packed.SPLITS, (data.train, data.test), strict=True)
    sources: dict[str, Source] = {}
    for split, images in halves:
        assert isinstance(images, GrayImages)
        sources[split] = GraySource(images, split)
    return [str(label) for label in range(CLASSES)], sources


def load_files(
    path: Path,
    *,
    task: Task,
    batch: int,
    augmentation: str,
    max_corrupt: int,
    augment_on: str = "auto",
) -> Dataset:
    """The data set at a path, of the kind that is found there.

    Raises:
        UserError: it cannot be read, or does not suit the task.
    """
    how = parse_augmentation(augmentation)
    if (path / PTB_FILES[0]).is_file() or task.kind == "text":
        if task.kind != "text":
            raise UserError(f"data {path} holds text, and the model takes {task.kind}")
        return load_ptb(path, vocabulary=task.classes, words=task.size, batch=batch)
    if task.kind != "images":
        raise UserError(f"data {path} holds images, and the model takes {task.kind}")
    classes, sources = open_pictures(path)
    if task.classes < len(classes):
        raise UserError(
            f"{task.classes} classes: {path} has {len(classes)}, use --classes {len(classes)} or "
            "more"
        )
    corrupt = Corrupt(max_corrupt)
    train, test = (
        Pictures(sources[split], task.size, how, corrupt, augment_on) for split in packed.SPLITS
    )
    source = f"{len(classes)} classes of pictures from {path}, augmentation {augmentation}"
    return Dataset(str(path), source, task.classes, train, test, corrupt=corrupt, in_memory=False)


class GraySource:
    """Images in memory as a source, for packing: PNG, which loses nothing."""

    def __init__(self, split: GrayImages, name: str) -> None:
        """Of a split, whose pictures are called NAME/NUMBER."""
        self.split, self.split_name = split, name

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Source.labels`."""
        return self.split.labels

    def name(self, index: int) -> str:
        """The number of a picture."""
        return f"{self.split_name}/{index}"

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        return encode_png(self.split.images[index])
