"""The papers' tables and figures that `commbench reproduce` makes again, one file each.

A file `firecaffe_table1.py` in this folder is the reproduction `firecaffe-table1`. It has

- a docstring, of which the first line tells what it reproduces, and from which paper;
- `NEEDS`, a phrase: what it takes, such as "nothing, and two seconds" or "run files of a sweep";
- `run(files: Sequence[Path]) -> Outcome`, where the files are those of the command line; it raises
  UserError for files that it cannot use;
- if it is a figure as well, `draw(axes, outcome)`, which draws it on matplotlib's axes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from commbench.errors import UserError


@dataclass(frozen=True)
class Cell:
    """One number of a table or figure, ours beside the paper's.

    Attributes:
        row: what it is about, such as a network.
        column: the quantity, with its unit.
        ours: our value.
        printed: the paper's; None where it has none.
        band: relative deviation allowed; None for a number that is told but not judged.
        note: why it is not judged, or what else there is to know.
    """

    row: str
    column: str
    ours: float
    printed: float | None = None
    band: float | None = None
    note: str = ""

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
class Outcome:
    """What a reproduction found.

    Attributes:
        title: of the table or figure.
        source: of the paper.
        cells: all numbers, row by row.
        notes: what holds for all of them.
    """

    title: str
    source: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every judged number lies in its band."""
        return all(cell.passed is not False for cell in self.cells)


def reproduction_names() -> list[str]:
    """The names `load_reproduction` accepts, sorted; imports none of them."""
    return sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__))


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


def refuse_files(name: str, files: Sequence[Path]) -> None:
    """For a reproduction that takes no files.

    Raises:
        UserError: if there are any.
    """
    if files:
        raise UserError(f"{name} needs no files: drop {', '.join(map(str, files))}")
