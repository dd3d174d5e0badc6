"""The data sets by name. torch is imported when the first batch is made, not before."""

from __future__ import annotations

from pathlib import Path

from commbench.errors import UserError
from commbench.workloads.data.dataset import Dataset, Split
from commbench.workloads.data.fashion import load_fashion_mnist, load_fashion_mnist_subset
from commbench.workloads.data.synthetic import make_synthetic

__all__ = ["Dataset", "Split", "data_names", "load_data"]

_FULL = "fashion-mnist"
_SUBSET = "fashion-mnist-subset"
_SYNTHETIC = "synthetic"


def data_names() -> list[str]:
    """The names `load_data` accepts, sorted."""
    return [_FULL, _SUBSET, _SYNTHETIC]


def load_data(
    name: str, *, folder: Path | None, classes: int, image_size: int, seed: int
) -> Dataset:
    """Loads a data set into memory, checked.

    Args:
        name: one of `data_names()`.
        folder: where the files of fashion-mnist lie; None for the place where Debian puts them.
        classes: width of the classifier's head. May exceed the labels that occur, not fall short.
        image_size: side in pixels of the images that batches hold.
        seed: of the synthetic data; the others do not depend on it.

    Raises:
        UserError: for an unknown name, a missing or damaged file, or an impossible number.
    """
    if name not in data_names():
        raise UserError(f"unknown data {name!r}: choose from {', '.join(data_names())}")
    if image_size < 1:
        raise UserError(f"image size {image_size}: must be at least 1")
    if folder is not None and name != _FULL:
        raise UserError(f"data {name} reads no folder: drop --data-folder, or use --data {_FULL}")
    if name == _SYNTHETIC:
        return make_synthetic(classes=classes, image_size=image_size, seed=seed)
    if name == _SUBSET:
        return load_fashion_mnist_subset(classes=classes, image_size=image_size)
    return load_fashion_mnist(folder, classes=classes, image_size=image_size)
