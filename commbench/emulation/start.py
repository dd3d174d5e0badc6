"""Starts a program on every host of an emulated cluster, from an ordinary process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from commbench.emulation.inside import HIDDEN
from commbench.emulation.layout import Layout
from commbench.emulation.machine import run_inside
from commbench.errors import UserError

# Tells every process on an emulated host, and its run file, what it is on.
ENVIRONMENT = "COMMBENCH_EMULATED"
# How waits and sends are suited to slow links: of `transport.waiting` and `transport.mpi`.
_LONGEST_SLEEP, _IN_TURN = "COMMBENCH_LONGEST_SLEEP_S", "COMMBENCH_SEND_IN_TURN_S"
_SEGMENT_BYTES = 1 << 20
# Ranks meet over the links alone: they have no memory in common, and no warm interpreter, whose
# socket belongs to one network.
_ON_HOSTS = {
    **{f"COMMBENCH_{name}_TRANSPORT": "mpi" for name in ("TRAIN", "SWEEP", "TUNE")},
    "COMMBENCH_TRAIN_WARM_START": "off",
}


def start(layout: Layout, arguments: Sequence[str]) -> int:
    """Run this Python with these arguments on every host, under mpirun; the exit status.

    Raises:
        UserError: files of this process would be out of reach.
    """
    for path in (Path.cwd(), Path(sys.executable)):
        require_in_reach(path)
    environ = {**_ON_HOSTS, **suited(layout), **os.environ, ENVIRONMENT: layout.describe()}
    inside = [sys.executable, "-m", "commbench.emulation.inside", layout.to_json()]
    return run_inside([*inside, sys.executable, *arguments], environ)


def require_in_reach(path: Path) -> None:
    """Refuse a path that is another on the hosts.

    Raises:
        UserError: it is in a folder that the hosts have of their own, and lose in the end.
    """
    for hidden in HIDDEN:
        if path.resolve().is_relative_to(hidden):
            raise UserError(
                f"{path} is out of reach of emulated hosts, which have a {hidden} of their own: "
                "use another folder"
            )


def suited(layout: Layout) -> dict[str, str]:
    """The variables that suit waits and sends to the links."""
    cores = len(os.sched_getaffinity(0))
    # A tenth of what the link needs for the kernel's buffers; but a hundred ranks poll less often.
    buffered_s = (128 << 10) / layout.rate.bytes_per_s
    sleep_s = max(layout.hosts * 30e-6, min(1e-3, buffered_s / 10), 50e-6)
    segment_s = _SEGMENT_BYTES / layout.rate.bytes_per_s
    return {
        _LONGEST_SLEEP: f"{sleep_s:.6f}",
        _IN_TURN: f"{max(1.0, 8 * segment_s):.3f}",
        "OMP_NUM_THREADS": str(max(1, cores // layout.hosts)),
    }
