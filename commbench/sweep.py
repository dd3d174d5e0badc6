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
from commbench.load import only_by_library
from commbench.memory import require_room
from commbench.plans import Plans, plan_all
from commbench.record import RunFile, default_path, sweep_groups
from commbench.registry import Choice
from commbench.sweep_table import Row
from commbench.transport import library_transport, open_transport
from commbench.turns import Candidate, take_turns
from commbench.wire import FLOAT32, WireFormat, check_exchange
from commbench.wire.codec import Codec
from commbench.wire.gather import gather_plans
from commbench.wire.trial import Cell, Trials, cell_of

_MOST_SIZES = 10_000


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
    wire: WireFormat = FLOAT32

    def as_options(self) -> dict[str, object]:
        """Every option by name, as files store them."""
        return {
            **vars(self),
            "exchanges": [choice.spec for choice in self.exchanges],
            "output": str(self.output or ""),
            "results": str(self.results),
            "wire": self.wire.spec,
        }


@dataclass(kw_only=True)
class _Candidate(Candidate):
    """One exchange at the size at hand; rank 0 knows the schedules of all ranks."""

    choice: Choice
    cell: Cell
    transport: str
    codec: Codec | None = None


def step_sizes(first: int, last: int, factor: float | None, step: int | None) -> list[int]:
    """Buffer sizes in bytes from `first` to `last`, multiplied by `factor` or raised by `step`.

    Raises:
        UserError: `last` below `first`, or steps that lead nowhere or are too many.
    """
    if last < first:
        raise UserError(f"--maxbytes {last} is less than --minbytes {first}")
    if step is not None:
        if step < 1:
            raise UserError(f"--stepbytes {step} leads nowhere: give 1 or more")
        steps = range(first, last + 1, step)
        return _few(list(steps[: _MOST_SIZES + 1]))
    assert factor is not None
    sizes = [first]
    while (following := max(sizes[-1] + 1, int(sizes[-1] * factor))) <= last:
        sizes.append(following)
        if len(sizes) > _MOST_SIZES:
            break
    return _few(sizes)


def _few(sizes: list[int]) -> list[int]:
    if len(sizes) > _MOST_SIZES:
        raise UserError(
            f"from --minbytes to --maxbytes there are more than {_MOST_SIZES:,} sizes: take "
            "longer steps, by --stepfactor or --stepbytes"
        )
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
    plans = _plans(job, settings)
    if settings.device == "cpu":
        longest = max(settings.sizes_bytes)
        job.agree(lambda: require_room("--maxbytes", longest, job.local_size))
    cells = job.agree(lambda: _cells(settings, arrays, plans, job.size))
    kind = _Sweep if settings.wire.plain else _WireSweep
    run = kind(job, settings, arrays=arrays, cells=cells, plans=plans, show=show)
    hosts = job.all_gather_text(job.host)
    devices = job.all_gather_text(arrays.device)
    run.file = job.keep_on_root(
        lambda: _create(
            settings,
            cells=cells,
            plans=plans,
            itemsize=arrays.kind.itemsize,
            transport=run.transport.name,
            hosts=hosts,
            devices=devices,
        )
    )
    if run.file is None:
        run.run()
        return None
    with run.file:
        rows = run.run()
        wrong = sum(row.wrong or 0 for row in rows)
        run.file.finish(wrong=wrong)
    return rows


def _plans(job: Job, settings: SweepSettings) -> Plans:
    """The schedules of the exchanges, for what travels; collective."""
    for choice in settings.exchanges:
        check_exchange(settings.wire, choice)
    plans = plan_all(job, settings.exchanges)
    return gather_plans(job, plans) if settings.wire.gathers else plans


class _Sweep:
    """The loops over sizes, iterations and candidates."""

    def __init__(
        self,
        job: Job,
        settings: SweepSettings,
        *,
        arrays: Arrays,
        cells: list[list[Cell]],
        plans: Plans,
        show: Callable[[Row], None],
    ) -> None:
        self.job = job
        self.settings = settings
        self.arrays = arrays
        self.cells = cells
        self.plans = plans
        self.show = show
        self.file: RunFile | None = None
        self.open(max(row[0].count for row in cells))

    def open(self, longest: int) -> None:
        """Open transports, allocate and fill for buffers up to so many elements."""
        job, settings = self.job, self.settings
        self.transport = self.library = open_transport(settings.transport, job, self.arrays)
        self.buffer = self.private = self.transport.allocate(longest)
        if any(only_by_library([one]) for one in self.plans.own.values()):
            self.library = library_transport(self.transport, job, self.arrays)
        if self.library is not self.transport:
            self.private = self.library.allocate(longest)
        self.inputs = in_blocks(
            self.arrays,
            longest,
            lambda count, first: fill(count, job.rank, job.size, settings.dtype, first),
        )

    def run(self) -> list[Row]:
        rows = []
        for index, cells in enumerate(self.cells):
            candidates = self.prepare(cells)
            wrong = take_turns(
                self.job,
                self.arrays,
                self.inputs,
                candidates,
                warmup=self.settings.warmup,
                iterations=self.settings.iterations,
                keep=partial(self.keep, index),
            )
            errors = [self.error(candidate) for candidate in candidates]
            if self.file is None:
                continue
            for number, candidate in enumerate(candidates):
                row = self.row(candidate, wrong[number], errors[number])
                self.file["sweep/wrong"][index, number] = (
                    math.nan if row.wrong is None else row.wrong
                )
                if row.error is not None:
                    self.file["sweep/error"][index, number] = row.error
                self.show(row)
                rows.append(row)
        return rows

    def keep(self, index: int, iteration: int, seconds: NDArray[Any]) -> None:
        assert self.file is not None
        self.file["sweep/seconds"][index, :, iteration] = seconds

    def prepare(self, cells: list[Cell]) -> list[_Candidate]:
        candidates = []
        # Candidates with the same workers share the sum: it is as large as the buffer.
        sums: dict[tuple[int, ...], Any] = {}
        for choice, cell in zip(self.settings.exchanges, cells, strict=True):
            own = self.plans.own[cell.specs[0]]
            workers = tuple(cell.workers)
            library = only_by_library([own])
            buffer = (self.private if library else self.buffer)[: cell.count]
            transport = self.library if library else self.transport
            exchange = exchange_over(transport, own, buffer, timeout_s=self.settings.timeout_s)
            expected = None
            if self.settings.check and own.contributes and own.reduces:
                if workers not in sums:
                    sums[workers] = self.sum_of(workers, cell.count)
                expected = sums[workers]
            candidates.append(
                _Candidate(
                    buffer,
                    exchange.run,
                    expected,
                    choice=choice,
                    cell=cell,
                    transport=transport.name,
                )
            )
        return candidates

    def error(self, candidate: _Candidate) -> float | None:
        """How far off a sum is, where it is not exact; collective."""
        return None

    def sum_of(self, workers: tuple[int, ...], count: int) -> Array:
        return in_blocks(
            self.arrays,
            count,
            lambda part, first: total(part, workers, self.job.size, self.settings.dtype, first),
        )

    def row(self, candidate: _Candidate, wrong: int, error: float | None) -> Row:
        ranks = self.job.size
        cell, plans = candidate.cell, self.plans
        size = cell.count * self.arrays.kind.itemsize
        slowest = np.array(candidate.seconds).max(axis=1)
        median = float(np.median(slowest))
        reduces = plans.own[cell.specs[0]].reduces
        # Nothing is exchanged by the floor, so it has no bandwidth.
        rate = size / median / 1e9 if reduces else math.nan
        moved = cell.hottest_bytes(plans)
        return Row(
            exchange=candidate.choice.spec,
            transport=candidate.transport,
            size=size,
            count=cell.count,
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
            bound_bytes=cell.bound_bytes(plans),
            wrong=wrong if self.settings.check and reduces else None,
            wire=self.settings.wire.spec,
            error=error if reduces else None,
        )


class _WireSweep(_Sweep):
    """Of gradients that travel in another form: compression belongs to the time."""

    def open(self, longest: int) -> None:
        self.trials = Trials(
            self.job,
            [cell for row in self.cells for cell in row],
            self.plans,
            device=self.settings.device,
            transport=self.settings.transport,
            timeout_s=self.settings.timeout_s,
        )
        self.transport = self.trials.transport
        self.inputs = self.trials.inputs
        self.buffer = self.arrays.wire_empty(longest)

    def prepare(self, cells: list[Cell]) -> list[_Candidate]:
        candidates = []
        for choice, cell in zip(self.settings.exchanges, cells, strict=True):
            buffer = self.buffer[: cell.count]
            codec = self.trials.codec(cell, buffer)
            candidates.append(
                _Candidate(
                    buffer,
                    codec.exchange if self.job.rank in cell.workers else codec.relay,
                    None,
                    choice=choice,
                    cell=cell,
                    transport=self.trials.transport_of(cell.specs[0]),
                    codec=codec,
                )
            )
        return candidates

    def error(self, candidate: _Candidate) -> float | None:
        assert candidate.codec is not None
        return self.trials.error(candidate.cell, candidate.codec, candidate.buffer)


def _counts(sizes_bytes: Sequence[int], arrays: Arrays) -> list[int]:
    """Whole elements in each size, each count once: 1, 2 and 3 bytes are all no float32."""
    return list(dict.fromkeys(size // arrays.kind.itemsize for size in sizes_bytes))


def _cells(settings: SweepSettings, arrays: Arrays, plans: Plans, ranks: int) -> list[list[Cell]]:
    """What is exchanged, for every size and exchange."""
    return [
        [
            cell_of(
                choice, count, wire=settings.wire, dtype=settings.dtype, plans=plans, ranks=ranks
            )
            for choice in settings.exchanges
        ]
        for count in _counts(settings.sizes_bytes, arrays)
    ]


def _create(
    settings: SweepSettings,
    *,
    cells: list[list[Cell]],
    plans: Plans,
    itemsize: int,
    transport: str,
    hosts: list[str],
    devices: list[str],
) -> RunFile:
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
            sizes_bytes=[row[0].count * itemsize for row in cells],
            exchanges=[choice.spec for choice in settings.exchanges],
            iterations=settings.iterations,
            ranks=len(hosts),
            hottest_rank_bytes=[[one.hottest_bytes(plans) for one in row] for row in cells],
            bound_bytes=[[one.bound_bytes(plans) for one in row] for row in cells],
            algorithms=[[one.algorithm for one in row] for row in cells],
            inexact=not settings.wire.plain,
        ),
    )
