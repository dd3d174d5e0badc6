"""One job of the benchmark: `mpirun -n P python -m benchmarks.run --output FILE ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commbench.cli.sweep import Size


class Sizes(click.ParamType[list[int]]):
    """Sizes in bytes with commas between."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Read ``4K,1M``."""
        if isinstance(value, list):
            return value
        return sorted({Size().convert(text, param, ctx) for text in str(value).split(",")})


@click.command()
@click.option(
    "--sizes",
    type=Sizes(),
    default="4K,16K,32K,64K,256K,1M,4M,16M,64M,256M",
    show_default=True,
    help="Bytes of the buffers.",
)
@click.option(
    "--tuning",
    type=click.Path(path_type=Path),
    required=True,
    help="What `commbench tune --tuning` wrote for this job: it gives auto.",
)
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    required=True,
    help="The run file of that tune: it gives the best of our exchanges.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=8.0,
    show_default=True,
    help="Time for each size; from six rounds of all candidates to sixty go with it.",
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(**options: Any) -> None:
    """Time MPI's Allreduce, Gloo, loops by hand and our exchanges in turn, within one MPI job."""
    from commbench.job import mpi_job

    with mpi_job(options["timeout"]) as job:
        from benchmarks.measure import measure

        measure(job, options)


if __name__ == "__main__":
    main()
