"""The measurement of one job: all candidates at all sizes, and the rate of plain copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.candidates import AUTO, AUTO_UP_TO_BYTES, DTYPE, NAMES, Field, best_of_ours
from commbench.arrays import Array, arrays_for
from commbench.errors import UserError
from commbench.job import Job
from commbench.record import Group, RunFile, Variable, check_output, sweep_groups
from commbench.tune import resolve_auto
from commbench.turns import take_turns
from commbench.units import Bytes

_LARGE_COPY_BYTES = 64 << 20
# All ranks together copy so much, for the ranks to share the cores out evenly meanwhile.
_COPIED_BYTES = 2e9
# And the round that is timed to tell how many there is time for.
_WARMUP = 1
# An interval of 95 % takes six samples.
_FEWEST, _MOST = 6, 60


def measure(job: Job, options: dict[str, Any]) -> None:
    """Measure and write the run file; collective.

    Raises:
        UserError: on every rank, for options that cannot be run, or wrong sums.
    """
    job.on_root(lambda: check_output(options["output"]))
    auto = resolve_auto(job, AUTO, options["tuning"], device="cpu", dtype=DTYPE, transport="auto")
    sizes = job.on_root(lambda: _fitting(options["sizes"], job.size))
    arrays = arrays_for("cpu", DTYPE)
    best = job.on_root(lambda: best_of_ours(options["tuned"], sizes))
    field = Field(job, arrays, max(sizes) // arrays.kind.itemsize, auto=auto)
    facts = {**options, "sizes": sizes, "best": best, "auto": auto}
    file = job.keep_on_root(lambda: _create(field, facts))
    wrong = 0
    for index in range(len(sizes)):
        size = _Size(field, sizes[index], index, file)
        with job.watchdog.guard(f"rank {job.rank} measures at {sizes[index]} bytes"):
            wrong += size.run(options["seconds"])
    field.gloo.close()
    if file is not None:
        file.finish(wrong=wrong)
    if wrong:
        raise UserError(f"{wrong} elements of the sums were wrong: {options['output']} tells whose")


class _Size:
    """All candidates at one size."""

    def __init__(self, field: Field, size: int, index: int, file: RunFile | None) -> None:
        self.field = field
        self.size = size
        self.index = index
        self.file = file
        self.names = [name for name in NAMES if name != AUTO or size <= AUTO_UP_TO_BYTES]
        self.count = size // field.arrays.kind.itemsize
        found = field.candidates(self.count)
        self.candidates = [found[name] for name in self.names]

    def run(self, seconds: float) -> int:
        """Measure for about so long; the number of wrong elements, over all ranks."""
        self.copies(0)
        self.turns(_WARMUP, 0, lambda iteration, samples: None)
        start = perf_counter()
        self.turns(0, 1, lambda iteration, samples: None)
        lasted = perf_counter() - start
        rounds = self.field.job.on_root(lambda: min(_MOST, max(_FEWEST, round(seconds / lasted))))
        wrong = self.turns(0, rounds, self.keep)
        self.copies(1)
        if self.file is not None:
            self.file["sweep/wrong"][self.index, self.columns()] = wrong
            print(f"# {Bytes(self.size)}: {rounds} rounds, {sum(wrong)} wrong", flush=True)
        return sum(wrong)

    def turns(
        self, warmup: int, rounds: int, keep: Callable[[int, NDArray[Any]], None]
    ) -> list[int]:
        return take_turns(
            self.field.job,
            self.field.arrays,
            self.field.inputs,
            self.candidates,
            warmup=warmup,
            iterations=rounds,
            keep=keep,
        )

    def keep(self, iteration: int, samples: NDArray[Any]) -> None:
        assert self.file is not None
        self.file["sweep/seconds"][self.index, self.columns(), iteration] = samples

    def columns(self) -> list[int]:
        return [NAMES.index(name) for name in self.names]

    def copies(self, measurement: int) -> None:
        field = self.field
        large = _LARGE_COPY_BYTES // field.arrays.kind.itemsize
        same = copy_rate(field.job, field.inputs[: self.count], field.private[: self.count])
        most = copy_rate(field.job, np.ones(large, np.float32), np.ones(large, np.float32))
        if self.file is not None:
            self.file["copy/rate"][self.index, measurement] = same
            self.file["copy/rate_large"][self.index, measurement] = most


def copy_rate(job: Job, source: Array, target: Array) -> float:
    """Bytes a second that all ranks together copy, each from private memory to private memory.

    From the first rank's start to the last one's end.
    """
    repeats = max(1, round(_COPIED_BYTES / (job.size * source.nbytes)))
    np.copyto(target, source)
    job.barrier()
    start = perf_counter()
    for _ in range(repeats):
        np.copyto(target, source)
    times = job.all_gather(np.array([start, perf_counter()]))
    return float(job.size * repeats * source.nbytes / (times[:, 1].max() - times[:, 0].min()))


def _fitting(sizes: list[int], ranks: int) -> list[int]:
    """Those sizes whose buffers fit into the memory that is free; tells which do not.

    Raises:
        UserError: none does.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    # Five buffers of ours a rank, and one that MPI's Allreduce takes for itself.
    needed = {size: ranks * (6 * size + (300 << 20)) for size in sizes}
    fitting = [size for size in sizes if needed[size] <= free]
    for size in sizes:
        if size not in fitting:
            print(f"# left out for want of memory: {Bytes(size)} on {ranks} ranks", flush=True)
    if not fitting:
        raise UserError(
            f"{ranks} ranks need {needed[sizes[0]] >> 20} MiB for buffers of {Bytes(sizes[0])}, "
            f"and {free >> 20} MiB are free: give fewer ranks or end other programs"
        )
    return fitting


def _create(field: Field, facts: dict[str, Any]) -> RunFile:
    job, sizes = field.job, facts["sizes"]
    (sweep,) = sweep_groups(
        sizes_bytes=sizes,
        exchanges=NAMES,
        iterations=_MOST,
        ranks=job.size,
        algorithms=field.algorithms(sizes),
    )
    # Which bytes pass where is the business of a sweep.
    elsewhere = ("hottest_rank_bytes", "bound_bytes")
    variables = {key: one for key, one in sweep.variables.items() if key not in elsewhere}
    variables["best"] = Variable(
        ("size_bytes",), "ours that was fastest in the tune before", data=np.array(facts["best"])
    )
    cell = ("size_bytes", "measurement")
    copies = {
        "size_bytes": sweep.variables["size_bytes"],
        "measurement": Variable(
            ("measurement",), "before (0) and after (1) the exchanges", data=np.arange(2)
        ),
        "rate": Variable(cell, "all ranks copying buffers of this size", "byte s-1"),
        "rate_large": Variable(cell, "all ranks copying buffers of 64 MiB", "byte s-1"),
    }
    return RunFile.create(
        facts["output"],
        kind="benchmark",
        seed=0,
        hosts=[job.host] * job.size,
        devices=["cpu"] * job.size,
        options=facts,
        attributes={"ranks": job.size, "dtype": DTYPE},
        groups=[Group("sweep", variables), Group("copy", copies)],
    )
