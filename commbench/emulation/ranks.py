"""What every emulated host runs: exchanges timed over the first p ranks, for each p asked for.

`python -m commbench.emulation.ranks TIMING`, one process a host; only `commbench emulate` starts
it. Ranks that have no part in an exchange sleep.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from commbench import environment
from commbench.arrays import Array, NumpyArrays, element_type
from commbench.emulation import checks, rows
from commbench.emulation.meeting import Work, agree_on_start, sleep_until
from commbench.emulation.settings import Timing, emulation_group
from commbench.emulation.switches import carried_bytes
from commbench.emulation.theory import Theory, theory
from commbench.errors import EXIT_BUG
from commbench.exchange import Exchange
from commbench.inputs import fill, in_blocks, total
from commbench.job import Job, mpi_job
from commbench.load import by_library, workers_of
from commbench.record import RunFile, default_path
from commbench.registry import Choice, parse_exchange
from commbench.transport.mpi import MPITransport
from commbench.transport.waiting import be_patient, wait_until
from commbench.turns import turn_order
from commbench.verify import require_proof

_DTYPE, _ITEMSIZE = "float32", 4
# Longer than the transport's own: over slow links nothing is gained by adding one segment while the
# next arrives, and ranks that sleep answer each one late.
_SEGMENT_BYTES = 4 << 20
# Of what is no exchange: connecting, checking sums, whoever else uses the machine.
_SPARE_S = 600.0
_TIMES_THE_THEORY = 20
_IDLE_SLEEP_S = 0.2
# A rank that is through waits for the others at least as long as the links take.
_TIMES_THE_LINKS = 5


@dataclass(frozen=True)
class Plan:
    """What rank 0 tells everybody of one exchange at one number of ranks."""

    workers: list[int]
    expected: Theory | None

    def transfer_s(self) -> float:
        """By bandwidth alone; 0 where the library sums, and nobody knows."""
        return self.expected.transfer_s if self.expected else 0.0


Plans = dict[tuple[str, int], Plan]


def main(arguments: Sequence[str]) -> None:
    """Be one rank."""
    timing = Timing.from_json(arguments[0])
    sys.argv = list(timing.command_line)  # as run files keep it
    with mpi_job(timing.timeout_s) as job:
        choices = job.agree(lambda: [parse_exchange(spec) for spec in timing.exchanges])
        plans = job.on_root(lambda: make_plans(timing, choices))
        found = checks.look(job, timing.layout)
        hosts = job.all_gather_text(job.host)
        file = job.keep_on_root(lambda: _create(timing, plans, found, hosts))
        run = _Timings(job, timing, choices=choices, plans=plans, found=found, file=file)
        if file is None:
            run.run()
        else:
            with file:
                _say(rows.head(timing, found, environment.mpi_library()))
                done = run.run()
                fitted = _fit(done, plans, found)
                file.finish(
                    wrong=sum(row.wrong for row in done),
                    fitted_bytes_per_s=fitted.bytes_per_s,
                    fitted_rows=fitted.rows,
                )
                _say(rows.foot(done, fitted, found.expected_bytes_per_s, file.path))
        if job.on_root(lambda: any(row.wrong for row in run.rows)):
            sys.exit(EXIT_BUG)


def make_plans(timing: Timing, choices: Sequence[Choice]) -> Plans:
    """Prove every exchange at every number of ranks, and price it.

    Raises:
        UserError: an exchange refuses a number of ranks, or is wrong.
    """
    plans: Plans = {}
    count = timing.nbytes // _ITEMSIZE
    for size in timing.ranks:
        for choice in choices:
            part = choice.for_bytes(count * _ITEMSIZE, size)
            schedules = part.schedules(size)
            require_proof(part, schedules)
            unknown = by_library(schedules)
            priced = None if unknown else theory(schedules, count, _ITEMSIZE, timing.layout)
            plans[choice.spec, size] = Plan(workers_of(schedules), priced)
    return plans


@dataclass
class _Cell:
    """One exchange at one number of ranks, as a rank goes on with it."""

    place: tuple[int, int]
    choice: Choice
    plan: Plan
    buffer: Array
    run: Callable[[], None]
    expected: NDArray[np.generic] | None
    repeats: int
    seconds: list[float] = field(default_factory=list)
    work: list[NDArray[np.float64]] = field(default_factory=list)
    carried: list[NDArray[np.float64]] = field(default_factory=list)
    wrong: int = 0


class _Timings:
    """The loops over numbers of ranks, iterations and exchanges."""

    def __init__(
        self,
        job: Job,
        timing: Timing,
        *,
        choices: Sequence[Choice],
        plans: Plans,
        found: checks.Found,
        file: RunFile | None,
    ) -> None:
        self.job = job
        self.timing = timing
        self.choices = choices
        self.plans = plans
        self.found = found
        self.file = file
        self.count = timing.nbytes // _ITEMSIZE
        self.cores = len(os.sched_getaffinity(0))
        self.rows: list[rows.Row] = []
        self.arrays = NumpyArrays(element_type(_DTYPE))
        known = [one.transfer_s() for one in plans.values()]
        runs = timing.iterations + 1
        #: How long ranks may have to wait for those that exchange.
        self.patience_s = _SPARE_S + _TIMES_THE_THEORY * runs * sum(known)

    def run(self) -> list[rows.Row]:
        """Time everything; rank 0 gets the rows."""
        for number, size in enumerate(self.timing.ranks):
            self.job.barrier()
            member = self.job.rank < size
            comm = self.job.comm.Split(0 if member else MPI.UNDEFINED, self.job.rank)
            if member:
                assert isinstance(comm, MPI.Intracomm)
                part = Job(comm, self._timeout_s(size))
                self._size(part, number, size)
                part.close()
            # Whoever has nothing to do must not take the cores from those who have.
            be_patient(_IDLE_SLEEP_S)
            wait_until(self.job.comm.Ibarrier().Test, self.patience_s, self._waits)
        return self.rows

    def _timeout_s(self, size: int) -> float:
        longest = max(self.plans[choice.spec, size].transfer_s() for choice in self.choices)
        return self.timing.timeout_s + _TIMES_THE_LINKS * longest

    def _waits(self) -> str:
        return f"rank {self.job.rank} on {self.job.host} waits for the ranks that exchange"

    def _size(self, part: Job, number: int, size: int) -> None:
        transport = MPITransport(part, self.arrays)
        buffer = transport.allocate(self.count)
        own = in_blocks(
            self.arrays,
            self.count,
            lambda count, first: fill(count, part.rank, size, _DTYPE, first),
        )
        cells = [
            self._cell(part, transport, buffer, (index, number))
            for index in range(len(self.choices))
        ]
        order = [
            cells[index]
            for iteration in range(self.timing.iterations)
            for index in turn_order(iteration, len(cells))
            if iteration < cells[index].repeats
        ]
        for cell in order:
            self._once(part, own, cell)
        for cell in cells:
            wrong = int(part.all_sum(np.array([cell.wrong]))[0])
            if self.file is not None:
                self._keep(self._row(cell, size, wrong), cell, size)

    def _cell(
        self, part: Job, transport: MPITransport, buffer: Array, place: tuple[int, int]
    ) -> _Cell:
        choice, size = self.choices[place[0]], part.size
        plan = self.plans[choice.spec, size]
        schedule = choice.for_bytes(self.count * _ITEMSIZE, size).schedule(part.rank, size)
        self._suit_waits(plan, size)
        # The first message between two ranks opens their connection: short ones do that as well.
        short = transport.allocate(min(self.count, 16 * size))
        first = Exchange(schedule, short, transport, timeout_s=part.timeout_s)
        part.barrier()
        first.run()
        expected = None
        if schedule.contributes and schedule.reduces:
            expected = in_blocks(
                self.arrays,
                self.count,
                lambda count, first: total(count, plan.workers, size, _DTYPE, first),
            )
        exchange = Exchange(
            schedule,
            buffer,
            transport,
            timeout_s=part.timeout_s,
            segment_bytes=_SEGMENT_BYTES,
        )
        repeats = self.timing.repeats(plan.transfer_s())
        return _Cell(place, choice, plan, buffer, exchange.run, expected, repeats)

    def _suit_waits(self, plan: Plan, size: int) -> float:
        shortest = plan.expected.shortest_message_bytes if plan.expected else self.timing.nbytes
        message_s = shortest / self.found.expected_bytes_per_s
        sleep_s = self.timing.sleep_s(size, message_s)
        be_patient(sleep_s)
        return sleep_s

    def _once(self, part: Job, own: Array, cell: _Cell) -> None:
        """One exchange, timed from the common start to this rank's own end."""
        self.arrays.assign(cell.buffer, own)
        sleep_s = self._suit_waits(cell.plan, part.size)
        before = carried_bytes(self.timing.layout) if self.file is not None else []
        start = agree_on_start(part, sleep_s)
        sleep_until(start)
        work = Work.now()
        cell.run()
        seconds = time.monotonic() - start
        done = [seconds, *Work.now().since(work)]
        if cell.expected is not None:
            cell.wrong += self.arrays.differences(cell.buffer, cell.expected)
        everyone = part.gather(np.array(done))
        if everyone is not None and self.file is not None:
            self.file["emulation/seconds"][(*cell.place, len(cell.seconds))][: part.size] = (
                everyone[:, 0]
            )
            cell.seconds.append(float(everyone[:, 0].max()))
            cell.work.append(everyone[:, 1:])
            after = carried_bytes(self.timing.layout)
            cell.carried.append(np.subtract(after, before)[: part.size].astype(float))

    def _row(self, cell: _Cell, size: int, wrong: int) -> rows.Row:
        work, seconds = np.array(cell.work), np.array(cell.seconds)  # (iterations, ranks, 3)
        cores_s = self.cores * seconds.sum()
        expected = cell.plan.expected
        needed = sum(expected.received_bytes) if expected else 0
        carried = float(np.mean(cell.carried, axis=0).sum())
        return rows.Row(
            exchange=cell.choice.spec,
            ranks=size,
            seconds=cell.seconds,
            theory_s=expected.seconds(self.found.latency_s) if expected else math.nan,
            cpu_share=float(work[:, :, 0].sum() / cores_s),
            late_share=float(work[:, :, 1].mean(axis=1).sum() / seconds.sum()),
            # All ranks see the same machine; the slowest has seen all of the exchange.
            machine_share=float(work[:, :, 2].max(axis=1).sum() / cores_s),
            wire=carried / needed if needed else math.nan,
            wrong=wrong,
        )

    def _keep(self, row: rows.Row, cell: _Cell, size: int) -> None:
        assert self.file is not None
        for name in ("cpu_share", "late_share", "machine_share", "cpu_bound", "wrong"):
            self.file[f"emulation/{name}"][cell.place] = getattr(row, name)
        self.file["emulation/carried_bytes"][cell.place][:size] = np.mean(cell.carried, axis=0)
        self.rows.append(row)
        _say([row.line()])


def _fit(done: Sequence[rows.Row], plans: Plans, found: checks.Found) -> rows.Fit:
    latencies = []
    for row in done:
        expected = plans[row.exchange, row.ranks].expected
        latencies.append(expected.levels * found.latency_s if expected else 0.0)
    return rows.fit(done, latencies, found.expected_bytes_per_s)


def _create(timing: Timing, plans: Plans, found: checks.Found, hosts: list[str]) -> RunFile:
    path = timing.output or default_path(timing.results, f"emulate-n{timing.layout.hosts}")
    table = [[plans[spec, size] for size in timing.ranks] for spec in timing.exchanges]

    def received(plan: Plan, size: int) -> list[float]:
        known = plan.expected.received_bytes if plan.expected else [math.nan] * size
        return [*map(float, known), *[0.0] * (timing.layout.hosts - size)]

    return RunFile.create(
        path,
        unique=timing.output is None,
        kind="emulate",
        seed=0,
        hosts=hosts,
        devices=["cpu"] * len(hosts),
        options=timing.as_options(),
        attributes={
            "ranks": timing.layout.hosts,
            "transport": "mpi",
            "dtype": _DTYPE,
            "emulated": timing.layout.describe(),
            "rate_bits_per_s": int(timing.layout.rate),
            "expected_bytes_per_s": found.expected_bytes_per_s,
            "pingpong_bytes_per_s": found.bytes_per_s,
            "latency_s": found.latency_s,
            "network_namespaces": found.namespaces,
        },
        groups=[
            emulation_group(
                timing,
                theory_s=[
                    [p.expected.seconds(found.latency_s) if p.expected else math.nan for p in line]
                    for line in table
                ],
                received_bytes=[
                    [received(p, size) for p, size in zip(line, timing.ranks, strict=True)]
                    for line in table
                ],
            )
        ],
    )


def _say(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
