"""`commbench verify`: prove an exchange's schedules and count them, without running anything."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import take_topology_options, topology_options
from commbench.errors import UserError

if TYPE_CHECKING:
    from commbench.registry import Choice


# Each is a proof or a simulation of its own.
_MOST_SIZES = 10_000


class Sizes(click.ParamType[list[int]]):
    """Numbers of ranks: ``8``, ``1-33,44,64``."""

    name = "ranks"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Read numbers and ranges, from 1."""
        sizes: list[int] = []
        for part in value.split(","):
            first, dash, last = part.strip().partition("-")
            bounds = (first, last) if dash else (first, first)
            if not all(bound.isdecimal() and len(bound) < 9 and int(bound) for bound in bounds):
                self.fail(f"{value!r} is not of the form 8 or 1-33,44,64, from 1", param, ctx)
            if int(bounds[1]) < int(bounds[0]):
                self.fail(f"{value!r}: write the lower number of {part} first", param, ctx)
            numbers = range(int(bounds[0]), int(bounds[1]) + 1)
            if len(sizes) + len(numbers) > _MOST_SIZES:
                self.fail(f"{value!r} are more than {_MOST_SIZES:,} numbers", param, ctx)
            sizes += numbers
        return sizes


@click.command("verify")
@click.option(
    "--exchange", required=True, help="NAME[@option=value...], by size tree:64K:ring, a,b,c or all."
)
@click.option(
    "--ranks",
    "ranges",
    type=Sizes(),
    multiple=True,
    required=True,
    metavar="NUMBERS",
    help="Numbers of ranks: 8, or 1-33,44,64; may be repeated.",
)
@click.option(
    "--count",
    type=click.IntRange(min=0),
    default=7_595_176,
    show_default=True,
    help="Elements in the buffer (float32) for the bytes printed; the proof holds for any. The "
    "default is NiN's gradient.",
)
@topology_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of tables.")
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    metavar="ALGO.XML",
    help="Write the proved schedules as MSCCL's XML: one exchange, one number of ranks.",
)
def command(
    exchange: str,
    ranges: tuple[list[int], ...],
    count: int,
    as_json: bool,
    export: Path | None,
    **options: Any,
) -> None:
    """Prove that every rank ends with every contribution exactly once and nobody waits for ever.

    Plays all ranks symbolically and prints rounds, messages, and the bytes sent and received: by
    the busiest rank and by all together, counted from the schedule, beside the textbook formula.
    Exits with 1 when a schedule is wrong or does not cost what its formula says.

    \b
      commbench verify --exchange all --ranks 1-33,44,48,64,100,128

    proves all there is, each exchange with its defaults, in about 20 seconds; it tells what it
    leaves out because it does not run on some number of ranks.
    """
    from commbench.registry import admitted, parse_exchanges
    from commbench.verify import verify

    choices = parse_exchanges(exchange, take_topology_options(options))
    sizes = list(dict.fromkeys(size for numbers in ranges for size in numbers))
    if export:
        _check_export(export, choices, sizes)
    refused: list[str] = []
    if exchange == "all":
        # Not every exchange runs on every number of ranks; one that was named must.
        refused = [reason for size in sizes for reason in admitted(choices, size)[1]]
    results = [
        verify(choice, size, count)
        for choice in choices
        for size in sizes
        if exchange != "all" or admitted([choice], size)[0]
    ]
    if as_json:
        print(json.dumps([result.to_dict() for result in results], indent=2))
    else:
        _print_table(results, count)
        for reason in dict.fromkeys(refused):
            print(f"left out: {reason}")
    if not all(result.ok for result in results):
        sys.exit(1)
    if export:
        _export(export, choices[0], sizes[0])


def _check_export(path: Path, choices: list[Choice], sizes: list[int]) -> None:
    if len(choices) > 1 or len(sizes) > 1:
        raise UserError(
            f"--export writes one exchange for one number of ranks, not {len(choices)} for "
            f"{len(sizes)}: name one --exchange and one --ranks"
        )
    if not choices[0].plain:
        raise UserError(f"--export {choices[0].spec}: write one of its parts, not a choice by size")
    if os.path.lexists(path):
        raise UserError(f"--export {path}: the file exists: give a new name or move it away")


def _export(path: Path, choice: Choice, size: int) -> None:
    from commbench.msccl import write

    text = write(choice.schedules(size), f"{choice.spec} on {size} ranks")
    try:
        # "x": whoever made the file since it was looked for keeps it.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"--export {path}: {error.strerror}") from error


def _print_table(results: list[Any], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"buffer of {count:,} float32, {4 * count:,} bytes",
        title_justify="left",
    )
    table.add_column("exchange")
    table.add_column("ranks", justify="right")
    table.add_column("")
    for name in ("rounds", "messages", "most sent (B)", "most received (B)", "all sent (B)"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for result in results:
        verdict = "[green]ok[/green]" if result.ok else "[red]WRONG[/red]"
        table.add_row(
            result.exchange, str(result.ranks), "counted\nformula", *result.cells(), verdict
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for result in results:
        if result.note:
            console.print(
                f"{result.exchange} on {result.ranks} ranks: {result.note}",
                markup=False,
                highlight=False,
            )
