"""`python -m benchmarks.table`: the tables of docs/PERFORMANCE.md, from the run files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.estimate import estimate
from benchmarks.input_results import HEADER as INPUT_HEADER
from benchmarks.input_results import input_rows
from benchmarks.overhead_results import STEPS_HEADER, UPDATES_HEADER, step_rows, update_rows
from benchmarks.results import Result, bytes_text, read, verdicts
from benchmarks.scale_results import ScaleResult, read_scale
from benchmarks.training_results import HEADER, read_training
from commbench.errors import UserError
from commbench.record import open_run

BEGIN = "<!-- benchmarks: begin; written by `make bench` -->"
END = "<!-- benchmarks: end -->"


@click.command()
@click.option(
    "--results",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("results/benchmarks"),
    show_default=True,
    help="The folder of the run files.",
)
@click.option(
    "--document",
    type=click.Path(path_type=Path),
    help="Write the tables between the marks of this file, not to standard output.",
)
def main(results: Path, document: Path | None) -> None:
    """Print the tables of a benchmark, or write them into a document."""
    try:
        text = tables(results)
        if document is None:
            print(text)
        else:
            insert(document, text)
    except UserError as error:
        raise click.ClickException(str(error)) from None


def insert(document: Path, text: str) -> None:
    """Replace what lies between the marks of a document.

    Raises:
        UserError: it does not have both marks.
    """
    old = document.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(END) < old.index(BEGIN):
        raise UserError(f"{document} must have one line {BEGIN} and then one line {END}")
    before, after = old[: old.index(BEGIN)], old[old.index(END) :]
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{after}")


def tables(folder: Path) -> str:
    """All tables, as Markdown.

    Raises:
        UserError: the folder has no run file of a benchmark.
    """
    jobs = [read(path) for path in sorted(folder.glob("exchanges-*.h5"))]
    jobs.sort(key=lambda job: (job.library, job.ranks))
    many = [read_scale(path) for path in sorted(folder.glob("scale-*.h5"))]
    many.sort(key=lambda job: (job.ranks, job.transport))
    if not jobs:
        raise UserError(f"{folder} has no run file of a benchmark: run make bench")
    parts = [
        _conditions(jobs),
        "### Targets",
        _targets(jobs),
        "### Times",
        *(part for job in jobs for part in (_heading(job), _times(job), _ours(job))),
        "### Short buffers",
        _short(jobs),
        "### Loops by hand",
        _loops(jobs),
        "### Across MPI libraries (between runs)",
        _across(jobs),
    ]
    trained = [read_training(path) for path in sorted(folder.glob("training-*.h5"))]
    trained.sort(key=lambda job: (job.library, job.ranks))
    if trained:
        table = _markdown(HEADER, [row for job in trained for row in job.rows()])
        parts += [f"### Training steps, ours by {trained[0].exchange}, against DDP", table]
    if (folder / "models.h5").exists():
        parts += ["### Models, a rank alone", _models(folder / "models.h5")]
    if (folder / "overhead.h5").exists():
        path = folder / "overhead.h5"
        parts += ["### What commbench costs itself", _markdown(STEPS_HEADER, step_rows(path))]
        parts += [_markdown(UPDATES_HEADER, update_rows(path))]
    fed = [row for path in sorted(folder.glob("input-*.h5")) for row in input_rows(path)]
    if fed:
        parts += ["### Batches of JPEGs", _markdown(INPUT_HEADER, fed)]
    if many:
        parts += ["### Many ranks", _many(many)]
    return "\n\n".join(parts)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["-"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace(" - |", "-|")


def _conditions(jobs: Sequence[Result]) -> str:
    facts = jobs[0].facts
    libraries = ", ".join(sorted({job.library for job in jobs}))
    versions = facts["versions"]
    large = [rate / 1e9 for job in jobs for rate in job.copies[1]]
    return (
        f"Measured {facts['start'][:10]} at revision `{facts['git_revision'][:12]}` on "
        f"{facts['cpu_count']} cores of {facts['cpu_model']}: {libraries}, "
        f"torch {versions['torch']}, mpi4py {versions['mpi4py']}, NumPy {versions['numpy']}; "
        f"float32. Copying 64 MiB buffers, all ranks together reached {np.median(large):.1f} GB/s "
        f"in the median, {min(large):.1f} to {max(large):.1f} over the jobs."
    )


def _targets(jobs: Sequence[Result]) -> str:
    rows = [
        [
            verdict.target,
            job.library,
            str(job.ranks),
            verdict.measured.text(2 if verdict.at_least or "10 %" in verdict.target else 1),
            f"{'>=' if verdict.at_least else '<='} {verdict.bound:g}",
            bytes_text(verdict.size),
            verdict.word,
        ]
        for job in jobs
        for verdict in verdicts(job)
    ]
    rows.sort(key=lambda row: row[0].partition("x as")[0])
    header = ["target", "library", "ranks", "measured", "bound", "furthest from it at", "verdict"]
    return _markdown(header, rows)


def _heading(job: Result) -> str:
    return f"**{job.library}, {job.ranks} ranks**"


def _times(job: Result) -> str:
    """The best of ours against the rivals, and against the bound."""
    header = [
        *("size", "Allreduce (us)", "Gloo (us)", "best (us)", "which"),
        *("Allreduce / best", "Gloo / best", "% of copying 64M", "% of copying this size"),
    ]
    rows = [
        [
            bytes_text(size),
            *(_time(job, size, name) for name in ("Allreduce", "Gloo", "best")),
            job.algorithm(size, "best"),
            job.ratio(size, "Allreduce", "best").text(),
            job.ratio(size, "Gloo", "best").text(),
            f"{100 * job.of_copying(size, 'best', large=True):.0f}",
            f"{100 * job.of_copying(size, 'best', large=False):.0f}",
        ]
        for size in job.sizes
    ]
    return _markdown(header, rows)


def _ours(job: Result) -> str:
    """Every exchange of ours over shared memory."""
    names = [name for name in job.names if name.endswith("/shared-memory")]
    header = ["size", *(f"{name.partition('/')[0]} (us)" for name in names)]
    rows = [[bytes_text(size), *(_time(job, size, name) for name in names)] for size in job.sizes]
    return _markdown(header, rows)


def _short(jobs: Sequence[Result]) -> str:
    """`auto` against the library's own where calls cost more than bytes."""
    header = [*("library", "ranks", "size", "Allreduce (us)", "auto (us)", "which")]
    rows = [
        [
            *(job.library, str(job.ranks), bytes_text(size)),
            *(_time(job, size, name, digits=1) for name in ("Allreduce", "auto")),
            job.algorithm(size, "auto"),
            job.difference_us(size, "auto", "Allreduce").text(1),
        ]
        for job in jobs
        for size in job.sizes
        if size < 64 << 10
    ]
    return _markdown([*header, "auto - Allreduce (us)"], rows)


def _loops(jobs: Sequence[Result]) -> str:
    header = [
        *("library", "ranks", "size", "ring by hand (us)", "over mpi / by hand"),
        *("by hand / shared memory", "tree by hand (us)", "over mpi / by hand"),
        "by hand / shared memory",
    ]
    rows = []
    for job in jobs:
        for size in job.sizes:
            row = [job.library, str(job.ranks), bytes_text(size)]
            for name in ("ring", "tree"):
                row += [
                    _time(job, size, f"{name}/mpi4py"),
                    job.ratio(size, f"{name}/mpi", f"{name}/mpi4py").text(),
                    job.ratio(size, f"{name}/mpi4py", f"{name}/shared-memory").text(),
                ]
            rows.append(row)
    return _markdown(header, rows)


def _time(job: Result, size: int, name: str, digits: int = 0) -> str:
    """The median in microseconds, and its interval."""
    return estimate(1e6 * job.seconds(size, name)).text(digits)


def _across(jobs: Sequence[Result]) -> str:
    """Ours under one library against the other's Allreduce: medians of two runs, no intervals."""
    header = ["ours under", "Allreduce of", "ranks", "size", "Allreduce / best"]
    rows = []
    for ours in jobs:
        for other in jobs:
            if other.ranks != ours.ranks or other.library == ours.library:
                continue
            for size in sorted({s for s in ours.sizes if s >= 256 << 10} & set(other.sizes)):
                best = np.nanmedian(ours.seconds(size, "best"))
                theirs = np.nanmedian(other.seconds(size, "Allreduce"))
                labels = [ours.library, other.library, str(ours.ranks), bytes_text(size)]
                rows.append([*labels, f"{theirs / best:.2f}"])
    return _markdown(header, rows)


def _models(path: Path) -> str:
    """How large each model is as published, and how fast it trains at the size used here."""
    with open_run(path) as file:
        table = {name: file["models"][name][:] for name in ("parameters", "macs", "size", "batch")}
        names, seconds = file["models/model"].asstr()[:], file["models/seconds"][:]
    header = ["model", "parameters", "MACs", "size here", "batch", "samples/s"]
    rows = [
        [
            str(name),
            f"{table['parameters'][row]:,}",
            f"{table['macs'][row]:,}",
            str(table["size"][row]),
            str(table["batch"][row]),
            estimate(table["batch"][row] / seconds[row]).text(1),
        ]
        for row, name in enumerate(names)
    ]
    return _markdown(header, rows)


def _many(jobs: Sequence[ScaleResult]) -> str:
    header = [
        *(
            "ranks",
            "transport",
            "exchange",
            "start: MPI / ready (s)",
            "fastest (s)",
            "slowest (s)",
            "wrong",
        ),
        *("memory of all ranks (GB)", "page tables (GB)", "largest rank's peak (MB)"),
    ]
    rows = [row for job in jobs for row in job.rows()]
    return _markdown(header, rows)


if __name__ == "__main__":
    main()
