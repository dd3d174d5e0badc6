"""How ranks of one machine begin a measurement together, asleep until the very moment.

A barrier lets ranks go one by one, some of them milliseconds after others where many share few
cores, and keeps the cores busy while it lasts. These ranks have one clock: they agree on a moment.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commbench.job import Job
from commbench.transport.waiting import wait_until

_AHEAD_S = 0.02
_AHEAD_A_RANK_S = 0.5e-3


def agree_on_start(job: Job, longest_sleep_s: float) -> float:
    """Meet all ranks and choose the moment, of `time.monotonic`, at which all begin; collective."""
    told = f"rank {job.rank} on {job.host} waits for all ranks before an exchange"
    wait_until(job.comm.Ibarrier().Test, job.timeout_s, lambda: told)
    ahead_s = _AHEAD_S + _AHEAD_A_RANK_S * job.size + 2 * longest_sleep_s * job.size.bit_length()
    moment = np.array([time.monotonic() + ahead_s])
    wait_until(job.comm.Ibcast(moment, root=0).Test, job.timeout_s, lambda: told)
    return float(moment[0])


def sleep_until(moment: float) -> None:
    """Sleep; wakes at the moment or, where the cores are busy, later."""
    time.sleep(max(0.0, moment - time.monotonic()))


@dataclass(frozen=True)
class Work:
    """What this process has had of the cores so far, in seconds.

    Attributes:
        own_s: on a core.
        late_s: ready to run, but without a core; NaN where the kernel does not tell.
        machine_s: all cores' time spent on anything, by anybody.
    """

    own_s: float
    late_s: float
    machine_s: float

    @classmethod
    def now(cls) -> Work:
        """The counters as they stand."""
        try:
            late_s = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            late_s = float("nan")
        ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        # user nice system idle iowait irq softirq steal: all but the third and fourth are work.
        worked = sum(ticks[:3]) + sum(ticks[5:8])
        return cls(time.process_time(), late_s, worked / os.sysconf("SC_CLK_TCK"))

    def since(self, before: Work) -> tuple[float, float, float]:
        """What has been added, in the order of the attributes."""
        return (
            self.own_s - before.own_s,
            self.late_s - before.late_s,
            self.machine_s - before.machine_s,
        )
