"""Times the exchanges alone: candidates take turns within one run, and every sample is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.arrays import Array, Arrays, arrays_for
from commbench.errors import UserError
from commbench.exchange import Exchange
from commbench.job import Job
from commbench.load import hottest, least, only_by_library
from commbench.plans import Plans, plan_all
from commbench.record import RunFile, default_path, sweep_groups
from commbench.registry import Choice
from commbench.schedule import Schedule
from commbench.sweep_table import Row
from commbench.transport import Transport, open_transport

# Integers up to here, and so every partial sum, are exact in the element type.
_EXACT = {"float32": 1 << 24, "float64": 1 << 53, "float16": 1 << 11, "bfloat16": 1 << 8}
_LARGEST_INPUT = 1000


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


@dataclass
class _Candidate:
    """One exchange at the size at hand; rank 0 knows the schedules of all ranks."""

    choice: Choice
    schedules: list[Schedule]
    exchange: Exchange
    buffer: Array
    contributes: bool
    expected: NDArray[Any] | None
    wrong: int = 0
    seconds: list[NDArray[np.float64]] = field(default_factory=list)


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


def fill(count: int, rank: int, ranks: int, dtype: str) -> NDArray[np.float64]:
    """Integers whose sums over `ranks` ranks are exact in `dtype`: ``(count,)``.

    They differ between neighbouring ranks and look alike nowhere along the buffer, so that a piece
    in another's place is found.
    """
    return _scatter(_period(rank, ranks, dtype), count)


def _scatter(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`count` of the values, in an order that is the same everywhere and does not repeat."""
    # A plain repetition would fit pieces whose length is a multiple of it. Multiplied only once, an
    # index hashes nearly alike a Fibonacci number further on; the second round breaks that too.
    hashed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashed = (hashed ^ (hashed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(33)
    return np.asarray(values[hashed % np.uint64(len(values))])


def turn_order(iteration: int, candidates: int) -> list[int]:
    """The order of the candidates in an iteration: 0 1 4 2 3, then 1 2 0 3 4, ... of five.

    Each is first in turn, and over ``2 * candidates`` iterations each follows each other one
    equally often. Going round in a fixed circle, each would always meet the caches, and the ranks
    that are late, which one and the same other has left behind (Williams, 1949).
    """
    zigzag = [(step + 1) // 2 if step % 2 else -(step // 2) for step in range(candidates)]
    order = [(step + iteration) % candidates for step in zigzag]
    return order[::-1] if iteration // candidates % 2 else order


def _period(rank: int, ranks: int, dtype: str) -> NDArray[np.float64]:
    limit = _EXACT[dtype]
    largest = min(_LARGEST_INPUT, limit // ranks)
    if largest >= 1:
        return np.asarray((np.arange(largest + 1) + rank) % (largest + 1), np.float64)
    # More ranks than the type can count: only some of them bring a one at each index.
    stride = -(-ranks // limit)
    return np.asarray((np.arange(stride) + rank) % stride == 0, np.float64)


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
        if transport.name != "mpi" and any(only_by_library([one]) for one in plans.own.values()):
            # The library gets memory of the kind that it is used to: shared pages slow it down.
            self.library = open_transport("mpi", job, self.arrays)
            self.private = self.library.allocate(max(self.counts))
        inputs = fill(max(self.counts), job.rank, job.size, settings.dtype)
        self.inputs = self.arrays.from_values(inputs)

    def run(self) -> list[Row]:
        rows = []
        for index, count in enumerate(self.counts):
            candidates = self.prepare(count)
            for _ in range(self.settings.warmup):
                for candidate in candidates:
                    self.once(candidate, count, check=False)
            for iteration in range(self.settings.iterations):
                own = np.zeros(len(candidates))
                for number in turn_order(iteration, len(candidates)):
                    own[number] = self.once(candidates[number], count, self.settings.check)
                everyone = self.job.gather(own)
                if everyone is not None and self.file is not None:
                    self.file["sweep/seconds"][index, :, iteration] = everyone.T
                    for number, candidate in enumerate(candidates):
                        candidate.seconds.append(everyone[:, number])
            wrong = self.job.all_sum(np.array([candidate.wrong for candidate in candidates]))
            if self.file is None:
                continue
            for number, candidate in enumerate(candidates):
                row = self.row(candidate, count, int(wrong[number]))
                self.file["sweep/wrong"][index, number] = (
                    math.nan if row.wrong is None else row.wrong
                )
                self.show(row)
                rows.append(row)
        return rows

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
            exchange = Exchange(own, buffer, transport, timeout_s=self.settings.timeout_s)
            expected = None
            if self.settings.check and own.contributes and own.reduces:
                if workers not in sums:
                    periods = [_period(r, self.job.size, self.settings.dtype) for r in workers]
                    total = _scatter(np.sum(periods, axis=0), count)
                    sums[workers] = self.arrays.from_values(total)
                expected = sums[workers]
            candidates.append(
                _Candidate(
                    choice,
                    self.plans.everyone.get(spec, []),
                    exchange,
                    buffer,
                    own.contributes,
                    expected,
                )
            )
        return candidates

    def once(self, candidate: _Candidate, count: int, check: bool) -> float:
        """One exchange, timed from a barrier to this rank's own end; in seconds."""
        # Fresh inputs each time: sums of sums would soon leave the range of the type.
        self.arrays.assign(candidate.buffer, self.inputs[:count])
        self.arrays.synchronize()
        self.job.barrier()
        start = perf_counter()
        candidate.exchange.run()
        seconds = perf_counter() - start
        if check and candidate.expected is not None:
            candidate.wrong += self.arrays.differences(candidate.buffer, candidate.expected)
        return seconds

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
