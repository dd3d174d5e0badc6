"""`commbench report`: run files side by side, as a figure and in numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.sweep import Size

if TYPE_CHECKING:
    from rich.table import Table


@click.command("report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="The figure: a .png, .svg or .pdf file."
)
@click.option("--title", help="Printed over the figure.")
@click.option(
    "--size",
    type=Size(),
    help="Buffer size for the time over ranks; the nearest one measured. [default: the largest]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(
    files: tuple[Path, ...], output: Path | None, title: str | None, size: int | None, as_json: bool
) -> None:
    """Compare run FILES: time per exchange over sizes and ranks, accuracy over time, phases.

    Draws what the files hold. Sweeps at several numbers of ranks give the time over ranks.
    Trainings that differ in more than the exchange are drawn with a warning.
    """
    from commbench.record.reader import to_json
    from commbench.report import draw, load, numbers

    sweeps, trainings = load(files)
    if output:
        draw(sweeps, trainings, output, title=title, size=size)
    told = numbers(sweeps, trainings)
    if as_json:
        click.echo(to_json(told))
        return
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if told["sweeps"]:
        console.print(_sweep_table(told["sweeps"]))
    if told["trainings"]:
        console.print(_training_table(told["trainings"]))
    for remark in told["remarks"]:
        console.print(f"Beware: {remark}", markup=False)
    if output:
        console.print(f"figure: {output}", markup=False, soft_wrap=True)


def _sweep_table(rows: list[dict[str, Any]]) -> Table:
    """Sizes down, exchanges across, medians in milliseconds."""
    from rich.table import Table

    from commbench.figures.style import bytes_text

    exchanges = list(dict.fromkeys(row["exchange"] for row in rows))
    table = Table(title="time of one exchange, median (ms)", title_justify="left")
    table.add_column("ranks", justify="right")
    table.add_column("buffer", justify="right")
    for exchange in exchanges:
        table.add_column(exchange, justify="right")
    cells: dict[tuple[str, int, int], dict[str, float]] = {}
    for row in rows:
        place = (row["file"], row["ranks"], row["size_bytes"])
        cells.setdefault(place, {})[row["exchange"]] = row["median_s"]
    for (_, ranks, size), medians in cells.items():
        times = [f"{1e3 * medians[name]:.3f}" if name in medians else "-" for name in exchanges]
        table.add_row(str(ranks), bytes_text(size), *times)
    return table


def _training_table(rows: list[dict[str, Any]]) -> Table:
    """One run a row."""
    from rich.table import Table

    table = Table(title="training; phases in ms, median", title_justify="left")
    phases = list(rows[0]["phase_s"])
    table.add_column("run")
    for name in ("ranks", "top-1", "time (s)", *phases):
        table.add_column(name, justify="right")
    for row in rows:
        evaluated = bool(row["top1"])
        table.add_row(
            row["exchange"],
            str(row["ranks"]),
            f"{row['top1'][-1]:.2%}" if evaluated else "-",
            f"{row['time_s'][-1]:.1f}" if evaluated else "-",
            *(f"{1e3 * row['phase_s'][phase]:.1f}" for phase in phases),
        )
    return table
