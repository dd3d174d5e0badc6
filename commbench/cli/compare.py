"""`commbench compare`: runs held against each other, as ratios with intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from commbench.compare import Comparison
    from commbench.compare.differences import Difference
    from commbench.compare.sweeps import Cell
    from commbench.compare.trainings import Pair, Quantity
    from commbench.resampling import Estimate

_ONE_RUN_EACH = "one run of each: what another hour, or another seed, would change is not in it"


@click.command("compare")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="The run that the others are held against. [default: the first of FILES]",
)
@click.option(
    "--against",
    metavar="EXCHANGE",
    help="Within one sweep, the exchange that the others are held against. "
    "[default: native, else the first]",
)
@click.option("--force", is_flag=True, help="Compare runs that differ in more than the exchange.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(
    files: tuple[Path, ...], baseline: Path | None, against: str | None, force: bool, as_json: bool
) -> None:
    """Hold runs against each other: ratios with 95 % intervals, from every sample.

    \b
      commbench compare tree.h5 parameter-server.h5
      commbench compare sweep.h5 --against parameter-server

    FILES are trainings, or sweeps; or one sweep, whose exchanges took turns and so are paired round
    by round. Runs that differ in more than the exchange are refused, as are those of other machines
    or MPI libraries; --force compares them all the same and lists how they differ.
    """
    from commbench.compare import compare
    from commbench.record.reader import to_json

    found = compare(files, baseline, against, force=force)
    if as_json:
        click.echo(
            to_json(
                {
                    "baseline": found[0].baseline,
                    "confidence": 0.95,
                    "comparisons": [one.as_dict() for one in found],
                }
            )
        )
        return
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for one in found:
        for part in _parts(one):
            console.print(part, markup=False)
        console.print()


def _parts(one: Comparison) -> Iterator[Table | str]:
    if one.differences:
        yield _differences(one.differences)
    # Not a title of the table, which would break it at the table's width.
    yield _heading(one)
    if one.training:
        yield _training(one.training)
        yield from _sentences(one.training)
    else:
        yield _sweep(one.sweep)
        if one.sweep[0].paired:
            yield "paired: both in the same turn; the sign test's interval of the median ratio"
        else:
            yield f"not paired, so bootstrapped: {_ONE_RUN_EACH}"
    yield from one.notes


def _heading(one: Comparison) -> str:
    if one.training:
        return (
            f"{one.file} ({one.training.second_label}) over "
            f"{one.baseline} ({one.training.first_label}): medians over steps"
        )
    return one.file if one.file == one.baseline else f"{one.file} over {one.baseline}"


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _differences(found: Sequence[Difference]) -> Table:
    from rich.text import Text

    table = _table(["differences", "name", "baseline", "the other", "weight"], [])
    for one in found:
        weight = "not the exchange alone" if one.refused else "may matter"
        cells = (one.kind, one.name, one.first or "-", one.second or "-", weight)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _sweep(cells: Sequence[Cell]) -> Table:
    from commbench.figures.style import seconds_text

    table = _table(["exchange", "over"], ["ranks", "size (B)", "time", "over", "ratio (95 %)", ""])
    for cell in sorted(cells, key=lambda cell: (cell.ranks, cell.size)):
        ranks = dict.fromkeys(cell.ranks)
        table.add_row(
            cell.second_exchange,
            cell.first_exchange,
            " over ".join(str(count) for count in reversed(ranks)),
            f"{cell.size:,}",
            seconds_text(1e6 * cell.second_s.value),
            seconds_text(1e6 * cell.first_s.value),
            cell.ratio.text(),
            cell.ratio.verdict(),
        )
    return table


def _training(pair: Pair) -> Table:
    table = _table([""], ["baseline", "the other", "ratio (95 %)", ""])
    for quantity in pair.quantities:
        name = "exchange, exposed" if quantity.name == "exchange" else quantity.name
        table.add_row(
            name,
            _value(quantity, quantity.first),
            _value(quantity, quantity.second),
            quantity.ratio.text(),
            quantity.ratio.verdict() if quantity.unit == "s" else "",
        )
    accuracy = pair.accuracy
    if accuracy.first == accuracy.first:
        table.add_row("final top-1", f"{accuracy.first:.2%}", f"{accuracy.second:.2%}", "", "")
    return table


def _value(quantity: Quantity, estimate: Estimate) -> str:
    from commbench.figures.style import seconds_text

    if quantity.unit == "s":
        return seconds_text(1e6 * estimate.value)
    return f"{estimate.value:,.1f}"


def _sentences(pair: Pair) -> Iterator[str]:
    """What stands below the table of two trainings."""
    accuracy = pair.accuracy
    if accuracy.first == accuracy.first:
        points = accuracy.points
        bounds = f" ({points.low:+.2f} to {points.high:+.2f})" if points.high < 100 else ""
        yield f"final top-1 of the other: {points.value:+.2f} points{bounds}"
        yield (
            f"top-1 of {accuracy.reached:.1%} after {accuracy.first_reached_s:.1f} s of training; "
            f"the other after {accuracy.second_reached_s:.1f} s"
        )
    if accuracy.epochs:
        at = zip(accuracy.epochs, accuracy.points_at, strict=True)
        told = ", ".join(f"{points:+.2f} after {epoch:g}" for epoch, points in at)
        yield f"points of the other at the same epoch: {told}"
    yield f"{pair.first_steps} and {pair.second_steps} steps, not paired; {_ONE_RUN_EACH}"
