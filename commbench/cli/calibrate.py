"""`commbench calibrate`: measure the machine it runs on, and write it down as a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commbench.cli.options import timeout_option
from commbench.errors import UserError
from commbench.transport import TRANSPORTS

if TYPE_CHECKING:
    from commbench.calibrate import Calibration, Line
    from commbench.job import Job

_SMALLEST = 64


@click.command("calibrate")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.toml",
    help="The cluster's file; a new one.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", *TRANSPORTS]),
    default="auto",
    show_default=True,
    help="How bytes move between ranks, as for `commbench train`.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the buffers are.",
)
@click.option(
    "--maxbytes",
    "-e",
    default="16M",
    show_default=True,
    metavar="BYTES",
    help="The longest message; from 64 bytes on, each is four times as long as the one before.",
)
@click.option(
    "--iters",
    "-n",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Measurements of every size, eight messages each; the median counts.",
)
@timeout_option("Longest wait for a peer; then the job ends.")
def command(
    *, output: Path, transport: str, device: str, maxbytes: str, iters: int, timeout: float
) -> None:
    """Measure latency, bandwidth and addition, and write them as a cluster.

    \b
      mpirun -n 2 commbench calibrate -o mine.toml
      commbench advise --cluster mine.toml --model nin --ranks 2

    Times messages that two ranks send each other at once, of a node and of two nodes as far as
    there are such, and fits latency + bytes / bandwidth; the file tells how well. Ranks beyond two
    only count. docs/CLUSTERS.md tells the file's form.
    """
    from commbench.arrays import arrays_for
    from commbench.calibrate import calibrate
    from commbench.job import mpi_job
    from commbench.memory import require_room
    from commbench.transport import open_transport
    from commbench.units import Bytes

    try:
        longest = Bytes(maxbytes)
    except ValueError as error:
        raise UserError(f"--maxbytes: {error}") from None
    sizes = [_SMALLEST]
    while sizes[-1] < longest:
        sizes.append(min(4 * sizes[-1], longest))
    with mpi_job(timeout) as job:
        job.on_root(lambda: _check(output))
        arrays = job.agree(lambda: arrays_for(device, "float32", job.local_rank))
        if device == "cpu":
            job.agree(lambda: require_room("--maxbytes", longest, job.local_size))
        link = open_transport(transport, job, arrays)
        found = job.agree(lambda: calibrate(job, link, arrays, sizes, iters))
        job.on_root(lambda: _write(output, document(found, _facts(job, link.name, arrays.device))))


def _check(path: Path) -> None:
    if path.suffix != ".toml":
        raise UserError(f"--output {path}: the name of a cluster's file ends in .toml")
    if os.path.lexists(path):
        raise UserError(f"--output {path}: the file exists: give a new name or move it away")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}; make it first")


def _facts(job: Job, transport: str, device: str) -> dict[str, str]:
    from datetime import UTC, datetime

    from commbench import environment

    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "host": job.host,
        "processor": environment.cpu_model(),
        "device": device,
        "mpi_library": environment.mpi_library(),
        "transport": transport,
        "ranks": str(job.size),
    }


def document(found: Calibration, facts: dict[str, str]) -> str:
    """The cluster's file."""
    from commbench.units import RATE

    lines = [
        "# Measured by `commbench calibrate`; docs/CLUSTERS.md tells the form.",
        f"description = {json.dumps('measured on ' + facts['host'] + ': ' + facts['transport'])}",
        f"source = [{json.dumps('commbench calibrate, ' + facts['date'])}]",
        f"ranks_per_node = {found.ranks_per_node}",
        f'reduce = "{RATE.text(found.reduce_rate, "GB/s")}"',
        "",
    ]
    fits = dict(facts)
    for name, line in (("inside", found.inside), ("between", found.between)):
        if line is not None:
            lines += [*_link(name, line), ""]
            fits[f"{name}_fit"] = _fit(line)
    if found.nodes == 1:
        lines += ["[layout]", 'kind = "star"', "nodes = 1", ""]
    lines += ["[calibration]", *(f"{key} = {json.dumps(text)}" for key, text in fits.items())]
    return "\n".join([*lines, ""])


def _link(name: str, line: Line) -> list[str]:
    from commbench.units import RATE, TIME

    points = zip(line.sizes, line.seconds, line.deviations, strict=True)
    return [
        f"[{name}]",
        f'latency = "{TIME.text(line.latency_s, "us")}"',
        f'bandwidth = "{RATE.text(line.bandwidth, "GB/s")}"',
        "# bytes, measured, and by how much that is more than the line",
        *(f"# {size:>10.0f} {1e6 * took:>12.2f} us {off:>+8.1%}" for size, took, off in points),
    ]


def _fit(line: Line) -> str:
    import numpy as np

    off = np.abs(line.deviations)
    return (
        f"the line is off by {np.median(off):.1%} in the median and {off.max():.1%} at most, over "
        f"{len(off)} sizes"
    )


def _write(path: Path, text: str) -> None:
    try:
        # "x": whoever made the file since it was looked for keeps it.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror}") from error
    click.echo(text, nl=False)
