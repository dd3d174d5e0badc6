"""What a rank's steps and evaluations read: its share of every batch, made ahead of time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from commbench.course import Course, Settings
from commbench.job import Job
from commbench.transport.waiting import PeerTimeout
from commbench.workloads.data import Dataset, order
from commbench.workloads.data.loader import Batch, Loader, Request
from commbench.workloads.models.dropout import sample_keys

_EVALUATION_BATCH = 250
# More threads than this were not seen to help a rank, which has other things to compute.
_MOST_LOADERS = 16


def loaders_for(asked: int | None, data: Dataset, local_size: int) -> int:
    """How many threads load for a rank.

    Args:
        asked: by `--loaders`; None for as many as there are cores for each rank of the node, and
            none where ranks outnumber them or the data is in memory.
        data: what is loaded.
        local_size: ranks of the node.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0))
    return 0 if data.in_memory else min(_MOST_LOADERS, cores // local_size)


class Feed:
    """A rank's loader, and the batches of its steps."""

    def __init__(
        self, job: Job, settings: Settings, course: Course, worker: int, device: torch.device
    ) -> None:
        """Start the loader's threads.

        Args:
            job: the ranks.
            settings: seed, time limit, and how many loaders.
            course: data and timetable.
            worker: which of the course's workers this rank is.
            device: where its model is.
        """
        self._job = job
        self._course = course
        self._worker = worker
        self._seed = settings.seed
        self._timeout_s = settings.timeout_s
        self._loader = Loader(settings.loaders or 0, device, timeout_s=settings.timeout_s)
        self._training = self._loader.batches(course.data.train, self._requests())

    def step(self) -> Batch:
        """The share of the next step.

        Raises:
            PeerTimeout: it was not made in time.
            UserError: too many samples are corrupt.
        """
        return self._next(self._training)

    def tests(self) -> Iterator[Batch]:
        """This rank's share of the test samples; raises as `step`."""
        data = self._course.data.test
        share = self._share(np.arange(len(data)))
        cuts = range(0, len(share), _EVALUATION_BATCH)
        requests = [Request(share[start : start + _EVALUATION_BATCH]) for start in cuts]
        batches = self._loader.batches(data, requests)
        for _ in requests:
            yield self._next(batches)

    def close(self) -> None:
        """End the threads."""
        self._loader.close()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except TimeoutError:
            raise PeerTimeout(
                f"rank {self._job.rank} on {self._job.host} waits for samples of "
                f"{self._course.data.name}: none came within {self._timeout_s:g} s (--timeout)"
            ) from None

    def _share(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        return order.worker_share(samples, self._worker, len(self._course.workers))

    def _requests(self) -> Iterator[Request]:
        """This rank's share of every step of the run."""
        times = self._course.timetable
        samples = np.empty(0, np.int64)
        for step in range(times.total_steps):
            epoch, step_in_epoch = times.place(step)
            if step_in_epoch == 0:
                samples = self._course.epoch_order(self._seed, epoch)
            share = self._share(order.global_batch(samples, step_in_epoch, times.batch(step)))
            yield Request(share, sample_keys(self._seed, epoch, share).numpy())
