"""The papers' tables and figures that `commbench reproduce` makes again, one file each.

A file `firecaffe_table1.py` in this folder is the reproduction `firecaffe-table1`. It has

- a docstring, of which the first line tells what it reproduces, and from which paper;
- `NEEDS`, a phrase: what it takes, such as "nothing, and two seconds" or "a quarter of an hour".

One that is counted or computed has

- `run() -> Outcome`, in seconds;
- optionally `panels(outcome: Outcome) -> list[Callable[[axes], None]]`, which draws it with
  matplotlib from the outcome's series. Then its numbers are written down as well.

One that trains has

- `experiment(quick: bool) -> Experiment`: what to train;
- `judge(results: Results) -> Outcome`: what came out, and which effects show;
- `panels(results: Results) -> list[Callable[[axes], None]]`.

One that measures this machine has `judge` and `panels` alike, of what it returns itself, which has
an attribute `quick`, and in the place of `experiment`

- `measure(quick: bool, folder: Path, say: Callable[[str], None]) -> results`: measures what the
  folder does not have yet, and tells what it does.

A number may be had in several ways: each is a `Cell` of the same row and column with its `method`,
one of `METHODS`, and stands beside the same one in print.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType

from commbench.errors import UserError
from commbench.experiments import Finding, Results

METHODS = ("theory", "simulated", "emulated", "measured")
"""Priced on alpha, beta and gamma; replayed on a cluster's wires; run over slowed links; run."""


@dataclass(frozen=True)
class Cell:
    """One number of a table or figure, ours beside the paper's.

    Attributes:
        row: what it is about, such as a network.
        column: the quantity, with its unit.
        ours: our value; of several seeds the mean.
        printed: the paper's; None where it has none.
        band: relative deviation allowed; None for a number that is told but not judged.
        note: why it is not judged, or what else there is to know.
        low, high: the range over the seeds; None without.
        method: how ours was had, one of `METHODS`; "" where there is one way only.
    """

    row: str
    column: str
    ours: float
    printed: float | None = None
    band: float | None = None
    note: str = ""
    low: float | None = None
    high: float | None = None
    method: str = ""

    @property
    def deviation(self) -> float | None:
        """(ours - printed) / printed."""
        return None if self.printed is None else self.ours / self.printed - 1

    @property
    def passed(self) -> bool | None:
        """Whether it lies in its band; None if it is not judged."""
        if self.band is None or self.deviation is None:
            return None
        return abs(self.deviation) <= self.band


@dataclass(frozen=True)
class Series:
    """A line of a figure.

    Attributes:
        name: what it is of, for the legend.
        x, y: as many of each.
        panel: which panel it belongs to, by name.
        method: how it was had, one of `METHODS`, or "printed".
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    panel: str = ""
    method: str = "theory"


@dataclass(frozen=True)
class Outcome:
    """What a reproduction found.

    Attributes:
        title: of the table or figure.
        source: of the paper.
        cells: all numbers, row by row.
        notes: what holds for all of them.
        findings: effects that the paper claims, and whether they show.
        series: what a figure is drawn from.
    """

    title: str
    source: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    series: tuple[Series, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every judged number lies in its band, and every expected effect shows."""
        numbers = all(cell.passed is not False for cell in self.cells)
        return numbers and all(finding.passed for finding in self.findings)


def reproduction_names() -> list[str]:
    """The names `load_reproduction` accepts, sorted; imports none of them."""
    names = (found.name for found in pkgutil.iter_modules(__path__))
    # What several share lies in a file that begins with an underscore.
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def load_reproduction(name: str) -> ModuleType:
    """The file of a reproduction.

    Raises:
        UserError: for an unknown name.
    """
    if name not in reproduction_names():
        raise UserError(
            f"unknown reproduction {name!r}: choose from {', '.join(reproduction_names())}"
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def score_cells(results: Results, column: str = "top-1 (%)") -> tuple[Cell, ...]:
    """The final accuracy of every variant, with the seeds' range."""
    cells = []
    for variant in results.variants:
        runs, scores = results.of(variant), results.scores(variant)
        diverged = sum(run.diverged for run in runs)
        cells.append(
            Cell(
                variant,
                column,
                float(scores.mean()),
                note=f"{diverged} of {len(runs)} diverged" if diverged else "",
                low=float(scores.min()),
                high=float(scores.max()),
            )
        )
    return tuple(cells)
