"""Times the exchanges alone: candidates take turns within one run, and every sample is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Array, Arrays, arrays_for
from commbench.errors import UserError
from commbench.grouped import exchange_over
from commbench.inputs import fill, in_blocks, total
from commbench.job import Job
from commbench.load import hottest, least, only_by_library
from commbench.plans import Plans, plan_all
from commbench.record import RunFile, default_path, sweep_groups
from commbench.registry import Choice
from commbench.schedule import Schedule
from commbench.sweep_table import Row
from commbench.transport import Transport, open_transport
from commbench.turns import Candidate, take_turns


@dataclass(frozen=True)
class SweepSettings:
    """The options of a sweep; `commbench sweep --help` tells what each means."""

    exchanges: list[Choice]
    sizes_bytes: list[int]
    iterations: int
    warmup: int
    check: bool
    dtype: str
    device: str
    transport: str
    timeout_s: float
    output: Path | None
    results: Path

    def as_options(self) -> dict[str, object]:
        """Every option by name, as files store them."""
        return {
            **vars(self),
            "exchanges": [choice.spec for choice in self.exchanges],
            "output": str(self.output or ""),
            "results": str(self.results),
        }


@dataclass(kw_only=True)
class _Candidate(Candidate):
    """One exchange at the size at hand; rank 0 knows the schedules of all ranks."""

    choice: Choice
    schedules: list[Schedule]


def step_sizes(first: int, last: int, factor: float | None, step: int | None) -> list[int]:
    """Buffer sizes in bytes from `first` to `last`, multiplied by `factor` or raised by `step`.

    Raises:
        UserError: `last` below `first`, or steps that lead nowhere.
    """
    if last < first:
        raise UserError(f"--maxbytes {last} is less than --minbytes {first}")
    if step is not None:
        if step < 1:
            raise UserError(f"--stepbytes {step} leads nowhere: give 1 or more")
        return list(range(first, last + 1, step))
    assert factor is not None
    sizes = [first]
    while (following := max(sizes[-1] + 1, int(sizes[-1] * factor))) <= last:
        sizes.append(following)
    return sizes


def sweep(job: Job, settings: SweepSettings, show: Callable[[Row], None]) -> list[Row] | None:
    """Run the sweep; rank 0 gets the rows, the others None.

    Args:
        job: the ranks.
        settings: the options.
        show: called on rank 0 with each row as it is complete.

    Raises:
        UserError: on every rank, for settings that cannot be run or an exchange that is wrong.
    """
    arrays = job.agree(lambda: arrays_for(settings.device, settings.dtype, job.local_rank))
    plans = plan_all(job, settings.exchanges)
    transport = open_transport(settings.transport, job, arrays)
    hosts = job.all_gather_text(job.host)
    devices = job.all_gather_text(arrays.device)
    file = job.keep_on_root(
        lambda: _create(
            settings,
            plans=plans,
            arrays=arrays,
            transport=transport.name,
            hosts=hosts,
            devices=devices,
        )
    )
    run = _Sweep(job, settings, plans=plans, transport=transport, file=file, show=show).run
    if file is None:
        run()
        return None
    with file:
        rows = run()
        wrong = sum(row.wrong or 0 for row in rows)
        file.finish(wrong=wrong)
    return rows


class _Sweep:
    """The loops over sizes, iterations and candidates."""

    def __init__(
        self,
        job: Job,
        settings: SweepSettings,
        *,
        plans: Plans,
        transport: Transport,
        file: RunFile | None,
        show: Callable[[Row], None],
    ) -> None:
        self.job = job
        self.settings = settings
        self.plans = plans
        self.transport = transport
        self.arrays = transport.arrays
        self.file = file
        self.show = show
        self.counts = _counts(settings.sizes_bytes, self.arrays)
        self.buffer = self.private = transport.allocate(max(self.counts))
        self.library = transport
        shares = transport.name in ("shared-memory", "cuda-ipc")
        if shares and any(only_by_library([one]) for one in plans.own.values()):
            # The library gets memory of the kind that it is used to: shared pages slow it down.
            self.library = open_transport("auto", job, self.arrays, library_only=True)
            self.private = self.library.allocate(max(self.counts))
        self.inputs = in_blocks(
            self.arrays,
            max(self.counts),
            lambda count, first: fill(count, job.rank, job.size, settings.dtype, first),
        )

    def run(self) -> list[Row]:
        rows = []
        for index, count in enumerate(self.counts):
            candidates = self.prepare(count)
            wrong = take_turns(
                self.job,
                self.arrays,
                self.inputs,
                candidates,
                warmup=self.settings.warmup,
                iterations=self.settings.iterations,
                keep=partial(self.keep, index),
            )
            if self.file is None:
                continue
            for number, candidate in enumerate(candidates):
                row = self.row(candidate, count, wrong[number])
                self.file["sweep/wrong"][index, number] = (
                    math.nan if row.wrong is None else row.wrong
                )
                self.show(row)
                rows.append(row)
        return rows

    def keep(self, index: int, iteration: int, seconds: NDArray[Any]) -> None:
        assert self.file is not None
        self.file["sweep/seconds"][index, :, iteration] = seconds

    def prepare(self, count: int) -> list[_Candidate]:
        candidates = []
        # Candidates with the same workers share the sum: it is as large as the buffer.
        sums: dict[tuple[int, ...], Any] = {}
        nbytes = count * self.arrays.kind.itemsize
        for choice in self.settings.exchanges:
            spec = choice.for_bytes(nbytes, self.job.size).spec
            workers = tuple(self.plans.workers[spec])
            own = self.plans.own[spec]
            library = only_by_library([own])
            buffer = (self.private if library else self.buffer)[:count]
            transport = self.library if library else self.transport
            exchange = exchange_over(transport, own, buffer, timeout_s=self.settings.timeout_s)
            expected = None
            if self.settings.check and own.contributes and own.reduces:
                if workers not in sums:
                    sums[workers] = self.sum_of(workers, count)
                expected = sums[workers]
            candidates.append(
                _Candidate(
                    buffer,
                    exchange.run,
                    expected,
                    choice=choice,
                    schedules=self.plans.everyone.get(spec, []),
                )
            )
        return candidates

    def sum_of(self, workers: tuple[int, ...], count: int) -> Array:
        return in_blocks(
            self.arrays,
            count,
            lambda part, first: total(part, workers, self.job.size, self.settings.dtype, first),
        )

    def row(self, candidate: _Candidate, count: int, wrong: int) -> Row:
        ranks = self.job.size
        itemsize = self.arrays.kind.itemsize
        size = count * itemsize
        slowest = np.array(candidate.seconds).max(axis=1)
        median = float(np.median(slowest))
        reduces = any(plan.reduces for plan in candidate.schedules)
        # Nothing is exchanged by the floor, so it has no bandwidth.
        rate = size / median / 1e9 if reduces else math.nan
        moved = hottest(candidate.schedules, count) * itemsize
        return Row(
            exchange=candidate.choice.spec,
            transport=(
                self.library if only_by_library(candidate.schedules) else self.transport
            ).name,
            size=size,
            count=count,
            dtype=self.settings.dtype,
            time_us={
                "min": 1e6 * float(slowest.min()),
                "median": 1e6 * median,
                "p99": 1e6 * float(np.percentile(slowest, 99)),
                "max": 1e6 * float(slowest.max()),
            },
            alg_bw=rate,
            bus_bw=rate * 2 * (ranks - 1) / ranks,
            link_bw=moved / median / 1e9 if reduces else math.nan,
            hottest_bytes=moved,
            bound_bytes=float(size * least(candidate.schedules)),
            wrong=wrong if self.settings.check and reduces else None,
        )


def _counts(sizes_bytes: Sequence[int], arrays: Arrays) -> list[int]:
    """Whole elements in each size, each count once: 1, 2 and 3 bytes are all no float32."""
    return list(dict.fromkeys(size // arrays.kind.itemsize for size in sizes_bytes))


def _create(
    settings: SweepSettings,
    *,
    plans: Plans,
    arrays: Arrays,
    transport: str,
    hosts: list[str],
    devices: list[str],
) -> RunFile:
    itemsize = arrays.kind.itemsize
    counts = _counts(settings.sizes_bytes, arrays)
    algorithms = [
        [choice.for_bytes(count * itemsize, len(hosts)).spec for choice in settings.exchanges]
        for count in counts
    ]
    cells = [
        [(plans.everyone[spec], n) for spec in row]
        for n, row in zip(counts, algorithms, strict=True)
    ]
    path = settings.output or default_path(settings.results, f"sweep-n{len(hosts)}")
    return RunFile.create(
        path,
        unique=settings.output is None,
        kind="sweep",
        seed=0,
        hosts=hosts,
        devices=devices,
        options=settings.as_options(),
        attributes={"ranks": len(hosts), "transport": transport, "dtype": settings.dtype},
        groups=sweep_groups(
            sizes_bytes=[count * itemsize for count in counts],
            exchanges=[choice.spec for choice in settings.exchanges],
            iterations=settings.iterations,
            ranks=len(hosts),
            hottest_rank_bytes=[[hottest(*cell) * itemsize for cell in row] for row in cells],
            bound_bytes=[[float(least(plan) * n * itemsize) for plan, n in row] for row in cells],
            algorithms=algorithms,
        ),
    )
