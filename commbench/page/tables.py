"""The page's tables: every number of the charts, to be read, sorted and copied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from commbench.figures.style import bytes_text, seconds_text
from commbench.page.sweep_charts import lines, reference
from commbench.report import Report, Timing, Training
from commbench.resampling import Estimate, median


@dataclass(frozen=True)
class Cell:
    """Text, and the number that a column is sorted by; NaN of words."""

    text: str
    value: float = math.nan


@dataclass(frozen=True)
class Row:
    """Cells from the left, and the exchange that they are about."""

    cells: list[Cell]
    exchange: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        id: of the element.
        title: above it.
        note: below it.
        texts: headings of the first columns, which hold words.
        numbers: headings of the others.
        rows: as many cells each.
    """

    id: str
    title: str
    note: str
    texts: list[str]
    numbers: list[str]
    rows: list[Row] = field(default_factory=list)


def training_tables(runs: Sequence[Training]) -> Iterator[Table]:
    """Summary, phases, headroom, slowest rank, wire; those for which there are numbers."""
    if not runs:
        return
    yield _summary(runs)
    phases = list(dict.fromkeys(name for run in runs for name in run.steps.phase_s))
    if phases:
        yield Table(
            "phase-table",
            "Phases of a step",
            "Median over steps of the mean over ranks with data, with its 95 % interval; exchange "
            "is what backward does not hide.",
            ["run"],
            phases,
            [
                Row(
                    [
                        Cell(run.label),
                        *(
                            _seconds(median(run.steps.phase_s[name]))
                            if name in run.steps.phase_s
                            else _none()
                            for name in phases
                        ),
                    ],
                    run.exchange,
                )
                for run in runs
            ],
        )
    climbed = [run for run in runs if "headroom_s" in run.facts]
    if climbed:
        yield _headroom(climbed)
    moved = [run for run in runs if run.facts.get("buckets")]
    if moved:
        yield _wire(moved)


def _summary(runs: Sequence[Training]) -> Table:
    headings = [
        "ranks",
        "batch",
        "step",
        "images/s",
        "exposed exchange",
        "top-1",
        "top-5",
        "training",
    ]
    rows = []
    for run in runs:
        steps, ends = run.steps, run.evaluations
        exposed = median(steps.phase_s["exchange"]) if "exchange" in steps.phase_s else None
        rate = median(steps.images_per_s)
        rows.append(
            Row(
                [
                    Cell(run.label),
                    *(Cell(str(run.task.get(name, "-"))) for name in ("model", "data")),
                    Cell(str(run.ranks), run.ranks),
                    _count(run.task.get("global_batch", math.nan)),
                    _seconds(median(steps.step_s)),
                    Cell(rate.text(1), rate.value),
                    _seconds(exposed) if exposed else _none(),
                    *(_percent(ends[name]) for name in ("top1", "top5")),
                    Cell(f"{ends['time_s'][-1]:.1f} s", ends["time_s"][-1])
                    if len(ends["time_s"])
                    else _none(),
                ],
                run.exchange,
            )
        )
    return Table(
        "training-table",
        "Trainings",
        "Medians over steps, the first left out, with 95 % intervals: bootstrapped by blocks of "
        "neighbouring steps. Accuracy is that of the last evaluation.",
        ["run", "model", "data"],
        headings,
        rows,
    )


def _headroom(runs: Sequence[Training]) -> Table:
    rungs = runs[0].facts["headroom_rungs"]
    rows = []
    for run in runs:
        seconds, facts = run.facts["headroom_s"], run.facts
        ladder = [
            Cell(f"{seconds_text(1e6 * rung)} (+{rung / seconds[0] - 1:.1%})", rung)
            if number
            else Cell(seconds_text(1e6 * rung), rung)
            for number, rung in enumerate(seconds)
        ]
        rows.append(
            Row(
                [
                    Cell(run.label),
                    *ladder,
                    Cell(seconds_text(1e6 * facts["waiting_s"]), facts["waiting_s"]),
                    Cell(
                        f"rank {facts['slowest_rank']}, {facts['slowest_rank_share']:.0%} of steps",
                        facts["slowest_rank_share"],
                    ),
                ],
                run.exchange,
            )
        )
    return Table(
        "headroom-table",
        "Headroom, and the slowest rank",
        "Means over steps and ranks with data. Waiting is for the slowest rank's gradient, and a "
        "part of the measured step.",
        ["run"],
        [*rungs, "waiting", "last was"],
        rows,
    )


def _wire(runs: Sequence[Training]) -> Table:
    rows = []
    for run in runs:
        buckets = run.facts["buckets"]
        size, hottest, bound = (
            sum(bucket[name] for bucket in buckets)
            for name in ("bytes", "hottest_rank_bytes", "bound_bytes")
        )
        algorithms = dict.fromkeys(bucket["algorithm"] for bucket in buckets)
        rows.append(
            Row(
                [
                    Cell(run.label),
                    Cell(", ".join(algorithms)),
                    Cell(str(len(buckets)), len(buckets)),
                    _bytes(run.facts.get("gradient_bytes", math.nan)),
                    _bytes(size),
                    _bytes(hottest),
                    _bytes(bound),
                    Cell(f"{hottest / bound:.2f}", hottest / bound)
                    if bound and np.isfinite(hottest)
                    else _none(),
                ],
                run.exchange,
            )
        )
    return Table(
        "wire-table",
        "Bytes of a step",
        "Counted from the schedules that ran: what the busiest rank sends or receives, the "
        "greater, and the least that any all-reduce moves through its busiest rank. The MPI "
        "library does not tell of its own.",
        ["run", "exchange"],
        ["buckets", "gradient", "exchanged", "busiest rank", "least possible", "times that"],
        rows,
    )


def sweep_tables(report: Report) -> Iterator[Table]:
    """One table for each transport, element type and device."""
    for number, setting in enumerate(dict.fromkeys(one.setting for one in report.timings)):
        timings = [one for one in report.timings if one.setting == setting]
        yield _sweep(f"sweep-table-{number}", timings, setting)


def _sweep(element: str, timings: Sequence[Timing], setting: str) -> Table:
    own = reference(list(dict.fromkeys(timing.exchange for timing in timings)))
    bases = {
        (cell.ranks, cell.size): cell
        for (_, exchange), cells in lines(timings).items()
        for cell in cells
        if exchange == own
    }
    headings = ["ranks", "size", "times", "median", "min", "p99", f"over {own or 'others'}"]
    rows = []
    for one in sorted(timings, key=lambda one: (one.ranks, one.size)):
        time = one.time_us()
        base = bases.get((one.ranks, one.size))
        held = base is not None and one.exchange not in (own, "none")
        ratio = one.over(base) if base is not None and held else None
        factor = 2 * (one.ranks - 1) / one.ranks
        bandwidth = factor * one.size / time["median"] / 1e3 if one.exchange != "none" else math.nan
        rows.append(
            Row(
                [
                    Cell(one.exchange),
                    Cell(str(one.ranks), one.ranks),
                    _bytes(one.size),
                    Cell(str(len(one.slowest_s)), len(one.slowest_s)),
                    _seconds(one.median_us().scaled(1e-6)),
                    *(Cell(seconds_text(time[name]), time[name]) for name in ("min", "p99")),
                    Cell(ratio.text(), ratio.value) if ratio else _none(),
                    _none() if math.isnan(bandwidth) else Cell(f"{bandwidth:.2f}", bandwidth),
                    _bytes(one.hottest_bytes),
                    _count(one.wrong),
                ],
                one.exchange,
            )
        )
    return Table(
        element,
        f"Sweep ({setting})",
        "Of the slowest rank in each iteration, medians with 95 % intervals; ratios are paired, "
        "turn by turn. busbw is nccl-tests' (S/t) 2(p-1)/p, in GB/s.",
        ["exchange"],
        [*headings, "busbw", "busiest rank", "wrong"],
        rows,
    )


def _seconds(estimate: Estimate) -> Cell:
    if math.isnan(estimate.value):
        return _none()
    text = seconds_text(1e6 * estimate.value)
    if math.isfinite(estimate.high):
        low, high = (seconds_text(1e6 * bound) for bound in (estimate.low, estimate.high))
        # The unit once, where it is the same.
        if low.split()[1] == high.split()[1]:
            low = low.split()[0]
        text += f" ({low} to {high})"
    return Cell(text, estimate.value)


def _bytes(size: float) -> Cell:
    return _none() if math.isnan(size) else Cell(bytes_text(size), size)


def _count(value: float) -> Cell:
    return _none() if math.isnan(value) else Cell(f"{value:,.0f}", value)


def _percent(values: NDArray[np.float64]) -> Cell:
    return Cell(f"{values[-1]:.2%}", values[-1]) if len(values) else _none()


def _none() -> Cell:
    return Cell("-")
