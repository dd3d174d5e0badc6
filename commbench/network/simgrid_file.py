"""The run file of `commbench simulate`: one number for each exchange and number of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from commbench import environment
from commbench.network.cluster import Cluster
from commbench.network.simgrid import Simulated
from commbench.record import Group, RunFile, Variable

_NUMBERS = {
    "seconds": ("time of one exchange, simulated", "s"),
    "predicted_s": ("time of one exchange if messages of different nodes never met", "s"),
    "messages": ("messages sent by all ranks", "1"),
    "hottest_share": ("part of the time for which the busiest link is busy", "1"),
    "wall_s": ("time it took to simulate", "s"),
}


class SimulationFile:
    """Takes what is simulated, one by one, so that nothing is lost if the run is interrupted.

    Attributes:
        run: the run file itself.
    """

    def __init__(
        self,
        path: Path,
        cases: tuple[Sequence[str], Sequence[int]],
        n_bytes: int,
        cluster: Cluster,
        options: Mapping[str, object],
    ) -> None:
        """Create it.

        Args:
            path: the file.
            cases: exchanges and numbers of ranks, of which there may be results.
            n_bytes: length of the buffer.
            cluster: on which they are simulated.
            options: of the command.

        Raises:
            UserError: the name is taken, or its folder is missing, unwritable or too full.
        """
        import mpi4py

        mpi4py.rc.initialize = False  # its version is noted, but nothing here is for MPI
        self._exchanges, self._ranks = list(cases[0]), list(cases[1])
        self._links: dict[str, dict[str, str]] = {}
        self._version = ""
        self.run = RunFile.create(
            path,
            kind="simulate",
            options=options,
            seed=int(str(options["seed"])),
            hosts=[environment.host()],
            devices=["cpu"],
            groups=[simulation_group(self._exchanges, self._ranks)],
            attributes={"cluster": asdict(cluster), "bytes": n_bytes},
        )

    def add(self, exchange: str, one: Simulated) -> None:
        """Keep a result, under the exchange's name as it was given."""
        place = self._exchanges.index(exchange), self._ranks.index(one.ranks)
        for name in _NUMBERS:
            self.run[f"simulation/{name}"][place] = getattr(one, name)
        self._links.setdefault(exchange, {})[str(one.ranks)] = one.hottest_link
        self._version = one.version

    def finish(self) -> None:
        """All is there that will be."""
        self.run.finish(hottest_links=self._links, simgrid_version=self._version)


def simulation_group(exchanges: Sequence[str], ranks: Sequence[int]) -> Group:
    """The one group of a file of simulations, /simulation; all but its coordinates is to fill."""
    cell = ("exchange", "ranks")
    return Group(
        "simulation",
        {
            "exchange": Variable(
                ("exchange",), "exchange and options", data=np.array(exchanges, str)
            ),
            "ranks": Variable(("ranks",), "number of ranks", data=np.array(ranks, np.int64)),
            **{name: Variable(cell, told, units) for name, (told, units) in _NUMBERS.items()},
        },
    )
