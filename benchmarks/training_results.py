"""The run files of `benchmarks.training`, read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimate import estimate
from benchmarks.training import CANDIDATES, DDP, DDP_FLOOR, FLOOR, OURS
from commbench.record import open_run


@dataclass(frozen=True)
class TrainingResult:
    """One job.

    Attributes:
        library: the MPI library.
        exchange: ours.
        ranks: their number.
        models: with the side of their images and the samples of a step and rank.
        slowest: ``(models, candidates, rounds)``, the slowest rank's seconds.
    """

    library: str
    exchange: str
    ranks: int
    models: list[tuple[str, int, int]]
    slowest: NDArray[Any]

    def rows(self) -> Iterator[list[str]]:
        """One row of a table for each model."""
        for (name, size, samples), seconds in zip(self.models, self.slowest, strict=True):
            took = dict(zip(CANDIDATES, seconds, strict=True))
            yield [
                self.library,
                str(self.ranks),
                f"{name}, {size} px, {samples} a rank",
                *(f"{samples * self.ranks / np.median(took[who]):.1f}" for who in (OURS, DDP)),
                estimate(took[DDP] / took[OURS]).text(),
                estimate(100 * (1 - took[FLOOR] / took[OURS])).text(0),
                estimate(100 * (1 - took[DDP_FLOOR] / took[DDP])).text(0),
                estimate(took[DDP_FLOOR] / took[FLOOR]).text(),
            ]


HEADER = [
    *("library", "ranks", "model", "ours (images/s)", "DDP (images/s)", "ours / DDP"),
    *("exchange exposed, ours (%)", "DDP (%)", "without exchange, ours / DDP"),
]


def read_training(path: Path) -> TrainingResult:
    """Read the file of a job.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        table = file["training"]
        columns = (table["model"].asstr()[:], table["image_size"][:], table["samples"][:])
        return TrainingResult(
            library=file.attrs["mpi_library"],
            exchange=file.attrs["exchange"],
            ranks=int(file.attrs["ranks"]),
            models=[
                (str(n), int(size), int(count)) for n, size, count in zip(*columns, strict=True)
            ],
            slowest=table["seconds"][:].max(axis=3),
        )
