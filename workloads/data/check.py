"""Reads and decodes every picture of a data set, and tells those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from commbench.workloads.data import packed
from commbench.workloads.data.decoding import CorruptImageError, examine
from commbench.workloads.data.pictures import Source

_CHUNK = 64


@dataclass(frozen=True)
class Finding:
    """What was found in one split.

    Attributes:
        pictures: how many there are.
        classes: how many classes have at least one.
        corrupt: name and reason of each that fails.
    """

    pictures: int
    classes: int
    corrupt: list[tuple[str, str]]


def check_source(source: Source, workers: int, progress: Callable[[int, int], None]) -> Finding:
    """Decode all pictures of a split on so many threads, and compare digests where there are some.

    Args:
        source: the pictures.
        workers: threads; pictures are decoded outside Python's lock.
        progress: called now and then with the pictures done and all.
    """
    count = len(source.labels)
    found: list[tuple[str, str]] = []
    with ThreadPoolExecutor(workers) as pool:
        # In blocks, so that little waits for its turn and ^C ends it soon.
        for start in range(0, count, _CHUNK * workers):
            stop = min(start + _CHUNK * workers, count)
            found += _failures(source, start, stop, pool)
            progress(stop, count)
    return Finding(count, len(np.unique(source.labels)), found)


def _failures(
    source: Source, start: int, stop: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[str, str]]:
    reasons = pool.map(partial(_reason, source), range(start, stop))
    for index, reason in enumerate(reasons, start):
        if reason:
            yield source.name(index), reason


def _reason(source: Source, index: int) -> str:
    """Why a picture fails; "" if it does not."""
    try:
        data = source.read(index)
        if isinstance(source, packed.PackedSource) and source.changed(index, data):
            return "its bytes have changed since it was packed"
        examine(data).pixels()
    except CorruptImageError as error:
        return str(error)
    return ""
