"""The run files of `benchmarks.scale`, read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.record import open_run


@dataclass(frozen=True)
class ScaleResult:
    """One job of many ranks.

    Attributes:
        library: the MPI library.
        ranks: their number.
        transport: how bytes moved.
        size: of the buffer, in bytes.
        start: seconds from the launch until all ranks were in MPI, and until all were ready.
        exchanges: one after the other.
        seconds: ``(exchanges, iterations)``.
        wrong: ``(exchanges,)`` elements.
        memory: ``(3, exchanges, ranks)`` bytes: proportional set, page tables, peak.
    """

    library: str
    ranks: int
    transport: str
    size: int
    start: tuple[float, float]
    exchanges: list[str]
    seconds: NDArray[Any]
    wrong: NDArray[Any]
    memory: NDArray[Any]

    def rows(self) -> Iterator[list[str]]:
        """One row of a table for each exchange."""
        proportional, tables, peak = self.memory
        for index, exchange in enumerate(self.exchanges):
            yield [
                str(self.ranks),
                f"{self.transport}, {self.library}",
                exchange,
                " / ".join(f"{seconds:.1f}" for seconds in self.start),
                f"{self.seconds[index].min():.2f}",
                f"{self.seconds[index].max():.2f}",
                f"{self.wrong[index]:.0f}",
                f"{proportional[index].sum() / 1e9:.2f}",
                f"{tables[index].sum() / 1e9:.2f}",
                f"{peak[index].max() / 1e6:.0f}",
            ]


def read_scale(path: Path) -> ScaleResult:
    """Read the file of a job.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        table = file["scale"]
        memory = [table[f"{name}_bytes"][:] for name in ("proportional", "page_tables", "peak")]
        return ScaleResult(
            library=file.attrs["mpi_library"],
            ranks=int(file.attrs["ranks"]),
            transport=file.attrs["transport"],
            size=int(file.attrs["option_size"]),
            start=(float(file.attrs["start_mpi_s"]), float(file.attrs["start_s"])),
            exchanges=list(table["exchange"].asstr()[:]),
            seconds=table["seconds"][:],
            wrong=table["wrong"][:],
            memory=np.array(memory),
        )
