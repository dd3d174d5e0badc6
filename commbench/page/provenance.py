"""Where the page's numbers come from: every file, with all that it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commbench.page.tables import Cell, Row, Table
from commbench.record.reader import progress

# Shown in tables of their own, or among the facts of every file.
_APART = frozenset(
    {
        *("file", "format", "kind", "status", "command_line", "start", "end"),
        *("options", "versions", "environment", "buckets", "sweep", "phases_s"),
        *("headroom_rungs", "headroom_s"),
    }
)
_LONGEST = 300


@dataclass(frozen=True)
class File:
    """One run file.

    Attributes:
        name: as it was given.
        line: what it is, in a line.
        command_line: that made it.
        lists: of names and values, by heading.
    """

    name: str
    line: str
    command_line: str
    lists: dict[str, list[tuple[str, str]]]


def files(facts: Sequence[Mapping[str, Any]]) -> list[File]:
    """What each file says of itself, by its summary."""
    return [
        File(
            name=str(run["file"]),
            line=", ".join(
                [str(run.get("kind", "")), progress(dict(run)), str(run.get("start", ""))]
            ),
            command_line=str(run.get("command_line", "")),
            lists={
                "run": _pairs({k: v for k, v in run.items() if k not in _APART}),
                **{
                    name: _pairs(run[name])
                    for name in ("options", "versions", "environment")
                    if run.get(name)
                },
            },
        )
        for run in facts
    ]


def unlike(facts: Sequence[Mapping[str, Any]]) -> Table | None:
    """In which options, versions and machines the trainings or sweeps of the page differ."""
    runs = [run for run in facts if run.get("kind") in ("train", "sweep")]
    rows = []
    for kind in sorted({str(run["kind"]) for run in runs}):
        own = [run for run in runs if run["kind"] == kind]
        every = [
            {
                **{f"--{name.replace('_', '-')}": v for name, v in run["options"].items()},
                **{name: run.get(name, "") for name in ("ranks", "mpi_library", "cpu_model")},
                **run["versions"],
            }
            for run in own
        ]
        for name in dict.fromkeys(name for one in every for name in one):
            values = dict.fromkeys(_text(one.get(name, "")) or "not set" for one in every)
            if len(values) > 1 and name not in ("--output", "--exchange", "--exchanges"):
                rows.append(Row([Cell(kind), Cell(name), Cell("; ".join(values))]))
    if not rows:
        return None
    return Table(
        "differences-table",
        "What differs between the runs",
        "Besides the exchange. `commbench compare` refuses runs that differ in an option.",
        ["kind", "name", "values"],
        [],
        rows,
    )


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), _text(value) or "-") for name, value in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        text = _counted([_text(one) for one in value])
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _counted(words: Sequence[str]) -> str:
    """``vm x 64``: a list of hosts can be as long as there are ranks."""
    if len(words) > 1 and len(set(words)) == 1:
        return f"{words[0]} x {len(words)}"
    return ", ".join(words)
