"""Weights that the ranks of a node have in common: once in memory, and updated once a step.

Synchronous SGD keeps the weights of all ranks equal, and with them what the optimizer remembers. So
a hundred ranks of one node may read the same ones. The first of them that has data takes the step
for all, in memory that all map; each still has a gradient of its own, which is what is exchanged.

No rank can still be reading when the step is taken: the sum that it takes contains the gradient of
every rank, and a rank reads its weights to compute that. The others wait for it, as part of their
update. Every bit is the same as with weights of their own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from commbench.job import Job
from commbench.transport.mailbox import fence, share_one
from commbench.transport.waiting import wait_until

# Shared from this part of the node's memory on, which its ranks' weights, gradients and momentum
# would otherwise take.
_MUCH = 0.25
_COUNTER_BYTES = 64


def worth_sharing(ranks: int, weight_bytes: int) -> bool:
    """Whether so many ranks of a node should share weights of so many bytes.

    Without, each has its own, a gradient, and a momentum.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ranks > 1 and 3 * weight_bytes * ranks > _MUCH * memory


class NodeWeights:
    """One rank's end of them.

    Attributes:
        digest: of all gradients that this rank would have applied. Equal on all ranks as long as
            the exchange is right: the weights of a node cannot tell any more.
    """

    def __init__(self, job: Job, model: torch.nn.Module, workers: Sequence[int]) -> None:
        """Put the model's parameters there, with rank 0's values; collective over all ranks.

        Args:
            job: the ranks.
            model: on the CPU, with float32 parameters; on rank 0 with the weights to start from.
            workers: the ranks with data.
        """
        self._job = job
        self.digest = 0
        with job.watchdog.guard(f"rank {job.rank} waits for its node to share weights"):
            ranks = job.node.allgather(job.rank)
            parameters = list(model.parameters())
            count = sum(parameter.numel() for parameter in parameters)
            memory = share_one(job, _COUNTER_BYTES + 4 * count)
        self._leads = job.rank == min(set(ranks) & set(workers), default=-1)
        self._counter = memory[:_COUNTER_BYTES].cast("q")
        self._fence: Callable[[], None] = fence() or (lambda: None)
        flat = torch.from_numpy(np.frombuffer(memory, np.float32, offset=_COUNTER_BYTES))
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            shared = flat[start:stop].view_as(parameter)
            if job.rank == 0:
                shared.copy_(parameter.detach())
            parameter.data = shared
            start = stop
        self._spread(flat)
        self._steps = 0
        if job.local_rank == 0:
            self._tell(1)
        self._await(1, "their first values")

    def update(self, gradient: torch.Tensor, take: Callable[[], None]) -> None:
        """Take a step, in one rank of the node, and wait for it in the others.

        Args:
            gradient: what `take` applies, alike on all ranks.
            take: applies it.
        """
        self.digest = zlib.crc32(gradient.numpy().data, self.digest)
        self._steps += 1
        if self._leads:
            take()
            self._tell(1 + self._steps)
        else:
            self._await(1 + self._steps, f"step {self._steps}")

    def _spread(self, flat: torch.Tensor) -> None:
        """Bring rank 0's values to the first rank of every other node."""
        job = self._job
        if job.local_size == job.size:
            return
        with job.watchdog.guard(f"rank {job.rank} waits for rank 0's weights"):
            firsts = job.comm.Split(0 if job.local_rank == 0 else 1, job.rank)
            if job.local_rank == 0:
                firsts.Bcast(flat.numpy(), root=0)
            firsts.Free()

    def _tell(self, number: int) -> None:
        self._fence()
        self._counter[0] = number

    def _await(self, number: int, what: str) -> None:
        told = f"rank {self._job.rank} on {self._job.host} waits for its node's weights: {what}"
        wait_until(lambda: self._counter[0] >= number, self._job.timeout_s, lambda: told)
        self._fence()
