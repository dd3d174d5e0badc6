"""Makes the subset of Fashion-MNIST shipped beside this file from the full data set.

Usage: python make_subset.py [FULL_FOLDER] [OUTPUT_FOLDER]

Takes the first 1,000 training and 200 test images of each class, in their original order. The same
Python and zlib give the same bytes; any give the same content, whose SHA-256 commbench checks.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from commbench.workloads.data import fashion
from commbench.workloads.data.idx import encode_idx

PER_CLASS = {fashion.TRAIN: 1_000, fashion.TEST: 200}


def make_subset(full: Path, output: Path) -> None:
    """Writes the four .gz files of the subset into `output`."""
    for names, per_class in PER_CLASS.items():
        images, labels = fashion.read_split(names, full, fashion.FULL_SHA256, fashion.FULL_ADVICE)
        first = [np.flatnonzero(labels == label)[:per_class] for label in range(fashion.CLASSES)]
        chosen = np.sort(np.concatenate(first))
        for name, array in zip(names, (images, labels.astype(np.uint8)), strict=True):
            content = gzip.compress(encode_idx(array[chosen]), compresslevel=9, mtime=0)
            (output / f"{name}.gz").write_bytes(content)


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    defaults = [fashion.DEBIAN_FOLDER, fashion.SUBSET_FOLDER]
    make_subset(*folders, *defaults[len(folders) :])
