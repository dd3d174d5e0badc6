"""Which samples make up which batch, and which worker's share of it: never a matter of timing.

The global batch of a step depends on the seed and the step alone, so runs with different numbers of
workers see the same batches. Each epoch is a fresh shuffle of the whole training set, cut into
n // B batches of B; the n % B samples left over are dropped for that epoch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation `(n,) int64` of 0 .. n-1, a function of the arguments alone.

    Sorts n raw words of the Philox generator keyed by (seed, epoch): NumPy keeps these words the
    same in every version, unlike `Generator.permutation`.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def steps_per_epoch(n: int, size: int, workers: int = 1) -> int:
    """Whole batches in an epoch of n samples: n // size.

    Raises:
        UserError: if there is no whole batch, or less than one sample for each worker.
    """
    if size > n:
        raise UserError(f"global batch {size} exceeds the {n} training samples: use {n} or fewer")
    if size < workers:
        raise UserError(
            f"global batch {size} leaves some of {workers} workers without a sample: "
            f"use {workers} or more"
        )
    return n // size


def global_batch(order: NDArray[np.int64], step: int, size: int) -> NDArray[np.int64]:
    """The samples `(size,) int64` of the step-th batch, from 0, of an epoch with this order.

    Raises:
        IndexError: if the epoch has no such whole batch.
    """
    if not 0 <= step < len(order) // size:
        raise IndexError(f"step {step} of an epoch of {len(order) // size} steps")
    return order[step * size : (step + 1) * size]


def worker_share(batch: NDArray[np.int64], worker: int, workers: int) -> NDArray[np.int64]:
    """The part of a batch of B samples that worker w of W computes: [w B // W, (w+1) B // W).

    Shares differ by one sample at most, and together are the batch in its order.
    """
    size = len(batch)
    return batch[worker * size // workers : (worker + 1) * size // workers]
