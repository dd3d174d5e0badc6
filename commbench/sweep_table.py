"""The rows of a sweep, and the table they are printed in: nccl-tests' columns, and our own.

algbw = S/t and busbw = algbw * 2(p-1)/p are nccl-tests'. That factor is the least an all-reduce can
move through a rank's link, and what a ring moves; a tree or a parameter server moves more. So each
row also has the bytes through its own hottest rank, and linkbw = the rate at which that rank's link
really ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """The outcome for one size and exchange.

    Attributes:
        exchange, transport, dtype: what was run.
        size: bytes of the buffer; `count` its elements.
        time_us: min, median, p99 and max over iterations of the slowest rank's time.
        alg_bw, bus_bw, link_bw: GB/s (1e9) from the median; NaN for `none`, and link_bw for
            `native`.
        hottest_bytes: sent or received by the busiest rank, the greater; NaN for `native`.
        bound_bytes: the least any all-reduce can move through its busiest rank.
        wrong: elements with a wrong sum over all ranks and iterations; None if not checked.
        wire: the form in which buffers travel.
        error: how far off the sum is, relative to the exact one; None of float32 and others that
            are summed as they are.
    """

    exchange: str
    transport: str
    size: int
    count: int
    dtype: str
    time_us: dict[str, float]
    alg_bw: float
    bus_bw: float
    link_bw: float
    hottest_bytes: float
    bound_bytes: float
    wrong: int | None
    wire: str = "float32"
    error: float | None = None


_NAME_WIDTH = 24


def name_width(exchanges: Iterable[str]) -> int:
    """The width of the column that holds the names of all exchanges."""
    return max(_NAME_WIDTH, *(len(name) for name in exchanges))


def table_header(
    facts: Mapping[str, object], width: int = _NAME_WIDTH, inexact: bool = False
) -> Iterator[str]:
    """The ``#`` lines before the rows, the names of exchanges `width` characters wide."""
    for name, value in facts.items():
        yield f"# {name}: {value}"
    yield "#"
    yield (
        f"#{'size':>11} {'count':>11} {'type':>9} {'redop':>6} {'root':>5} {'exchange':<{width}}"
        f" {'min':>10} {'median':>10} {'p99':>10} {'max':>10}"
        f" {'algbw':>8} {'busbw':>8} {'hottest':>8} {'bound':>6} {'linkbw':>8} {'#wrong':>7}"
        + (f" {'error':>9}" if inexact else "")
    )
    yield (
        f"#{'(B)':>11} {'(elements)':>11} {'':>9} {'':>6} {'':>5} {'':<{width}}"
        f" {'(us)':>10} {'(us)':>10} {'(us)':>10} {'(us)':>10}"
        f" {'(GB/s)':>8} {'(GB/s)':>8} {'(x size)':>8} {'(x)':>6} {'(GB/s)':>8} {'':>7}"
        + (f" {'(x sum)':>9}" if inexact else "")
    )


def table_row(row: Row, width: int = _NAME_WIDTH) -> str:
    """One line of the table."""

    def number(value: float, wide: int, digits: int = 2) -> str:
        return f"{'N/A':>{wide}}" if math.isnan(value) else f"{value:>{wide}.{digits}f}"

    times = " ".join(number(row.time_us[name], 10, 1) for name in ("min", "median", "p99", "max"))
    hottest = row.hottest_bytes / row.size if row.size else math.nan
    bound = row.bound_bytes / row.size if row.size else math.nan
    wrong = "N/A" if row.wrong is None else str(row.wrong)
    return (
        f" {row.size:>11} {row.count:>11} {row.dtype:>9} {'sum':>6} {-1:>5} {row.exchange:<{width}}"
        f" {times} {number(row.alg_bw, 8)} {number(row.bus_bw, 8)} {number(hottest, 8)}"
        f" {number(bound, 6)} {number(row.link_bw, 8)} {wrong:>7}"
        + ("" if row.error is None else f" {row.error:>9.2e}")
    )


def table_footer(rows: Sequence[Row]) -> Iterator[str]:
    """The lines after the rows."""
    wrong = sum(row.wrong or 0 for row in rows)
    checked = any(row.wrong is not None for row in rows)
    verdict = ("OK" if wrong == 0 else "FAILED") if checked else "not checked"
    yield f"# Out of bounds values : {wrong} {verdict}"
    rates = [row.bus_bw for row in rows if not math.isnan(row.bus_bw)]
    yield f"# Avg bus bandwidth    : {np.mean(rates) if rates else math.nan:.4f}"
