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

    from commbench.experiments import Results
    from commbench.reproduce import Cell, Outcome


@click.command("reproduce")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Train a shorter version of NAME, to try it out.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("results/reproduce"),
    show_default=True,
    help="Where NAME.h5 (all its results), NAME.png, NAME.svg and NAME/ (the trainings) go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(name: str, file: Path | None, quick: bool, folder: Path, as_json: bool) -> None:
    """Make a table or figure of a paper again.

    \b
      commbench reproduce list
      commbench reproduce firecaffe-table1
      commbench reproduce legw-lstm
      commbench reproduce legw-lstm results/reproduce/legw-lstm.h5

    Prints our numbers beside those in print. A NAME that trains does so first, several runs side by
    side; interrupted, it goes on with those that are missing. With the FILE of earlier results it
    trains nothing, and draws beside that. One that measures this machine keeps what it measured in
    NAME/ and does not measure it again. A number is judged by a stated band, but for those where
    the paper contradicts itself, which are marked; an effect, by whether it shows with every seed.
    Exits with 1 if one does not hold.
    """
    from commbench.reproduce import load_reproduction

    if name == "list":
        if file or quick:
            raise UserError("`commbench reproduce list` takes neither a file nor --quick")
        _list(as_json)
        return
    module = load_reproduction(name)
    if not {"experiment", "measure"} & set(dir(module)):
        if file or quick:
            raise UserError(f"{name} trains nothing: drop {file or '--quick'}")
        outcome: Outcome = module.run()
    else:
        stem = folder / f"{name}{'-quick' if quick else ''}"
        if hasattr(module, "experiment"):
            results = _results(module, name, file, quick, folder)
        elif file:
            raise UserError(f"{name} measures this machine and reads no results: drop {file}")
        else:
            results = module.measure(quick, stem, _say)
        outcome = _tolerant(module.judge(results)) if results.quick else module.judge(results)
        _draw(module, results, file.with_suffix("") if file else stem)
    if as_json:
        click.echo(json.dumps(_as_dict(name, outcome), indent=2))
    else:
        _print(outcome)
    if not outcome.passed:
        sys.exit(1)


def _list(as_json: bool) -> None:
    from commbench.reproduce import load_reproduction, reproduction_names

    told = {}
    for name in reproduction_names():
        module = load_reproduction(name)
        told[name] = {"what": (module.__doc__ or "").split("\n")[0], "needs": module.NEEDS}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, entry in told.items():
        click.echo(f"{name}\n  {entry['what']}\n  needs {entry['needs']}")


def _results(
    module: ModuleType, name: str, file: Path | None, quick: bool, folder: Path
) -> Results:
    """The results in the file; without one, trains what is missing and writes it."""
    from commbench.experiments import collected
    from commbench.experiments.running import complete

    if file is not None:
        if quick:
            raise UserError("--quick trains, and a file has its results: drop one of the two")
        return collected.read(file, name)
    stem = f"{name}-quick" if quick else name
    results = complete(
        module.experiment(quick),
        folder / stem,
        quick=quick,
        say=_say,
    )
    collected.write(results, folder / f"{stem}.h5")
    return results


def _say(line: str) -> None:
    click.echo(line, err=True)


def _tolerant(outcome: Outcome) -> Outcome:
    """The outcome of a shortened experiment, which tells what shows and judges nothing."""
    from dataclasses import replace

    findings = tuple(replace(finding, expected=False) for finding in outcome.findings)
    return replace(
        outcome,
        cells=tuple(replace(cell, band=None) for cell in outcome.cells),
        findings=findings,
        notes=(*outcome.notes, "Shortened (--quick): nothing is judged."),
    )


def _draw(module: ModuleType, results: Any, stem: Path) -> None:
    from commbench.figures import sheet

    for suffix in sheet.SUFFIXES:
        sheet.write_row(module.panels(results), stem.with_suffix(suffix))
    click.echo(f"figure: {stem.with_suffix('.png')}", err=True)


def _as_dict(name: str, outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    cells = [
        {**asdict(cell), "deviation": cell.deviation, "passed": cell.passed}
        for cell in outcome.cells
    ]
    findings = [{**asdict(found), "passed": found.passed} for found in outcome.findings]
    whole = {"name": name, **asdict(outcome), "cells": cells, "findings": findings}
    return {**whole, "passed": outcome.passed}


def _print(outcome: Outcome) -> None:
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
    judged = [cell for cell in outcome.cells if cell.passed is not None]
    if judged:
        right = sum(cell.passed is True for cell in judged)
        console.print(f"{right} of {len(judged)} numbers in their band")


def _table(outcome: Outcome) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    printed = any(cell.printed is not None for cell in outcome.cells)
    seeds = any(cell.low is not None for cell in outcome.cells)
    for heading in ("", "quantity"):
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
        table.add_row(name, Text(cell.column), *columns, _verdict(cell))
        before = cell.row
    return table


def _verdict(cell: Cell) -> str:
    from rich.markup import escape

    if cell.passed is None:
        return f"[yellow]{escape(cell.note)}[/yellow]"
    word = "[green]ok[/green]" if cell.passed else "[red]OUTSIDE[/red]"
    return f"{word} {escape(cell.note)}".strip()
