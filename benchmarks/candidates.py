"""What the benchmark times against each other, on buffers of one length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from benchmarks import loops
from benchmarks.gloo import Gloo
from commbench import tune
from commbench.arrays import Array, Arrays
from commbench.exchange import Exchange
from commbench.inputs import fill, in_blocks, total
from commbench.job import Job
from commbench.plans import plan_all
from commbench.record import open_run
from commbench.registry import parse_exchange
from commbench.transport import Transport, open_transport
from commbench.turns import Candidate

DTYPE = "float32"
ALLREDUCE, GLOO, BEST, AUTO = "Allreduce", "Gloo", "best", "auto"
LOOPS = {"ring": loops.ring, "tree": loops.tree}
SHARED, OVER_MPI, BY_HAND = "shared-memory", "mpi", "mpi4py"
NAMES = [
    *(ALLREDUCE, GLOO, BEST, AUTO),
    *(f"{name}/{over}" for name in LOOPS for over in (SHARED, OVER_MPI, BY_HAND)),
]
"""The candidates, in the order of the file."""
# `auto` differs from `best` only by the choice of the library's own, which is for short buffers.
AUTO_UP_TO_BYTES = 64 << 10


def best_of_ours(run_file: Path) -> str:
    """For each size the exchange of the lowest median in a run of its own, `native` left out."""
    with open_run(run_file) as file:
        table = file["sweep"]
        names = list(table["exchange"].asstr()[:])
        own = [index for index, name in enumerate(names) if name != "native"]
        sizes = [int(size) for size in table["size_bytes"][:]]
        slowest = table["seconds"][:][:, own].max(axis=3)
    fastest = np.median(slowest, axis=2).argmin(axis=1)
    steps = [(size, names[own[best]]) for size, best in zip(sizes, fastest, strict=True)]
    return tune.merge(steps)


class Field:
    """All candidates, and the memory they share: made once, for the longest buffer.

    Ours sum a buffer that their transport allocates. The others, and ours over MPI, sum one of
    ordinary private memory, as a program without commbench has it.
    """

    def __init__(self, job: Job, arrays: Arrays, count: int, *, best: str, auto: str) -> None:
        """Open transports and Gloo, and make buffers of `count` elements; collective.

        Raises:
            UserError: an exchange that cannot run on so many ranks.
        """
        self.job = job
        self.arrays = arrays
        self.choices = {BEST: parse_exchange(best), AUTO: parse_exchange(auto)}
        self.choices |= {name: parse_exchange(name) for name in LOOPS}
        self.plans = plan_all(job, self.choices.values())
        self.transports: dict[str, Transport] = {
            name: open_transport(name, job, arrays) for name in (SHARED, OVER_MPI)
        }
        self.shared = self.transports[SHARED].allocate(count)
        self.private = self.transports[OVER_MPI].allocate(count)
        self.scratch = arrays.wire_empty(count)
        self.inputs = in_blocks(
            arrays, count, lambda part, first: fill(part, job.rank, job.size, DTYPE, first)
        )
        with job.watchdog.guard(f"rank {job.rank} waits for all ranks to duplicate MPI's world"):
            self.comm: MPI.Intracomm = job.comm.Dup()
        self.gloo = Gloo(job)

    def algorithms(self, sizes_bytes: list[int]) -> list[list[str]]:
        """For each size what the candidates, in order, come down to."""
        return [[self._algorithm(name, size) for name in NAMES] for size in sizes_bytes]

    def _algorithm(self, name: str, size: int) -> str:
        choice = self.choices.get(name)
        return choice.for_bytes(size, self.job.size).spec if choice else name

    def candidates(self, count: int) -> dict[str, Candidate]:
        """The candidates for buffers of `count` elements, by name."""
        private = self.private[:count]
        ranks = range(self.job.size)
        expected = in_blocks(
            self.arrays,
            count,
            lambda part, first: total(part, ranks, self.job.size, DTYPE, first),
        )

        def competitor(run: Callable[[], Any]) -> Candidate:
            return Candidate(private, run, expected)

        found = {
            ALLREDUCE: competitor(lambda: self.comm.Allreduce(MPI.IN_PLACE, private)),
            GLOO: competitor(self.gloo.summing(private)),
            BEST: self.ours(BEST, SHARED, count, expected),
            AUTO: self.ours(AUTO, SHARED, count, expected),
        }
        for name, loop in LOOPS.items():
            found[f"{name}/{SHARED}"] = self.ours(name, SHARED, count, expected)
            found[f"{name}/{OVER_MPI}"] = self.ours(name, OVER_MPI, count, expected)
            found[f"{name}/{BY_HAND}"] = competitor(partial(loop, self.comm, private, self.scratch))
        return found

    def ours(self, name: str, over: str, count: int, expected: Array) -> Candidate:
        """One of our exchanges over one transport."""
        buffer = (self.shared if over == SHARED else self.private)[:count]
        choice = self.choices[name].for_bytes(buffer.nbytes, self.job.size)
        exchange = Exchange(
            self.plans.own[choice.spec],
            buffer,
            self.transports[over],
            timeout_s=self.job.timeout_s,
        )
        return Candidate(buffer, exchange.run, expected)
