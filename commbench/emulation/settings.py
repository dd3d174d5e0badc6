"""What is timed on the emulated hosts, and the tables of the run file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from commbench.emulation.layout import Layout
from commbench.record import Group, Variable

# What one rank may have of a core before an exchange is bound by it and not by the network: half of
# all cores, or a fifth of the time spent waiting for one.
MOST_CPU_SHARE = 0.5
MOST_LATE_SHARE = 0.2


@dataclass(frozen=True)
class Timing:
    """The options of `commbench emulate`; its `--help` tells what each means."""

    layout: Layout
    exchanges: list[str]
    ranks: list[int]
    nbytes: int
    iterations: int
    row_seconds: float
    timeout_s: float
    output: Path | None
    results: Path
    command_line: list[str]

    def repeats(self, theory_s: float) -> int:
        """How often an exchange is timed: less often where it takes long."""
        if not theory_s > 0:  # nothing is sent, or nobody knows what
            return self.iterations
        return max(1, min(self.iterations, int(self.row_seconds / theory_s)))

    def sleep_s(self, ranks: int, message_s: float) -> float:
        """How late a wait may end: little beside a message, but a hundred ranks poll less often."""
        return max(ranks * 30e-6, min(2e-3, message_s / 25), 50e-6)

    def as_options(self) -> dict[str, object]:
        """Every option by name, as files store them."""
        options = {**asdict(self), **asdict(self.layout)}
        del options["layout"], options["command_line"]
        return {
            **options,
            "rate": str(self.layout.rate),
            "output": str(self.output or ""),
            "results": str(self.results),
        }

    def to_json(self) -> str:
        """For the ranks; `from_json` reads it."""
        plain = {**asdict(self), "layout": self.layout.to_json()}
        return json.dumps(plain, default=str)

    @classmethod
    def from_json(cls, text: str) -> Timing:
        """What `to_json` gave."""
        values = json.loads(text)
        output = values["output"]
        return cls(
            **{
                **values,
                "layout": Layout.from_json(values["layout"]),
                "output": None if output is None else Path(output),
                "results": Path(values["results"]),
            }
        )


def powers_of_two(hosts: int) -> list[int]:
    """2, 4, 8, ... up to the number of hosts."""
    return [1 << power for power in range(1, hosts.bit_length()) if 1 << power <= hosts]


def emulation_group(
    timing: Timing,
    *,
    theory_s: Sequence[Sequence[float]],
    received_bytes: Sequence[Sequence[Sequence[float]]],
) -> Group:
    """The one group of an emulated run, /emulation.

    To fill: `emulation/seconds` (exchanges, sizes, iterations, ranks), of idle ranks and where an
    exchange was not timed so often left NaN; `emulation/carried_bytes` (exchanges, sizes, ranks);
    and `emulation/{cpu_share,late_share,machine_share,cpu_bound,wrong}` (exchanges, sizes).

    Args:
        timing: the options.
        theory_s: (exchanges, sizes).
        received_bytes: (exchanges, sizes, ranks), counted from the schedules.
    """
    row = ("exchange", "ranks")
    return Group(
        "emulation",
        {
            "exchange": Variable(
                ("exchange",), "exchange and options", data=np.array(timing.exchanges, str)
            ),
            "ranks": Variable(
                ("ranks",), "ranks that take part, the first ones", data=np.array(timing.ranks)
            ),
            "iteration": Variable(
                ("iteration",), "timed iteration, from 0", data=np.arange(timing.iterations)
            ),
            "rank": Variable(("rank",), "MPI rank", data=np.arange(timing.layout.hosts)),
            "seconds": Variable(
                (*row, "iteration", "rank"),
                "time from the common start of an exchange to the rank's own end",
                "s",
            ),
            "theory_s": Variable(
                row, "time by latency and bandwidth alone", "s", data=np.asarray(theory_s, float)
            ),
            "received_bytes": Variable(
                (*row, "rank"),
                "bytes the rank receives in one exchange, counted from the schedule",
                "byte",
                data=np.asarray(received_bytes, float),
            ),
            "carried_bytes": Variable(
                (*row, "rank"),
                "bytes that the shaped link to the rank's host carried, an exchange, with headers",
                "byte",
            ),
            "cpu_share": Variable(row, "the ranks' own share of all cores, mean of iterations"),
            "late_share": Variable(
                row, "share of the time that the ranks were ready but without a core, mean"
            ),
            "machine_share": Variable(row, "share of all cores in use by anybody"),
            "cpu_bound": Variable(row, "1 where the cores and not the links decide, else 0"),
            "wrong": Variable(row, "elements found wrong, all ranks together"),
        },
    )
