"""Measured times of exchanges on an emulated cluster, kept in a folder and measured only once."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commbench.emulation.layout import Layout
from commbench.emulation.machine import require
from commbench.emulation.settings import Timing, powers_of_two
from commbench.emulation.start import start
from commbench.errors import UserError
from commbench.record import default_path, summary
from commbench.transport.link import Rate

Key = tuple[str, int]


@dataclass(frozen=True)
class Measured:
    """What was measured of one exchange on so many of the hosts.

    Attributes:
        seconds: median over iterations of the slowest rank.
        theory_s: by latency and bandwidth alone.
        cpu_bound: whether this machine's cores decided; then it says nothing about links.
        file: the run file that it is from.
    """

    seconds: float
    theory_s: float
    cpu_bound: bool
    file: Path


def measured(
    hosts: int,
    rate: str,
    exchanges: Sequence[str],
    nbytes: int,
    folder: Path,
    *,
    ranks: Sequence[int] | None = None,
    iterations: int = 3,
    row_seconds: float = 30.0,
    timeout_s: float = 300.0,
    **layout: Any,
) -> dict[Key, Measured]:
    """Times of every exchange on every number of ranks, by (exchange, ranks).

    What a run file in the folder has of the same cluster and buffer is not measured again, also if
    that run was interrupted; the rest is, in one job.

    Args:
        hosts: of the cluster.
        rate: of a host's link, such as "100mbit".
        exchanges: as on the command line, with their options.
        nbytes: length of the buffer, float32.
        folder: of the run files; made if it is not there.
        ranks: how many of the hosts exchange; powers of two by default.
        iterations: at most so many runs of each.
        row_seconds: about so long for each, where an exchange takes long.
        timeout_s: the longest wait for a peer.
        **layout: racks, oversubscription, place, mtu, burst.

    Raises:
        UserError: what is missing cannot be measured here, or a measurement failed.
    """
    cluster = Layout(hosts, Rate(rate), **layout)
    sizes = list(ranks or powers_of_two(hosts))
    wanted = [(exchange, size) for exchange in exchanges for size in sizes]
    found = kept(folder, cluster, nbytes)
    missing = [key for key in wanted if key not in found]
    if missing:
        require()
        timing = Timing(
            layout=cluster,
            exchanges=list(dict.fromkeys(exchange for exchange, _ in missing)),
            ranks=sorted({size for _, size in missing}),
            nbytes=nbytes // 4 * 4,
            iterations=iterations,
            row_seconds=row_seconds,
            timeout_s=timeout_s,
            output=default_path(folder, f"emulate-n{hosts}").resolve(),
            results=folder,
            command_line=sys.argv,
        )
        status = start(cluster, ["-m", "commbench.emulation.ranks", timing.to_json()])
        found = kept(folder, cluster, nbytes)
        if status or any(key not in found for key in wanted):
            raise UserError(
                f"the emulation of {cluster.describe()} ended with status {status}; what it has "
                f"measured is kept in {folder}: call again to go on"
            )
    return {key: found[key] for key in wanted}


def kept(folder: Path, layout: Layout, nbytes: int) -> dict[Key, Measured]:
    """What the run files of a folder have of this cluster and buffer; later files win."""
    found: dict[Key, Measured] = {}
    for path in sorted(folder.glob("*.h5")):
        run = summary(path)
        if not _same(run, layout, nbytes):
            continue
        for row in run["emulation"]:
            if math.isnan(row["wrong"]) or row["wrong"]:  # not all of it was measured, or rightly
                continue
            found[row["exchange"], row["ranks"]] = Measured(
                row["median_s"], row["theory_s"], bool(row["cpu_bound"]), path
            )
    return found


def _same(run: dict[str, Any], layout: Layout, nbytes: int) -> bool:
    if "emulation" not in run:
        return False
    options = {**vars(layout), "rate": str(layout.rate), "nbytes": nbytes // 4 * 4}
    return all(run["options"].get(name) == value for name, value in options.items())
