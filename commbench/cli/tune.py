"""`commbench tune`: which exchange for which buffer size."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import (
    Number,
    exchange_options,
    output_options,
    take_topology_options,
    take_transport,
)
from commbench.cli.sweep import ALIASES, measuring_options

if TYPE_CHECKING:
    from commbench.tune import Setting, Tuned


@click.command("tune")
@click.option(
    "--exchange",
    default="all",
    show_default=True,
    help="The candidates: NAME[@option=value...], several with commas, or all.",
)
@partial(measuring_options, iterations=50)
@click.option(
    "-f",
    "--stepfactor",
    type=Number(min=1, min_open=True),
    default=8.0,
    show_default=True,
    help="Multiply the size each time.",
)
@output_options
@exchange_options
def command(**options: Any) -> None:
    """Measure the exchanges in this job and keep the fastest for each buffer size.

    \b
      mpirun -n 4 commbench tune
      mpirun -n 4 commbench train --exchange auto

    A sweep like `commbench sweep`: all candidates take turns. The library's own exchange, native,
    stays unless another is shown to be faster: at each size, the times of each over native's, round
    by round, have a median, and the sign test gives its interval. All intervals of a run hold with
    95 % confidence; one below 1 shows the exchange to be faster, and of several the one of the
    lowest median is taken.

    Between two measured sizes it must have been shown at both. Buffers shorter or longer than all
    measured ones are native's: --minbytes and --maxbytes themselves are measured. What was found is
    a choice by size such as native:32767:ring:32M:native, kept with its intervals for this host,
    MPI library, number of ranks, device, element type and transport.
    """
    from commbench.arrays import element_type
    from commbench.errors import UserError
    from commbench.job import mpi_job
    from commbench.record import default_path, open_run
    from commbench.registry import parse_exchanges, place_all
    from commbench.sweep import SweepSettings, step_sizes, sweep
    from commbench.transport import is_emulated
    from commbench.tune import (
        candidates,
        decide,
        default_file,
        keep,
        require_same_workers,
        require_writable,
        setting_of,
    )

    datatype = ALIASES.get(options["datatype"], options["datatype"])
    element_type(datatype)
    choices = parse_exchanges(options["exchange"], take_topology_options(options))
    sizes = step_sizes(options["minbytes"], options["maxbytes"], options["stepfactor"], None)
    sizes = sorted({*sizes, options["maxbytes"]})
    if is_emulated(transport := take_transport(options)):
        raise UserError(
            "--transport emulated cannot be tuned: the library's own all-reduce, which every other "
            "has to beat, takes no notice of emulated links"
        )
    file: Path = options["tuning"] or default_file()
    with mpi_job(options["timeout"]) as job:
        nodes, every = job.nodes(), options["exchange"] == "all"
        fit = job.agree(lambda: candidates(place_all(choices, nodes), job.size, every=every))
        job.on_root(lambda: require_same_workers(fit, job.size))
        setting = setting_of(job, device=options["device"], dtype=datatype, transport=transport)
        # A file that is not ours is refused now and not after the measurement.
        job.on_root(lambda: require_writable(file))
        output: Path = options["output"] or job.on_root(
            lambda: default_path(options["results"], f"tune-n{job.size}")
        )
        settings = SweepSettings(
            exchanges=fit,
            sizes_bytes=sizes,
            iterations=options["iters"],
            warmup=options["warmup_iters"],
            check=False,
            dtype=datatype,
            device=options["device"],
            transport=transport,
            timeout_s=options["timeout"],
            output=output,
            results=options["results"],
        )
        sweep(job, settings, lambda row: None)

        def finish() -> None:
            with open_run(output) as run:
                tuned = decide(run["sweep"])
            keep(file, setting, tuned, output)
            _print(tuned, setting, [choice.spec for choice in fit], output, file)

        job.on_root(finish)


def _print(tuned: Tuned, setting: Setting, names: list[str], output: Path, file: Path) -> None:
    print(f"# {setting}")
    print(f"# candidates: {', '.join(names)}")
    print(f"{'size (B)':>12} {'median (us)':>12} {'native (us)':>12}  over native, interval")
    for index, size in enumerate(tuned.sizes_bytes):
        median, native = (1e6 * times[index] for times in (tuned.median_s, tuned.native_s))
        own = "N/A" if math.isnan(native) else f"{native:.1f}"
        print(f"{size:>12} {median:>12.1f} {own:>12}  {_evidence(tuned, index)}")
    print(f"# tuned: {tuned.exchange}")
    if tuned.against_native and tuned.rounds < tuned.rounds_needed:
        print(f"# too few rounds to show anything: give --iters {tuned.rounds_needed} or more")
    print(f"# kept in {file} for --exchange auto; run file: {output}", flush=True)


def _evidence(tuned: Tuned, index: int) -> str:
    """Why this exchange was taken at a size, or why not the one that came closest."""
    name = tuned.fastest[index]
    if not tuned.against_native:
        return name
    ratios = {other: cells[index] for other, cells in tuned.against_native.items()}
    told = name if name in ratios else min(ratios, key=lambda other: ratios[other][1])
    low, median, high = ratios[told]
    verdict = name if told == name else f"{name}: {told} is not shown to be faster"
    return f"{median:6.3f} [{low:.3f}, {high:.3f}]  {verdict}"
