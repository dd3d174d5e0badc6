"""The data sets by name. torch is imported when the first batch is made, not before."""

from __future__ import annotations

from pathlib import Path

from commbench.errors import UserError
from commbench.workloads.data import packed
from commbench.workloads.data.dataset import Dataset, Split
from commbench.workloads.data.fashion import load_fashion_mnist, load_fashion_mnist_subset
from commbench.workloads.data.files import load_files
from commbench.workloads.data.frames import make_frames
from commbench.workloads.data.synthetic import make_synthetic
from commbench.workloads.data.text import make_text
from commbench.workloads.task import Kind, Task

__all__ = ["Dataset", "Split", "data_names", "default_data", "is_path", "load_data"]

_FULL = "fashion-mnist"
_SUBSET = "fashion-mnist-subset"
_SYNTHETIC = "synthetic"

# What each data set can hold; the first one that fits a task is its default.
_KINDS: dict[str, tuple[Kind, ...]] = {
    _SUBSET: ("images",),
    _FULL: ("images",),
    _SYNTHETIC: ("images", "text", "frames"),
}


def data_names(kind: Kind | None = None) -> list[str]:
    """The names `load_data` accepts, sorted; of one kind of sample, or all."""
    return sorted(name for name, kinds in _KINDS.items() if kind is None or kind in kinds)


def default_data(kind: Kind) -> str:
    """What to train on where nothing is named."""
    return next(name for name, kinds in _KINDS.items() if kind in kinds)


def is_path(name: str) -> bool:
    """Whether `--data` names files and not a data set."""
    if name in _KINDS:
        return False
    suffixes = packed.LMDB_SUFFIXES | packed.HDF5_SUFFIXES
    return "/" in name or Path(name).suffix in suffixes or Path(name).exists()


def load_data(
    name: str,
    *,
    folder: Path | None,
    task: Task,
    batch: int,
    seed: int,
    augmentation: str = "caffe",
    max_corrupt: int = 20,
    augment_on: str = "auto",
) -> Dataset:
    """Loads a data set, checked; files of pictures are only opened.

    Args:
        name: one of `data_names()`, or a path: see `load_files`.
        folder: where the files of fashion-mnist lie; None for the place where Debian puts them.
        task: which kind of samples of which size. Its classes may exceed the labels that occur, not
            fall short.
        batch: the global batch; text is cut into so many streams.
        seed: of the synthetic data; the others do not depend on it.
        augmentation: one of `AUGMENTATIONS`, for pictures in files.
        max_corrupt: so many of them may be unreadable.
        augment_on: where they are scaled and coloured, see `Pictures`.

    Raises:
        UserError: for an unknown name, a missing or damaged file, or an impossible number.
    """
    if task.size < 1:
        raise UserError(f"image size {task.size}: must be at least 1")
    if is_path(name):
        if folder is not None:
            raise UserError(f"--data {name} and --data-folder: name one of them")
        return load_files(
            Path(name),
            task=task,
            batch=batch,
            augmentation=augmentation,
            max_corrupt=max_corrupt,
            augment_on=augment_on,
        )
    if name not in _KINDS:
        raise UserError(
            f"unknown data {name!r}: choose from {', '.join(data_names())}, or name a folder, "
            "NAME.lmdb or NAME.h5 that exists"
        )
    if task.kind not in _KINDS[name]:
        raise UserError(
            f"data {name} holds {_KINDS[name][0]}, and the model takes {task.kind}: "
            f"use --data {default_data(task.kind)}"
        )
    if folder is not None and name != _FULL:
        raise UserError(f"data {name} reads no folder: drop --data-folder, or use --data {_FULL}")
    classes, size = task.classes, task.size
    if task.kind == "text":
        return make_text(vocabulary=classes, words=size, batch=batch, seed=seed)
    if task.kind == "frames":
        return make_frames(classes=classes, size=size, seed=seed)
    if name == _SYNTHETIC:
        return make_synthetic(classes=classes, image_size=size, seed=seed)
    if name == _SUBSET:
        return load_fashion_mnist_subset(classes=classes, image_size=size)
    return load_fashion_mnist(folder, classes=classes, image_size=size)
