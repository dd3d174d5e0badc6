"""The numbers of a computed table or figure in one small file, from which it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.experiments import Finding
from commbench.record import RunFile, paths
from commbench.record.layout import Group, Variable
from commbench.record.reader import attributes, open_run

if TYPE_CHECKING:
    from commbench.reproduce import Outcome

_KIND = "reproduction"
_TABLES = {"numbers": "cells", "findings": "findings"}
_LONG_NAMES = {
    "row": "what the number is about",
    "column": "the quantity, with its unit",
    "ours": "our value",
    "printed": "the paper's value; NaN where it has none",
    "band": "relative deviation allowed; NaN where it is not judged",
    "low": "lowest over the seeds",
    "high": "highest over the seeds",
    "method": "how our value was had",
    "claim": "effect that the paper claims",
    "shows": "1 if it shows",
    "expected": "1 if it should",
}


def write(outcome: Outcome, name: str, path: Path) -> None:
    """Put an outcome into a file, in place of an earlier one of the same reproduction.

    Raises:
        UserError: the file there is of something else, or it cannot be written.
    """
    if path.exists():
        read(path, name)
    groups = [
        _table(group, kept) for group, key in _TABLES.items() if (kept := getattr(outcome, key))
    ]
    if outcome.series:
        groups.append(_curves(outcome))
    facts = {
        "reproduction": name,
        "title": outcome.title,
        "source": outcome.source,
        # An empty list would have no type.
        **({"notes": list(outcome.notes)} if outcome.notes else {}),
    }
    # Whole, or as it was: a reproduction may have taken an hour.
    whole = paths.part(path)
    try:
        RunFile.create(
            whole,
            kind=_KIND,
            options={},
            seed=0,
            hosts=[],
            devices=[],
            groups=groups,
            attributes=facts,
        ).finish()
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def read(path: Path, name: str) -> Outcome:
    """Read what `write` wrote.

    Raises:
        UserError: the file is unreadable, or of something else than the reproduction `name`.
    """
    from commbench.reproduce import Cell, Outcome, Series

    with open_run(path) as file:
        root = attributes(file)
        if root.get("kind") != _KIND or root.get("reproduction") != name:
            what = root.get("reproduction", root.get("experiment", root.get("kind")))
            raise UserError(f"{path} holds a run of {what}: give one of reproduce {name}")
        made: dict[str, list[Any]] = {"numbers": [], "findings": []}
        for group, kind in (("numbers", Cell), ("findings", Finding)):
            if group in file:
                made[group] = _rows(file[group], kind)
        series = []
        if "curves" in file:
            curves = file["curves"]
            texts = {key: curves[key].asstr()[:] for key in ("name", "panel", "method")}
            for row in range(len(curves["curve"])):
                x, y = (tuple(_finite(curves[key][row])) for key in ("x", "y"))
                told = {key: str(values[row]) for key, values in texts.items()}
                series.append(Series(x=x, y=y, **told))
    return Outcome(
        title=str(root["title"]),
        source=str(root["source"]),
        notes=tuple(map(str, root.get("notes", ()))),
        cells=tuple(made["numbers"]),
        findings=tuple(made["findings"]),
        series=tuple(series),
    )


def _table(group: str, rows: Sequence[Any]) -> Group:
    """One variable for each attribute, a row for each object."""
    dim = group.removesuffix("s")
    columns = {dim: Variable((dim,), dim, data=np.arange(len(rows)))}
    for one in fields(rows[0]):
        values = [getattr(row, one.name) for row in rows]
        # None is NaN, and what is yes or no is 1 or 0.
        data: Any = (
            values
            if isinstance(values[0], str)
            else [np.nan if value is None else float(value) for value in values]
        )
        columns[one.name] = Variable((dim,), _LONG_NAMES.get(one.name, one.name), data=data)
    return Group(group, columns)


def _rows(group: Any, kind: type) -> list[Any]:
    columns: dict[str, list[Any]] = {}
    for one in fields(kind):
        stored = group[one.name]
        if stored.dtype.kind == "O":
            columns[one.name] = [str(text) for text in stored.asstr()[:]]
        elif one.type == "bool":
            columns[one.name] = [bool(value) for value in stored[:]]
        else:
            columns[one.name] = [None if np.isnan(v) else float(v) for v in stored[:]]
    names = list(columns)
    return [
        kind(**dict(zip(names, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def _curves(outcome: Outcome) -> Group:
    series = outcome.series
    longest = max(len(one.x) for one in series)
    columns = {
        "curve": Variable(("curve",), "curve", data=np.arange(len(series))),
        "point": Variable(("point",), "point of a curve", data=np.arange(longest)),
    }
    texts = {"name": "of what", "panel": "of which panel", "method": "how it was had"}
    for key, told in texts.items():
        columns[key] = Variable(("curve",), told, data=[getattr(one, key) for one in series])
    for key in ("x", "y"):
        table: NDArray[np.float64] = np.full((len(series), longest), np.nan)
        for row, one in zip(table, series, strict=True):
            row[: len(one.x)] = getattr(one, key)
        columns[key] = Variable(("curve", "point"), key, data=table)
    return Group("curves", columns)


def _finite(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values if np.isfinite(value)]
