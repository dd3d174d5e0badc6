"""torch.distributed's Gloo over the ranks of an MPI job; the only place that imports torch."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from commbench.job import Job


class Gloo:
    """Gloo's process group, connected over the loopback interface; all ranks on one node."""

    def __init__(self, job: Job) -> None:
        """Connect it; collective.

        The ranks find each other through a file. One thread a rank computes, as there are more
        ranks than cores; Gloo's own threads sleep while nothing comes.
        """
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        import torch
        from torch import distributed

        torch.set_num_threads(1)
        self._from_numpy = torch.from_numpy
        self._distributed = distributed
        folder = job.on_root(lambda: tempfile.mkdtemp(prefix="commbench-gloo-"))
        store = distributed.FileStore(  # type: ignore[attr-defined]
            str(Path(folder) / "store"), job.size
        )
        distributed.init_process_group(
            "gloo",
            store=store,
            rank=job.rank,
            world_size=job.size,
            timeout=timedelta(seconds=job.timeout_s),
        )
        self._job = job
        self._folder = folder

    def summing(self, buffer: NDArray[Any]) -> Callable[[], None]:
        """The exchange that sums ``buffer`` ``(n,)`` in place: a tensor of the same memory."""
        tensor = self._from_numpy(buffer)
        all_reduce = self._distributed.all_reduce

        def run() -> None:
            all_reduce(tensor)

        return run

    def close(self) -> None:
        """Disconnect; collective."""
        self._distributed.barrier()
        self._distributed.destroy_process_group()
        # A store opens its file once more as it goes, and dies of not finding it.
        gc.collect()
        self._job.barrier()
        if self._job.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
