"""The rows of an emulated run: what was measured, beside what the links alone would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from commbench.emulation.checks import Found
from commbench.emulation.settings import MOST_CPU_SHARE, MOST_LATE_SHARE, Timing

NETWORK, CPU = "network-bound", "CPU-bound"
# What a link should carry of its rate before exchanges over it are worth timing.
_GOOD = 0.9
_HEAD = (
    f"# {'exchange':<24} {'p':>4} {'seconds':>10} {'from':>10} {'to':>10} {'n':>3} {'theory':>10} "
    f"{'ratio':>6} {'CPU':>5} {'late':>5} {'all':>5} {'wire':>6}  bound by"
)


@dataclass(frozen=True)
class Row:
    """One exchange over the first `ranks` hosts.

    Attributes:
        exchange: with its options.
        ranks: p.
        seconds: of every iteration, the slowest rank's; at least one.
        theory_s: by latency and bandwidth alone; NaN where the MPI library sums.
        cpu_share: the ranks' own share of all cores.
        late_share: how much of the time ranks were ready and had no core; NaN if unknown.
        machine_share: the share of all cores in use by anybody.
        wire: bytes that the shaped links carried over those that the schedule says; NaN if unknown.
        wrong: elements found wrong.
    """

    exchange: str
    ranks: int
    seconds: Sequence[float]
    theory_s: float
    cpu_share: float
    late_share: float
    machine_share: float
    wire: float
    wrong: int

    @property
    def median_s(self) -> float:
        """The median over the iterations."""
        return median(self.seconds)

    @property
    def ratio(self) -> float:
        """Measured over theory."""
        return self.median_s / self.theory_s if self.theory_s else math.nan

    @property
    def cpu_bound(self) -> bool:
        """Whether the cores decide, and not the links."""
        return self.cpu_share > MOST_CPU_SHARE or self.late_share > MOST_LATE_SHARE

    def line(self) -> str:
        """As the table has it."""
        return (
            f"  {self.exchange:<24} {self.ranks:>4} {self.median_s:>10.4f} "
            f"{min(self.seconds):>10.4f} {max(self.seconds):>10.4f} {len(self.seconds):>3} "
            f"{_or_dash(self.theory_s, '10.4f')} {_or_dash(self.ratio, '6.2f')} "
            f"{100 * self.cpu_share:>4.0f}% {_or_dash(100 * self.late_share, '4.0f')}% "
            f"{100 * self.machine_share:>4.0f}% {_or_dash(self.wire, '6.3f')}  "
            f"{CPU if self.cpu_bound else NETWORK}{' WRONG' if self.wrong else ''}"
        )


def head(timing: Timing, found: Found, library: str) -> list[str]:
    """What is printed before the rows, the checks among it."""
    layout = timing.layout
    ratio = found.bytes_per_s / found.path_bytes_per_s
    short = "" if not ratio < _GOOD else ": links too fast for this machine, or it has other work"
    return [
        f"# {layout.describe()}, MTU {layout.mtu}, burst {layout.burst}; {library} over TCP",
        f"# buffer: {timing.nbytes} bytes; theory from the schedules' counts, "
        f"{found.expected_bytes_per_s / 1e6:.3f} MB/s a link net of headers and "
        f"{1e6 * found.latency_s:.0f} us a message",
        f"# check: {len(set(found.namespaces))} network namespaces for {layout.hosts} ranks",
        f"# check: {found.bytes_per_s / 1e6:.3f} MB/s between two hosts, {ratio:.3f} of what "
        f"the links between them carry{short}",
        "#",
        _HEAD,
        f"# {'':<24} {'':>4} {'median (s)':>10} {'(s)':>10} {'(s)':>10} {'':>3} {'(s)':>10} "
        f"{'':>6} {'own':>5} {'':>5} {'':>5} {'(x)':>6}",
    ]


@dataclass(frozen=True)
class Fit:
    """The speed of a link that fits the network-bound rows best; NaN where there is none."""

    bytes_per_s: float
    rows: int


def fit(rows: Sequence[Row], latency_levels_s: Sequence[float], expected: float) -> Fit:
    """Least squares of log(measured / theory) over network-bound rows; latencies are left out.

    Args:
        rows: all rows.
        latency_levels_s: of each row, the part of its theory that no bandwidth would shorten.
        expected: the speed that the theory was made with, in bytes a second.
    """
    ratios = [
        (row.median_s - latency_s) / (row.theory_s - latency_s)
        for row, latency_s in zip(rows, latency_levels_s, strict=True)
        if not row.cpu_bound and not row.wrong and row.theory_s > latency_s
    ]
    good = [ratio for ratio in ratios if ratio > 0]
    if not good:
        return Fit(math.nan, 0)
    return Fit(expected / float(np.exp(np.mean(np.log(good)))), len(good))


def foot(rows: Sequence[Row], fitted: Fit, expected: float, path: Path) -> list[str]:
    """What is printed after the rows."""
    bound = sum(row.cpu_bound for row in rows)
    lines = ["#"]
    if fitted.rows:
        lines.append(
            f"# fitted over {fitted.rows} network-bound rows: {fitted.bytes_per_s / 1e6:.3f} MB/s "
            f"a link, {fitted.bytes_per_s / expected:.3f} of what it carries"
        )
    if bound:
        lines.append(
            f"# {bound} of {len(rows)} rows are CPU-bound and left out of the fit: more than "
            f"{MOST_CPU_SHARE:.0%} of the cores in use by the ranks, or ranks that waited for a "
            f"core more than {MOST_LATE_SHARE:.0%} of the time"
        )
    lines.append(f"# {path}")
    return lines


def _or_dash(value: float, form: str) -> str:
    width = int(form.partition(".")[0])
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:{form}}"
