"""Fashion-MNIST: 28x28 grayscale photographs of clothing in ten classes, 60,000 + 10,000.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms" (2017). Copyright 2017 Zalando SE, MIT licence. The subset shipped here is the
first 1,000 training and 200 test images of each class; `fashion_mnist/make_subset.py` made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.workloads.data.dataset import Dataset, gray_dataset
from commbench.workloads.data.idx import read_idx

CLASSES = 10
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SUBSET_FOLDER = Path(__file__).parent / "fashion_mnist"

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Of the plain idx content: the same for the upstream files, Debian's and any other packing.
FULL_SHA256 = {
    TRAIN[0]: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    TRAIN[1]: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    TEST[0]: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    TEST[1]: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SUBSET_SHA256 = {
    TRAIN[0]: "d33512cfdc636a0d8972818e6659995be209a88891df7fa2109d7895922c8985",
    TRAIN[1]: "620cb8e3b9348037c5ff9a07b02d773ab165330e072dfd19e0d21c59f8042dcf",
    TEST[0]: "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1",
    TEST[1]: "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c",
}

FULL_ADVICE = (
    "run `apt-get install dataset-fashion-mnist` or name a folder with the four files "
    "by --data-folder"
)
SUBSET_ADVICE = "reinstall commbench, whose data this is"

# Of the shipped subset, where it is kept; nobody can write to it.
_kept: dict[str, NDArray[np.uint8]] = {}


def load_fashion_mnist(folder: Path | None, *, classes: int, image_size: int) -> Dataset:
    """All 60,000 training and 10,000 test images, from `folder` or from Debian's package.

    Raises:
        UserError: for fewer than ten classes, or a missing or changed file, named.
    """
    folder = DEBIAN_FOLDER if folder is None else folder
    return _load(
        "fashion-mnist", folder, FULL_SHA256, FULL_ADVICE, classes=classes, image_size=image_size
    )


def load_fashion_mnist_subset(*, classes: int, image_size: int) -> Dataset:
    """The 10,000 training and 2,000 test images shipped with commbench, balanced over classes.

    Raises:
        UserError: for fewer than ten classes, or a missing or changed file, named.
    """
    return _load(
        "fashion-mnist-subset",
        SUBSET_FOLDER,
        SUBSET_SHA256,
        SUBSET_ADVICE,
        classes=classes,
        image_size=image_size,
    )


def read_split(
    names: tuple[str, str], folder: Path, sha256: Mapping[str, str], advice: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images `(n, 28, 28) uint8` and labels `(n,) int64` of a split."""
    images, labels = (
        _kept[name]
        if folder == SUBSET_FOLDER and name in _kept
        else read_idx(folder, name, sha256, advice)
        for name in names
    )
    return images, labels.astype(np.int64)


def keep_subset() -> None:
    """Read the shipped files once for all processes that are forked from this one."""
    for name in (*TRAIN, *TEST):
        _kept[name] = read_idx(SUBSET_FOLDER, name, SUBSET_SHA256, SUBSET_ADVICE)


def _load(
    name: str,
    folder: Path,
    sha256: Mapping[str, str],
    advice: str,
    *,
    classes: int,
    image_size: int,
) -> Dataset:
    if classes < CLASSES:
        raise UserError(f"{classes} classes: {name} has {CLASSES} labels, use {CLASSES} or more")
    return gray_dataset(
        name,
        f"Fashion-MNIST, Zalando SE, from {folder}",
        classes=classes,
        image_size=image_size,
        train=read_split(TRAIN, folder, sha256, advice),
        test=read_split(TEST, folder, sha256, advice),
    )
