"""Many ranks on few cores: `mpirun -n 128 python -m benchmarks.scale --output FILE`."""

from __future__ import annotations

import math
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from commbench.cli.sweep import Size

if TYPE_CHECKING:
    from commbench.job import Job

# The gradient of NiN for ImageNet: 7,595,176 parameters of four bytes.
NIN_BYTES = 30_380_704


@click.command()
@click.option(
    "--exchange",
    default="tree,ring,sharded-server,hierarchical@group=8",
    show_default=True,
    help="The exchanges, with commas between.",
)
@click.option("--size", type=Size(), default=NIN_BYTES, show_default=True, help="Bytes.")
@click.option("--transport", default="auto", show_default=True)
@click.option("--iterations", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--launched", type=float, help="Seconds since 1970 when mpirun was called: gives start times."
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=300.0)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The run file.")
def main(**options: Any) -> None:
    """Run exchanges on this job's ranks, one after the other; check the sums, note the memory."""
    from commbench.job import mpi_job

    with mpi_job(options["timeout"]) as job:
        _run(job, options)


def _run(job: Job, options: dict[str, Any]) -> None:
    from commbench.arrays import arrays_for
    from commbench.errors import UserError
    from commbench.exchange import Exchange
    from commbench.plans import plan_all
    from commbench.registry import parse_exchanges
    from commbench.transport import open_transport

    job.barrier()
    in_mpi = time()
    choices = job.agree(lambda: parse_exchanges(options["exchange"]))
    plans = plan_all(job, choices)
    arrays = arrays_for("cpu", "float32")
    transport = open_transport(options["transport"], job, arrays)
    count = options["size"] // 4
    buffer = transport.allocate(count)
    job.barrier()
    launched = options["launched"] or math.nan
    starts = {"start_mpi_s": in_mpi - launched, "start_s": time() - launched}
    specs = [choice.spec for choice in choices]
    file = job.keep_on_root(lambda: _create(job, transport.name, specs, options, starts))
    for index, choice in enumerate(choices):
        schedule = plans.own[choice.for_bytes(4 * count, job.size).spec]
        exchange = Exchange(schedule, buffer, transport, timeout_s=job.timeout_s)
        wrong = 0
        for iteration in range(options["iterations"]):
            _fill(job, buffer)
            job.barrier()
            start = perf_counter()
            exchange.run()
            times = job.gather(np.array([start, perf_counter()]))
            wrong += _wrong(job, buffer)
            if file is not None and times is not None:
                file["scale/seconds"][index, iteration] = times[:, 1].max() - times[:, 0].min()
        memory = job.gather(np.array(_memory(), np.float64))
        everywhere = int(job.all_sum(np.array([wrong]))[0])
        if file is not None and memory is not None:
            file["scale/wrong"][index] = everywhere
            for name, values in zip(("proportional", "page_tables", "peak"), memory.T, strict=True):
                file[f"scale/{name}_bytes"][index] = values
            print(f"# {choice.spec}: {everywhere} wrong", flush=True)
    if file is not None:
        wrong = int(file["scale/wrong"].sum())
        file.finish(wrong=wrong)
    if job.on_root(lambda: wrong):
        raise UserError(f"some sums were wrong: {options['output']} tells whose")


def _fill(job: Job, buffer: Any) -> None:
    """Put this rank's inputs in its buffer; a second array of them would double the memory."""
    from commbench.inputs import blocks, fill

    for start, stop in blocks(len(buffer)):
        buffer[start:stop] = fill(stop - start, job.rank, job.size, "float32", start)


def _wrong(job: Job, buffer: Any) -> int:
    from commbench.inputs import blocks, total

    ranks = range(job.size)
    return sum(
        int(
            np.count_nonzero(
                buffer[start:stop] != total(stop - start, ranks, job.size, "float32", start)
            )
        )
        for start, stop in blocks(len(buffer))
    )


def _memory() -> tuple[int, int, int]:
    """Bytes: proportional set size, page tables, and the peak of the resident set.

    The first counts memory that k processes have mapped as 1/k in each, so the sum over all ranks
    is what they take together. The peak counts all of it in each.
    """

    def look_up(path: str, key: str) -> int:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return 1024 * int(line.split()[1])
        raise KeyError(key)

    status = "/proc/self/status"
    return (
        look_up("/proc/self/smaps_rollup", "Pss:"),
        look_up(status, "VmPTE:"),
        look_up(status, "VmHWM:"),
    )


def _create(
    job: Job, transport: str, specs: list[str], options: dict[str, Any], starts: dict[str, float]
) -> Any:
    """The run file; `starts` are seconds from the launch until all ranks were in MPI, and ready."""
    from commbench.record import Group, RunFile, Variable

    per_rank = ("exchange", "rank")
    variables = {
        "exchange": Variable(("exchange",), "exchange and options", data=np.array(specs, str)),
        "iteration": Variable(
            ("iteration",), "iteration, from 0", data=np.arange(options["iterations"])
        ),
        "rank": Variable(("rank",), "MPI rank", data=np.arange(job.size)),
        "seconds": Variable(
            ("exchange", "iteration"), "from the first rank's start to the last one's end", "s"
        ),
        "wrong": Variable(("exchange",), "elements found wrong, all ranks together"),
        "proportional_bytes": Variable(per_rank, "proportional set size afterwards", "byte"),
        "page_tables_bytes": Variable(per_rank, "page tables afterwards", "byte"),
        "peak_bytes": Variable(per_rank, "peak of the resident set so far", "byte"),
    }
    return RunFile.create(
        options["output"],
        kind="benchmark-scale",
        seed=0,
        hosts=[job.host] * job.size,
        devices=["cpu"] * job.size,
        options=options,
        attributes={"ranks": job.size, "transport": transport, "dtype": "float32", **starts},
        groups=[Group("scale", variables)],
    )


if __name__ == "__main__":
    main()
