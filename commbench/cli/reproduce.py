"""`commbench reproduce`: the papers' tables and figures made again, ours beside theirs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from commbench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.reproduce import Cell, Outcome


@click.command("reproduce")
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The figure, .png or .svg, of a NAME that has one; one of that name is replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(name: str, files: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Make a table or figure of a paper again, from the run FILES that it needs.

    \b
      commbench reproduce list
      commbench reproduce firecaffe-table1

    Prints our numbers beside those in print. Each is judged by a stated band, but for those where
    the paper contradicts itself, which are marked. Exits with 1 if a judged one lies outside.
    """
    from commbench.reproduce import load_reproduction

    if name == "list":
        _list(files, output, as_json)
        return
    module = load_reproduction(name)
    if output:
        from commbench.figures import sheet

        if not hasattr(module, "draw"):
            raise UserError(f"{name} is a table and draws nothing: drop --output")
        sheet.check_target(output)
    outcome: Outcome = module.run(files)
    if output:
        _draw(module, outcome, output)
    if as_json:
        click.echo(json.dumps(_as_dict(name, outcome), indent=2))
    else:
        _print(outcome)
    if not outcome.passed:
        sys.exit(1)


def _list(files: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    from commbench.reproduce import load_reproduction, reproduction_names

    if files or output:
        raise UserError("`commbench reproduce list` takes neither files nor --output")
    told = {}
    for name in reproduction_names():
        module = load_reproduction(name)
        told[name] = {"what": (module.__doc__ or "").split("\n")[0], "needs": module.NEEDS}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, entry in told.items():
        click.echo(f"{name}\n  {entry['what']}\n  needs {entry['needs']}")


def _as_dict(name: str, outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    cells = [
        {**asdict(cell), "deviation": cell.deviation, "passed": cell.passed}
        for cell in outcome.cells
    ]
    return {"name": name, **asdict(outcome), "cells": cells, "passed": outcome.passed}


def _print(outcome: Outcome) -> None:
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(_table(outcome))
    for note in outcome.notes:
        console.print(note, markup=False)
    judged = [cell for cell in outcome.cells if cell.passed is not None]
    right = sum(cell.passed is True for cell in judged)
    console.print(f"{right} of {len(judged)} numbers in their band")


def _table(outcome: Outcome) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{outcome.title} ({outcome.source})", title_justify="left", box=None)
    for heading in ("", "quantity"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ours", "in print", "deviation", "band"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    before = ""
    for cell in outcome.cells:
        deviation = "" if cell.deviation is None else f"{cell.deviation:+.1%}"
        table.add_row(
            Text(cell.row if cell.row != before else ""),
            Text(cell.column),
            f"{cell.ours:,.5g}" if cell.ours < 1e4 else f"{cell.ours:,.0f}",
            "" if cell.printed is None else f"{cell.printed:,g}",
            deviation if cell.passed is not None else "",
            "" if cell.band is None else f"{cell.band:.1%}",
            _verdict(cell),
        )
        before = cell.row
    return table


def _verdict(cell: Cell) -> str:
    from rich.markup import escape

    if cell.passed is None:
        return f"[yellow]{escape(cell.note)}[/yellow]"
    word = "[green]ok[/green]" if cell.passed else "[red]OUTSIDE[/red]"
    return f"{word} {escape(cell.note)}".strip()


def _draw(module: ModuleType, outcome: Outcome, path: Path) -> None:
    from commbench.figures import sheet

    sheet.write_panel(lambda axes: module.draw(axes, outcome), path)
