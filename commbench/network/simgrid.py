"""What an exchange takes on a cluster's wires, with contention: simulated by SimGrid.

`network.cost` prices an exchange as if messages of different nodes never met. Here the same
schedule is replayed on the cluster's layout. docs/SIMULATION.md tells what is modelled.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from commbench.errors import UserError
from commbench.network.cluster import Cluster
from commbench.network.cost import price
from commbench.network.placement import place_ranks, renumbered
from commbench.network.simgrid_platform import require_shape
from commbench.registry import Choice, parse_exchange
from commbench.schedule import AllReduce

# Where Debian puts modules for the system's own Python, which a virtual environment does not see.
_DEBIAN = Path("/usr/lib/python3/dist-packages")
LIMIT_S = 1800.0


class TooLongError(UserError):
    """A simulation did not end within its limit."""


@dataclass(frozen=True)
class Simulated:
    """One exchange, simulated.

    Attributes:
        exchange: what ran, a plain exchange.
        ranks: how many.
        n_bytes: length of the buffer.
        seconds: until the last rank has the sum, with contention.
        predicted_s: the same by `network.cost`, as if messages of different nodes never met.
        messages: of all ranks.
        hottest_link: the one that is busy for most of the time, by SimGrid's name.
        hottest_share: bytes it carries over what it could in that time, 0 to 1.
        wall_s: what it took to simulate.
        version: SimGrid's.
    """

    exchange: str
    ranks: int
    n_bytes: float
    seconds: float
    predicted_s: float
    messages: int
    hottest_link: str
    hottest_share: float
    wall_s: float
    version: str

    @property
    def ratio(self) -> float:
        """How many times longer than predicted; 1 where nothing is."""
        return self.seconds / self.predicted_s if self.predicted_s else 1.0


def find_simgrid() -> Path | None:
    """The file of SimGrid's module for this Python; None where there is none."""
    spec = importlib.util.find_spec("simgrid")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin)
    file = _DEBIAN / f"simgrid{sysconfig.get_config_var('EXT_SUFFIX')}"
    return file if file.exists() else None


def require_simgrid() -> Path:
    """As `find_simgrid`.

    Raises:
        UserError: there is none.
    """
    file = find_simgrid()
    if file is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UserError(
            f"SimGrid is not installed for Python {version}: on Debian 12 (Python 3.11) "
            "apt install python3-simgrid; a virtual environment of that Python finds it there"
        )
    return file


def import_simgrid() -> Any:
    """SimGrid's module, and none of those that lie beside it.

    Raises:
        UserError: there is none, or it is too new to be spoken to in the words of 3.32.
    """
    file = require_simgrid()
    spec = importlib.util.spec_from_file_location("simgrid", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not (hasattr(module.NetZone, "create_torus_zone") and hasattr(module.Comm, "wait_any")):
        raise UserError(
            f"{file} is SimGrid {getattr(module, 'simgrid_version', '')}, which names things "
            "differently: install 3.32, Debian 12's python3-simgrid"
        )
    return module


def simulate(
    exchange: str | Choice,
    ranks: int,
    n_bytes: float,
    cluster: Cluster,
    *,
    place: str = "block",
    seed: int = 0,
    limit_s: float = LIMIT_S,
) -> Simulated:
    """Simulate one exchange of a buffer on a cluster, in a process of its own.

    Args:
        exchange: as on the command line; one by size is simulated as what sums this buffer, and an
            asynchronous one as what moves the same in a step.
        ranks: how many.
        n_bytes: length of the buffer.
        cluster: links, layout, and how fast a rank adds.
        place: one of `PLACES`.
        seed: of a random placement.
        limit_s: the longest that it may take to simulate.

    Raises:
        TooLongError: it takes longer than `limit_s`.
        UserError: SimGrid is missing, an exchange without a schedule or for other numbers of
            ranks, a cluster with fewer, or one of a shape that SimGrid does not know.
    """
    file = require_simgrid()
    require_shape(cluster)
    nodes = place_ranks(cluster, ranks, place, seed)
    choice = parse_exchange(exchange) if isinstance(exchange, str) else exchange
    choice = choice.placed(renumbered(nodes)).scheduled(ranks).for_bytes(int(n_bytes), ranks)
    predicted = price(choice, ranks, n_bytes, cluster, renumbered(nodes))
    job = {
        "exchange": choice.spec,
        "n_bytes": n_bytes,
        "cluster": asdict(cluster),
        "nodes": nodes,
    }
    begun = monotonic()
    told = _run(job, f"{choice.spec} on {ranks} ranks", file, limit_s)
    return Simulated(
        exchange=choice.spec,
        ranks=ranks,
        n_bytes=n_bytes,
        seconds=told["seconds"],
        predicted_s=predicted.seconds,
        messages=told["messages"],
        hottest_link=told["hottest_link"],
        hottest_share=told["hottest_share"],
        wall_s=monotonic() - begun,
        version=told["version"],
    )


def require_schedule(choice: Choice, nodes: Sequence[int]) -> None:
    """Find out early that an exchange cannot be simulated.

    Args:
        choice: any exchange.
        nodes: the node of every rank.

    Raises:
        UserError: it leaves its work to the MPI library, or does not run on so many ranks.
    """
    ranks = len(nodes)
    for part in choice.placed(renumbered(nodes)).scheduled(ranks).parts(ranks):
        schedule = part.schedule(0, ranks)
        if any(isinstance(op, AllReduce) for turn in schedule.rounds for op in turn.ops):
            raise UserError(
                f"exchange {part.spec} leaves its work to the MPI library, which does not tell "
                "what it sends: name another to have it simulated"
            )


def simulate_all(
    cases: Sequence[tuple[Choice, int]], n_bytes: float, cluster: Cluster, **options: Any
) -> Iterator[Simulated | TooLongError]:
    """Simulate exchanges on numbers of ranks, as many at once as there are cores.

    Args:
        cases: which exchange, on how many ranks.
        n_bytes: length of the buffer.
        cluster: links, layout, and how fast a rank adds.
        options: those of `simulate`.

    Yields:
        In the order of `cases`, as soon as it is known, what came out, or that it takes too long.

    Raises:
        UserError: as `simulate`.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        futures: list[Future[Simulated]] = [
            pool.submit(simulate, choice, ranks, n_bytes, cluster, **options)
            for choice, ranks in cases
        ]
        for future in futures:
            try:
                yield future.result()
            except TooLongError as error:
                yield error
    finally:
        pool.shutdown(cancel_futures=True)


def _run(job: dict[str, Any], what: str, file: Path, limit_s: float) -> dict[str, Any]:
    """Hand a job to a child and wait for its result.

    Raises:
        TooLongError: it does not end within its limit.
        UserError: the child found one.
        RuntimeError: SimGrid failed.
    """
    command = [sys.executable, "-m", "commbench.network.simgrid_child"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TooLongError(
            f"{what}: not simulated within {limit_s:g} s; raise the limit, or take fewer ranks"
        ) from None
    if child.returncode:
        last = "\n".join(child.stderr.splitlines()[-20:])
        raise RuntimeError(f"SimGrid ({file}) failed on {what}, status {child.returncode}:\n{last}")
    told: dict[str, Any] = json.loads(child.stdout)
    if "error" in told:
        raise UserError(told["error"])
    return told
