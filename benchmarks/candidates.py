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
from commbench.arrays import Array, Arrays
from commbench.exchange import Exchange
from commbench.inputs import fill, in_blocks, total
from commbench.job import Job
from commbench.load import only_by_library
from commbench.plans import plan_all
from commbench.record import open_run
from commbench.registry import parse_exchange
from commbench.transport import Transport, open_transport
from commbench.turns import Candidate

DTYPE = "float32"
ALLREDUCE, GLOO, AUTO = "Allreduce", "Gloo", "auto"
LOOPS = {"ring": loops.ring, "tree": loops.tree}
OURS = [
    *LOOPS,
    *("sharded-server", "halving-doubling", "recursive-doubling", "parameter-server"),
]
SHARED, OVER_MPI, BY_HAND = "shared-memory", "mpi", "mpi4py"
NAMES = [
    *(ALLREDUCE, GLOO, AUTO),
    *(f"{name}/{SHARED}" for name in OURS),
    *(f"{name}/{over}" for over in (OVER_MPI, BY_HAND) for name in LOOPS),
]
"""The candidates, in the order of the file."""
# Longer ones are summed by what is measured under its own name anyway.
AUTO_UP_TO_BYTES = 64 << 10


def best_of_ours(run_file: Path, sizes_bytes: list[int]) -> list[str]:
    """For each size which of `OURS` has the lowest median in the file of a `commbench tune`.

    Between two sizes of that run the smaller one tells, and beyond its last one that.
    """
    with open_run(run_file) as file:
        table = file["sweep"]
        names = list(table["exchange"].asstr()[:])
        own = [index for index, name in enumerate(names) if name in OURS]
        tuned = [int(size) for size in table["size_bytes"][:]]
        slowest = table["seconds"][:][:, own].max(axis=3)
    fastest = np.median(slowest, axis=2).argmin(axis=1)
    best = dict(zip(tuned, (names[own[index]] for index in fastest), strict=True))
    return [best[max((t for t in tuned if t <= size), default=tuned[0])] for size in sizes_bytes]


class Field:
    """All candidates, and the memory they share: made once, for the longest buffer.

    Ours sum a buffer that their transport allocates. The others, and ours over MPI, sum one of
    ordinary private memory, as a program without commbench has it.
    """

    def __init__(self, job: Job, arrays: Arrays, count: int, *, auto: str) -> None:
        """Open transports and Gloo, and make buffers of `count` elements; collective.

        Raises:
            UserError: an exchange that cannot run on so many ranks.
        """
        self.job = job
        self.arrays = arrays
        self.choices = {AUTO: parse_exchange(auto)}
        self.choices |= {name: parse_exchange(name) for name in OURS}
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
            AUTO: self.ours(AUTO, SHARED, count, expected),
        }
        for name in OURS:
            found[f"{name}/{SHARED}"] = self.ours(name, SHARED, count, expected)
        for name, loop in LOOPS.items():
            found[f"{name}/{OVER_MPI}"] = self.ours(name, OVER_MPI, count, expected)
            found[f"{name}/{BY_HAND}"] = competitor(partial(loop, self.comm, private, self.scratch))
        return found

    def ours(self, name: str, over: str, count: int, expected: Array) -> Candidate:
        """One of our exchanges over one transport; the library's own over MPI, as in a sweep."""
        nbytes = count * self.arrays.kind.itemsize
        choice = self.choices[name].for_bytes(nbytes, self.job.size)
        if only_by_library([self.plans.own[choice.spec]]):
            over = OVER_MPI
        buffer = (self.shared if over == SHARED else self.private)[:count]
        exchange = Exchange(
            self.plans.own[choice.spec],
            buffer,
            self.transports[over],
            timeout_s=self.job.timeout_s,
        )
        return Candidate(buffer, exchange.run, expected)
