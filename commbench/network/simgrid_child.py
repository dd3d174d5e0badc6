"""One simulation, in a process of its own: SimGrid's state is global, and a platform is made once.

    python -m commbench.network.simgrid_child < job.json > result.json

`network.simgrid` writes the job and reads the result; {"error": ...} is the user's.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from commbench.errors import UserError
from commbench.network import simgrid_platform
from commbench.network.cluster import Cluster, Layout, Link
from commbench.network.placement import renumbered
from commbench.network.program import compile_program, without_collector
from commbench.network.simgrid import import_simgrid
from commbench.network.simgrid_replay import Replay
from commbench.registry import parse_exchange

# Sums of the same bytes in another order.
_ALIKE = 1e-9
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read a job, simulate, write the result."""
    # Whoever asked sees to the time limit, and may be killed itself.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Python's own way to be interrupted waits for SimGrid to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = json.load(sys.stdin)
    try:
        with without_collector():
            result = _simulated(job)
    except UserError as error:
        result = {"error": str(error)}
    json.dump(result, sys.stdout)


def _simulated(job: Mapping[str, Any]) -> dict[str, Any]:
    simgrid = import_simgrid()
    cluster, nodes = _cluster(job["cluster"]), job["nodes"]
    choice = parse_exchange(job["exchange"])
    program = compile_program(choice, len(nodes), renumbered(nodes), each=True)
    engine = simgrid.Engine(["commbench", *simgrid_platform.CONFIGURATION])
    hosts = simgrid_platform.build(simgrid, cluster, nodes)
    replay = Replay(simgrid, program, hosts, job["n_bytes"], cluster)
    seconds = replay.run(engine) if program.senders else 0.0
    sent: dict[tuple[int, int], float] = defaultdict(float)
    for pair, size in zip(
        zip(program.senders, program.receivers, strict=True), replay.sizes, strict=True
    ):
        sent[pair] += size
    name, share = _hottest(simgrid_platform.carried(hosts.ranks, sent), seconds)
    return {
        "seconds": seconds,
        "messages": len(program.senders),
        "hottest_link": name,
        "hottest_share": share,
        "version": simgrid.simgrid_version,
    }


def _hottest(links: Mapping[str, tuple[float, float]], seconds: float) -> tuple[str, float]:
    """The link that is busy for most of the time, and for how much of it."""
    busy = {name: n_bytes / bandwidth for name, (bandwidth, n_bytes) in links.items()}
    if not busy or not seconds:
        return "", 0.0
    # Ports come first: a link beyond is only told where it is busy for longer than any of them.
    most = max(busy.values()) * (1 - _ALIKE)
    name = min((not name.startswith("port"), name) for name in busy if busy[name] >= most)[1]
    return name.replace("_UP", " (up)").replace("_DOWN", " (down)"), busy[name] / seconds


def _cluster(told: Mapping[str, Any]) -> Cluster:
    """As `dataclasses.asdict` told it."""
    layout: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in told["layout"].items()
    }
    links = {key: Link(**told[key]) for key in ("inside", "between")}
    return Cluster(**{**told, **links, "layout": Layout(**layout)})


if __name__ == "__main__":
    main()
