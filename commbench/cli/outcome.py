"""How `commbench reproduce` prints what came out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.reproduce import Cell, Outcome


def as_dict(name: str, outcome: Outcome) -> dict[str, Any]:
    """For JSON."""
    from dataclasses import asdict

    cells = [
        {**asdict(cell), "deviation": cell.deviation, "passed": cell.passed}
        for cell in outcome.cells
    ]
    findings = [{**asdict(found), "passed": found.passed} for found in outcome.findings]
    whole = {"name": name, **asdict(outcome), "cells": cells, "findings": findings}
    return {**whole, "passed": outcome.passed}


def show(outcome: Outcome) -> None:
    """A table of the numbers, then the findings and notes."""
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(f"{outcome.title} ({outcome.source})", markup=False, style="bold")
    console.print(_table(outcome))
    for finding in outcome.findings:
        shows = "shows" if finding.shows else "does not show"
        if finding.expected:
            shows = f"[{'green' if finding.shows else 'red'}]{shows}[/]"
        console.print(f"{shows}: ", end="")
        why = f" ({finding.why})" if finding.why else ""
        console.print(f"{finding.claim}: {finding.measured}{why}", markup=False)
    for note in outcome.notes:
        console.print(note, markup=False)
    if told := in_bands(outcome):
        console.print(told)


def in_bands(outcome: Outcome) -> str:
    """``5 of 6 numbers in their band``; "" where none is judged."""
    judged = [cell for cell in outcome.cells if cell.passed is not None]
    right = sum(cell.passed is True for cell in judged)
    return f"{right} of {len(judged)} numbers in their band" if judged else ""


def _table(outcome: Outcome) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    printed = any(cell.printed is not None for cell in outcome.cells)
    seeds = any(cell.low is not None for cell in outcome.cells)
    methods = any(cell.method for cell in outcome.cells)
    for heading in ("", "quantity", *["by"] * methods):
        table.add_column(heading, no_wrap=True)
    headings = ["ours", *["seeds"] * seeds, *["in print", "deviation", "band"] * printed]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    before = ""
    for cell in outcome.cells:
        columns = [f"{cell.ours:,.5g}" if cell.ours < 1e4 else f"{cell.ours:,.0f}"]
        if seeds:
            columns.append("" if cell.low is None else f"{cell.low:.4g} to {cell.high:.4g}")
        if printed:
            deviation = "" if cell.deviation is None else f"{cell.deviation:+.1%}"
            columns += [
                "" if cell.printed is None else f"{cell.printed:,g}",
                deviation if cell.passed is not None else "",
                "" if cell.band is None else f"{cell.band:.1%}",
            ]
        name = Text(cell.row if cell.row != before else "")
        way = [cell.method] * methods
        table.add_row(name, Text(cell.column), *way, *columns, _verdict(cell))
        before = cell.row
    return table


def _verdict(cell: Cell) -> str:
    from rich.markup import escape

    if cell.passed is None:
        return f"[yellow]{escape(cell.note)}[/yellow]"
    word = "[green]ok[/green]" if cell.passed else "[red]OUTSIDE[/red]"
    return f"{word} {escape(cell.note)}".strip()
