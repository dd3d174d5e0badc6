"""`commbench sweep`: the exchanges alone."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import (
    F,
    Number,
    cluster_option,
    exchange_options,
    output_options,
    take_topology_options,
    take_transport,
)
from commbench.units import Bytes

if TYPE_CHECKING:
    from commbench.job import Job
    from commbench.network.cluster import Cluster
    from commbench.sweep import SweepSettings
    from commbench.sweep_table import Row

ALIASES = {"float": "float32", "double": "float64", "half": "float16"}


class Size(click.ParamType[int]):
    """A number of bytes; K, M and G are powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read ``4K``, ``1.5M`` or ``30380704``."""
        if isinstance(value, int):
            return value
        try:
            return int(Bytes(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def measuring_options(function: F, iterations: int = 20) -> F:
    """``-b -e -n -w -d``: what is measured, and how often; as in nccl-tests."""
    for option in (
        click.option(
            "-d",
            "--datatype",
            default="float32",
            show_default=True,
            help="float32 (float), float64 (double), float16 (half) or bfloat16.",
        ),
        click.option(
            "-w", "--warmup-iters", type=click.IntRange(min=0), default=5, show_default=True
        ),
        click.option(
            "-n", "--iters", type=click.IntRange(min=1), default=iterations, show_default=True
        ),
        click.option("-e", "--maxbytes", type=Size(), default="32M", show_default=True),
        click.option("-b", "--minbytes", type=Size(), default="4K", show_default=True),
    ):
        function = option(function)
    return function


@click.command("sweep")
@click.option(
    "--exchange",
    default="all",
    show_default=True,
    help="NAME[@option=value...], by size tree:64K:ring, or auto (see `commbench tune`); several "
    "with commas, or all. In the path of an .xml file a backslash goes before , @ : and \\.",
)
@measuring_options
@click.option("-i", "--stepbytes", type=Size(), help="Raise the size by this much each time.")
@click.option(
    "-f",
    "--stepfactor",
    type=Number(min=1, min_open=True),
    default=2.0,
    show_default=True,
    help="Multiply the size each time, unless --stepbytes is given.",
)
@click.option(
    "--wire",
    default="float32",
    show_default=True,
    metavar="FORMAT",
    help="Time the exchange of float32 gradients that travel as float16, bfloat16, topk:F or "
    "powersgd:R, compression included, and measure the error of the sum.",
)
@click.option("-c", "--check", is_flag=True, help="Check every element of every sum.")
@click.option("--json", "json_file", help="Write the results as JSON; - for standard output.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write them as CSV.")
@cluster_option
@output_options
@exchange_options
def command(**options: Any) -> None:
    """Time the exchanges alone over buffer sizes, with nccl-tests' options and table.

    All exchanges take turns within one run, from the same buffer, after the same warm-up.

    \b
    size      bytes of the buffer, rounded down to whole elements: count
    type      element type; redop and root are nccl-tests': always sum and -1
    min median p99 max
              the slowest rank's time, over the iterations
    algbw     size / median; GB/s are 1e9 bytes a second
    busbw     algbw * 2(p-1)/p for p ranks: what the link of a rank of a ring carries
    hottest   what this algorithm's busiest rank sends or receives, the greater,
              in buffer sizes
    bound     2(p-1)/p: the least that any all-reduce moves through its busiest rank
              (with ranks that only serve beside w workers: 2(w-1)/p, but at least 1)
    linkbw    algbw * hottest: what the link of the busiest rank carried
    #wrong    elements with a wrong sum, over all workers and iterations (--check)
    error     with --wire: how far one exchange of white noise, without what a
              format makes up for later, is from the exact sum (norm over norm)

    Exits with 1 if any sum was wrong, after all files are written.
    """
    from commbench.arrays import element_type
    from commbench.errors import UserError
    from commbench.job import mpi_job
    from commbench.network.predicted import cluster_of
    from commbench.registry import admitted, parse_exchanges, place_all, without_library
    from commbench.sweep import SweepSettings, step_sizes, sweep
    from commbench.transport import is_emulated
    from commbench.tune import resolve_auto
    from commbench.wire import carrying, parse_wire

    datatype = ALIASES.get(options["datatype"], options["datatype"])
    element_type(datatype)
    given = take_topology_options(options)
    transport = take_transport(options)
    wire = parse_wire(options["wire"])
    if not wire.plain and (datatype != "float32" or options["check"]):
        raise UserError(
            f"--wire {wire.spec} is a form of float32 buffers whose sums are not exact: "
            "leave out --datatype and --check; the error is always measured"
        )
    settings = SweepSettings(
        exchanges=[],
        sizes_bytes=step_sizes(
            options["minbytes"], options["maxbytes"], options["stepfactor"], options["stepbytes"]
        ),
        iterations=options["iters"],
        warmup=options["warmup_iters"],
        check=options["check"],
        dtype=datatype,
        device=options["device"],
        transport=transport,
        timeout_s=options["timeout"],
        output=options["output"],
        results=options["results"],
        wire=wire,
    )
    if options["cluster"] and not wire.plain:
        raise UserError(
            f"--cluster prices buffers as they are, and --wire {wire.spec} compresses them: give "
            "one of the two"
        )
    with mpi_job(options["timeout"]) as job:
        cluster = job.agree(lambda: cluster_of(options["cluster"], job.size))
        specs = resolve_auto(
            job,
            options["exchange"],
            options["tuning"],
            device=settings.device,
            dtype=datatype if wire.plain else wire.dtype,
            transport=settings.transport,
        )
        nodes = job.nodes()
        choices = job.agree(lambda: place_all(parse_exchanges(specs, given), nodes))
        left_out: list[str] = []
        if specs == "all":
            # Not every exchange runs on every number of ranks; one that was named must.
            choices, left_out = admitted(choices, job.size)
            choices, more = carrying(wire, choices)
            left_out += more
            if is_emulated(transport):
                choices, more = without_library(choices, job.size)
                left_out += more
        settings = replace(settings, exchanges=choices)
        table = _Table(
            job, settings, left_out, options["json_file"], options["csv_file"], cluster=cluster
        )
        job.on_root(table.check_files)
        rows = sweep(job, settings, table.row)
        wrong = job.on_root(lambda: table.finish(rows or []))
        if wrong:
            sys.exit(1)


class _Table:
    """What rank 0 prints and writes besides the run file."""

    def __init__(
        self,
        job: Job,
        settings: SweepSettings,
        left_out: list[str],
        json_file: str | None,
        csv_file: Path | None,
        *,
        cluster: Cluster | None,
    ) -> None:
        from datetime import UTC, datetime

        self.job = job
        self.settings = settings
        self.left_out = left_out
        self.json_file = json_file
        self.csv_file = csv_file
        self.cluster = cluster
        self.start = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        # Standard output is for one thing: the JSON if it was asked for, else the table.
        self.stream = sys.stderr if json_file == "-" else sys.stdout
        self.begun = False

    def check_files(self) -> None:
        """Refuse files that could not be written at the end of a long sweep."""
        from commbench.errors import UserError

        for path in (self.csv_file, Path(self.json_file or "-")):
            if path is None or str(path) == "-":
                continue
            if not path.parent.is_dir():
                raise UserError(f"cannot write {path}: there is no folder {path.parent}")
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder, name a file")
            if not os.access(path if path.exists() else path.parent, os.W_OK):
                raise UserError(f"cannot write {path}: no permission")

    def row(self, row: Row) -> None:
        """Print a row, after the header if it is the first."""
        from commbench.sweep_table import name_width, table_header, table_row

        width = name_width(choice.spec for choice in self.settings.exchanges)
        if not self.begun:
            self.begun = True
            inexact = not self.settings.wire.plain
            for line in table_header(self.facts(), width, inexact):
                print(line, file=self.stream)
        print(table_row(row, width), file=self.stream, flush=True)

    def facts(self) -> dict[str, object]:
        """What the ``#`` lines tell."""
        from commbench import environment
        from commbench.transport import transport_name

        settings = self.settings
        return {
            "commbench": ", ".join(f"{k} {v}" for k, v in environment.versions().items()),
            "MPI": environment.mpi_library(),
            "ranks": f"{self.job.size}, {self.job.local_size} of them on {self.job.host}",
            "device": settings.device,
            **({} if settings.wire.plain else {"wire": settings.wire.spec}),
            "transport": transport_name(settings.transport, settings.device),
            "iterations": f"{settings.iterations} after {settings.warmup} to warm up, "
            "exchanges in turn",
            **{f"left out ({number})": why for number, why in enumerate(self.left_out, 1)},
        }

    def finish(self, rows: list[Row]) -> int:
        """Print the footer and write the files; the number of wrong elements."""
        from commbench.sweep_table import table_footer

        for line in table_footer(rows):
            print(line, file=self.stream, flush=True)
        if self.cluster:
            from commbench.network.predicted import sweep_lines

            for line in sweep_lines(rows, self.job.size, self.cluster):
                print(line, file=self.stream, flush=True)
        if self.json_file:
            self.write_json(rows)
        if self.csv_file:
            self.write_csv(rows)
        return sum(row.wrong or 0 for row in rows)

    def write_json(self, rows: list[Row]) -> None:
        """nccl-tests' keys; numbers that are not known are null."""
        from dataclasses import asdict

        import commbench
        from commbench import environment
        from commbench.record.reader import to_json

        document = {
            "version": commbench.__version__,
            "start_time": self.start,
            "args": self.settings.as_options(),
            "env": {**environment.versions(), **environment.variables()},
            "ranks": self.job.size,
            "results": [asdict(row) for row in rows],
        }
        text = to_json(document)
        if self.json_file == "-":
            print(text, flush=True)
        elif self.json_file:
            Path(self.json_file).write_text(f"{text}\n")

    def write_csv(self, rows: list[Row]) -> None:
        """One line a row, the times in columns of their own."""
        import csv
        from dataclasses import asdict

        assert self.csv_file is not None
        with self.csv_file.open("w", newline="") as file:
            writer: Any = None
            for row in rows:
                cells = asdict(row)
                times = {f"time_us_{name}": value for name, value in cells.pop("time_us").items()}
                cells = {**cells, **times}
                if writer is None:
                    writer = csv.DictWriter(file, list(cells))
                    writer.writeheader()
                writer.writerow(cells)
