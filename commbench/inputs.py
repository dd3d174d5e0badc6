"""What a measurement sums: integers whose sums are exact, and the sums they must give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Array, Arrays

# Integers up to here, and so every partial sum, are exact in the element type.
_EXACT = {"float32": 1 << 24, "float64": 1 << 53, "float16": 1 << 11, "bfloat16": 1 << 8}
_LARGEST_INPUT = 1000
_BLOCK = 1 << 20


def fill(count: int, rank: int, ranks: int, dtype: str, first: int = 0) -> NDArray[np.float64]:
    """Integers whose sums over `ranks` ranks are exact in `dtype`: ``(count,)``.

    They differ between neighbouring ranks and look alike nowhere along the buffer, so that a piece
    in another's place is found. Those from element `first` on; they do not depend on the count.
    """
    return _scatter(_period(rank, ranks, dtype), count, first)


def total(
    count: int, workers: Iterable[int], ranks: int, dtype: str, first: int = 0
) -> NDArray[np.float64]:
    """The sum of what `fill` gives the workers: ``(count,)``."""
    periods = [_period(worker, ranks, dtype) for worker in workers]
    return _scatter(np.sum(periods, axis=0), count, first)


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Cuts ``[start, stop)`` of a buffer; float64 and hashes of all of it would fill the memory."""
    for start in range(0, count, _BLOCK):
        yield start, min(start + _BLOCK, count)


def in_blocks(
    arrays: Arrays, count: int, values: Callable[[int, int], NDArray[np.float64]]
) -> Array:
    """A new wire array, made a block at a time of what `values(count, first)` gives."""
    whole = arrays.wire_empty(count)
    for start, stop in blocks(count):
        arrays.assign(whole[start:stop], arrays.from_values(values(stop - start, start)))
    arrays.synchronize()
    return whole


def _scatter(values: NDArray[np.float64], count: int, first: int) -> NDArray[np.float64]:
    """`count` of the values, in an order that is the same everywhere and does not repeat."""
    # A plain repetition would fit pieces whose length is a multiple of it. Multiplied only once, an
    # index hashes nearly alike a Fibonacci number further on; the second round breaks that too.
    index = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    hashed = index * np.uint64(0x9E3779B97F4A7C15)
    hashed = (hashed ^ (hashed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(33)
    return np.asarray(values[hashed % np.uint64(len(values))])


def _period(rank: int, ranks: int, dtype: str) -> NDArray[np.float64]:
    limit = _EXACT[dtype]
    largest = min(_LARGEST_INPUT, limit // ranks)
    if largest >= 1:
        return np.asarray((np.arange(largest + 1) + rank) % (largest + 1), np.float64)
    # More ranks than the type can count: only some of them bring a one at each index.
    stride = -(-ranks // limit)
    return np.asarray((np.arange(stride) + rank) % stride == 0, np.float64)
