"""`commbench report`: run files side by side, in tables, and one figure or page."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commbench.cli.sweep import Size
from commbench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.report import Report, Timing

_PAGE = ".html"


@click.command("report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The figure, .png or .svg, or the page, .html; one of that name is replaced. "
    "[default: tables only]",
)
@click.option("--title", help="Title of the figure or page. [default: model, data and exchanges]")
@click.option(
    "--size",
    type=Size(),
    help="Buffer size of the panel over ranks; the nearest that all sweeps have. "
    "[default: the largest]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(
    files: tuple[Path, ...], output: Path | None, title: str | None, size: int | None, as_json: bool
) -> None:
    """Print and draw what the run FILES hold, trainings and sweeps together.

    \b
      commbench report results/*.h5 --output report.html
      commbench report results/*.h5 --output comparison.png

    The page is one file that needs no network: charts to zoom and filter, every number in tables,
    and where each comes from; also what `reproduce` collected.

    A figure draws, as far as the files go: accuracy over training time; the share of a step for
    each phase; the time of each exchange over buffer sizes, on the most ranks; and over numbers of
    ranks, where sweeps on several are given, with the growth that theory expects. Sweeps with the
    same setting are pooled. Runs that are hard to compare are told so under the figure.
    """
    from commbench.record.reader import to_json
    from commbench.report import as_dict, read_report

    if output:
        _check(output)
    report = read_report(files)
    if output:
        _write(report, output, title, size)
    if as_json:
        click.echo(to_json({**as_dict(report, size), "figure": str(output) if output else None}))
        return
    _print(report)
    if output:
        click.echo(f"{'page' if _is_page(output) else 'figure'}: {output}")


def _is_page(path: Path) -> bool:
    return path.suffix.lower() == _PAGE


def _check(path: Path) -> None:
    from commbench.figures import sheet

    sheet.check_target(path, suffixes=(*sheet.SUFFIXES, _PAGE))


def _write(report: Report, path: Path, title: str | None, size: int | None) -> None:
    if _is_page(path):
        from commbench import page

        page.write(report, path, title, size)
        return
    from commbench.figures import sheet

    if not sheet.panels(report, size):
        raise UserError(
            f"--output {path}: a figure draws no reproductions: name a page, "
            f"{path.with_suffix(_PAGE)}, or see commbench reproduce"
        )
    sheet.write(report, path, title, size)


def _print(report: Report) -> None:
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for table in _tables(report):
        console.print(table)
        console.print()
    for results in report.experiments:
        console.print(
            f"{results.name}: {len(results.runs)} runs of {len(results.variants)} variants; "
            f"commbench reproduce {results.name} judges them, a page (-o report.html) draws them",
            markup=False,
        )
    for name, outcome in report.computed.items():
        console.print(f"{name}: {outcome.title}", markup=False)
    for note in report.notes:
        console.print(note, markup=False)


_TASK = ("model", "data", "global_batch")


def _tables(report: Report) -> Iterator[Table]:
    if report.trainings:
        yield _trainings(report)
    for setting in dict.fromkeys(timing.setting for timing in report.timings):
        yield _timings([one for one in report.timings if one.setting == setting], setting)


def _table(title: str, texts: list[str], numbers: list[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _trainings(report: Report) -> Table:
    from rich.text import Text  # names may hold what rich takes for markup

    phases = list(dict.fromkeys(name for run in report.trainings for name in run.phase_s))
    table = _table(
        "training: share of a step for each phase, mean over workers and steps",
        ["run", "model", "data"],
        ["batch", "top-1", "after", "step", *phases],
    )
    for run in report.trainings:
        measured = len(run.evaluations["top1"]) > 0
        table.add_row(
            *map(Text, (run.label, *(str(run.task.get(name, "-")) for name in _TASK))),
            f"{run.evaluations['top1'][-1]:.2%}" if measured else "-",
            f"{run.evaluations['time_s'][-1]:.1f} s" if measured else "-",
            f"{1e3 * run.step_s():.1f} ms" if run.phase_s else "-",
            *(f"{run.phase_s[p] / run.step_s():.1%}" if p in run.phase_s else "-" for p in phases),
        )
    return table


def _timings(timings: list[Timing], setting: str) -> Table:
    from rich.text import Text

    table = _table(
        f"sweep ({setting}): time of the slowest rank",
        ["exchange"],
        [
            *("ranks", "size (B)", "iterations", "min (us)", "median (us)", "p99 (us)", "max (us)"),
            *("hottest rank (B)", "wrong"),
        ],
    )
    for timing in sorted(timings, key=lambda one: (one.ranks, one.size)):
        table.add_row(
            Text(timing.exchange),
            str(timing.ranks),
            f"{timing.size:,}",
            str(len(timing.slowest_s)),
            *(f"{value:,.1f}" for value in timing.time_us().values()),
            *(
                "-" if math.isnan(value) else f"{value:,.0f}"
                for value in (timing.hottest_bytes, timing.wrong)
            ),
        )
    return table
