"""Runs held against each other: what differs, and ratios with intervals.

`differences` tells whether two runs can be compared, `sweeps` and `trainings` compare them. Each
file is held against one of them, the baseline; within one sweep, each exchange against one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from commbench.compare.differences import Difference, differences, refuse
from commbench.compare.sweeps import Cell, between, within
from commbench.compare.trainings import Pair, compare_trainings
from commbench.errors import UserError
from commbench.record.reader import attributes, open_run, progress, summary

# The kinds that hold a sweep: `commbench sweep` and `tune`, and the project's own benchmark.
_SWEEPS = ("sweep", "benchmark")


@dataclass(frozen=True)
class Comparison:
    """A file held against the baseline; within one sweep, the exchanges of that one file.

    Attributes:
        baseline, file: their names.
        differences: all but the exchange and where results go.
        notes: in words.
        sweep: the cells of sweeps; empty of trainings.
        training: of two trainings, else None.
    """

    baseline: str
    file: str
    differences: list[Difference]
    notes: list[str]
    sweep: list[Cell]
    training: Pair | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        return asdict(self)


def compare(
    paths: Sequence[Path], baseline: Path | None, against: str | None, *, force: bool
) -> list[Comparison]:
    """Hold every file against the baseline, the first unless it is named.

    Args:
        paths: of run files of one kind; a single one must be a sweep.
        baseline: one of them, or another file.
        against: of one sweep, the exchange that the others are held against.
        force: compare runs that differ in more than the exchange.

    Raises:
        UserError: a file cannot be read or was named twice, kinds differ, nothing is in common, or
            there is a difference that needs `force`.
    """
    named = [baseline, *(path for path in paths if path != baseline)] if baseline else [*paths]
    for path in named:
        if named.count(path) > 1:
            raise UserError(f"{path} is named twice: name every run file once")
    kinds = {path: _kind(path) for path in named}
    first, *others = named
    for path in others:
        if kinds[path] != kinds[first]:
            raise UserError(
                f"{first} holds a {kinds[first]} and {path} a {kinds[path]}: give runs of one kind"
            )
    if against is not None and (others or kinds[first] != "sweep"):
        raise UserError(
            f"--against {against} names an exchange of one sweep: give that file alone, or "
            "--baseline FILE to hold files against each other"
        )
    if not others:
        if kinds[first] != "sweep":
            raise UserError(
                f"{first} is one {kinds[first]}, and there is nothing to compare it with: give "
                "two files or more"
            )
        cells = within(first, against)
        return [Comparison(str(first), str(first), [], _notes([first]), cells, None)]
    return [_pair(first, path, kinds[first], force=force) for path in others]


def _pair(first: Path, second: Path, kind: str, *, force: bool) -> Comparison:
    found = differences(_attributes(first), _attributes(second))
    if not force:
        refuse(found, str(first), str(second))
    return Comparison(
        baseline=str(first),
        file=str(second),
        differences=found,
        notes=_notes([first, second]),
        sweep=between(first, second) if kind == "sweep" else [],
        training=compare_trainings(first, second) if kind == "training" else None,
    )


def _kind(path: Path) -> str:
    """What a file holds: ``training`` or ``sweep``.

    Raises:
        UserError: as `open_run`, or neither.
    """
    with open_run(path) as file:
        kind = str(file.attrs.get("kind", ""))
        if kind in _SWEEPS and "sweep" in file:
            return "sweep"
        if kind == "train" and "eval" in file:
            return "training"
        if kind == "experiment":
            name = file.attrs.get("experiment", "")
            raise UserError(
                f"{path} holds the collected runs of an experiment: `commbench reproduce {name} "
                f"{path}` compares them"
            )
    raise UserError(f"{path} is a run file of kind {kind!r}: give trainings, or sweeps")


def _attributes(path: Path) -> dict[str, Any]:
    with open_run(path) as file:
        return attributes(file)


def _notes(paths: Sequence[Path]) -> list[str]:
    runs = [(path, summary(path)) for path in paths]
    return [f"{path}: {progress(run)}" for path, run in runs if run["status"] != "completed"]
