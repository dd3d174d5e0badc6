"""`commbench info`: what a run file says, or what this installation can do."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.clusters import cluster_facts, cluster_table
from commbench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

# Computed by the summary and shown in tables of their own, or not worth a row.
_APART = {
    *("file", "format", "status", "phases_s", "sweep", "buckets", "emulation", "simulation"),
    *("options", "versions", "environment"),
}


@click.command("info")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--models",
    is_flag=True,
    help="Tell the models that can be trained: parameters, tensors, multiply-adds and activations.",
)
@click.option(
    "--clusters",
    is_flag=True,
    help="Tell the clusters that exchanges can be priced on: nodes, links and layout.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(file: Path | None, models: bool, clusters: bool, as_json: bool) -> None:
    """Tell what a run FILE says; without FILE, what this installation can do.

    FILE may belong to a run that still goes on or was killed.
    """
    if models and clusters:
        raise UserError("--models and --clusters are two questions: ask one at a time")
    if models or clusters:
        flag = "--models" if models else "--clusters"
        if file is not None:
            raise UserError(f"{flag} tells of no file: drop {file}, or drop {flag}")
        _tell(_models(), _model_table, as_json) if models else _tell(
            cluster_facts(), cluster_table, as_json
        )
        return
    if file is None:
        installation = _installation()
        click.echo(json.dumps(installation, indent=2)) if as_json else _show(
            [_pairs("commbench", installation)]
        )
        return
    from commbench.record.reader import summary, to_json

    run = summary(file)
    click.echo(to_json(run)) if as_json else _show(_run_tables(run))


def _tell(
    facts: list[dict[str, Any]], table: Callable[[list[dict[str, Any]]], Table], as_json: bool
) -> None:
    click.echo(json.dumps(facts, indent=2)) if as_json else _show([table(facts)])


def _installation() -> dict[str, Any]:
    import mpi4py

    from commbench import environment
    from commbench.registry import topology_names
    from commbench.transport import CPU_TRANSPORTS
    from commbench.transport.gpus import missing

    mpi4py.rc.initialize = False  # asking for the version must not start MPI
    try:
        mpi = environment.mpi_library()
    except (ImportError, RuntimeError) as error:
        mpi = f"none: {error}"
    lacking = missing()
    return {
        "versions": environment.versions(),
        "git_revision": environment.git_revision() or "",
        "mpi_library": mpi,
        "host": environment.host(),
        "cpu_model": environment.cpu_model(),
        "cpu_count": environment.cpu_count(),
        "compiled": environment.compiled(),
        "devices": environment.devices(),
        "exchanges": topology_names(),
        "transports": [*CPU_TRANSPORTS, *(name for name, why in lacking.items() if not why)],
        "transports_not_here": {name: why for name, why in lacking.items() if why},
        "environment": environment.variables(),
    }


def _models() -> list[dict[str, Any]]:
    """Every published model as trained, for one sample of the published size."""
    from dataclasses import asdict

    from commbench.workloads.models import build_model, published_models
    from commbench.workloads.models.cost import count_cost

    told = []
    for spec in published_models():
        model = build_model(spec, seed=None)
        shape = list(model.task.shape)
        cost = asdict(count_cost(model, training=True))
        told.append({"model": spec, "takes": model.task.kind, "shape": shape, **cost})
    return told


def _model_table(costs: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(
        title="one forward pass of one sample in training, at the published size",
        title_justify="left",
        caption="activations: numbers that enter convolutions, dense and recurrent layers",
        caption_justify="left",
        box=None,
    )
    table.add_column("model", no_wrap=True)
    table.add_column("takes")
    for heading in ("parameters", "tensors", "MACs", "activations"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        numbers = (cost[name] for name in ("parameters", "tensors", "macs", "inputs"))
        shape = "x".join(map(str, cost["shape"]))
        table.add_row(
            cost["model"], f"{cost['takes']} {shape}", *(f"{number:,}" for number in numbers)
        )
    return table


def _run_tables(run: dict[str, Any]) -> list[Table]:
    from commbench.record.reader import progress

    facts = {name: value for name, value in run.items() if name not in _APART}
    tables = [_pairs(run["file"], {"status": progress(run), **facts})]
    for name in ("options", "versions", "environment"):
        if run.get(name):
            tables.append(_pairs(name, run[name]))
    if "phases_s" in run:
        medians = {name: _milliseconds(value) for name, value in run["phases_s"].items()}
        tables.append(_pairs("median over ranks and steps", medians))
    if run.get("buckets"):
        tables.append(_bucket_table(run["buckets"]))
    if "sweep" in run:
        tables.append(_sweep_table(run["sweep"]))
    if "emulation" in run:
        tables.append(_emulation_table(run["emulation"]))
    if "simulation" in run:
        tables.append(_simulation_table(run["simulation"]))
    return tables


def _pairs(title: str, values: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(name), Text(_text(value)))
    return table


def _bucket_table(buckets: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="one exchange of each bucket", title_justify="left", box=None)
    table.add_column("exchange")
    for heading in ("size (B)", "messages", "hottest rank", "moves (B)", "of the least possible"):
        table.add_column(heading, justify="right", no_wrap=True)
    for bucket in buckets:
        numbers = ("bytes", "messages", "hottest_rank", "hottest_rank_bytes")
        percent = bucket["percent_of_bound"]
        table.add_row(
            bucket["algorithm"],
            *(_text(bucket[name]) for name in numbers),
            "-" if math.isnan(percent) else f"{percent:.1f} %",
        )
    return table


def _sweep_table(cells: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="slowest rank, median over iterations", title_justify="left", box=None)
    table.add_column("exchange")
    for heading in ("size (B)", "time", "iterations", "hottest rank (B)", "wrong"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells:
        numbers = (
            cell["size_bytes"],
            cell["iterations"],
            cell["hottest_rank_bytes"],
            cell["wrong"],
        )
        size, iterations, hottest, wrong = map(_text, numbers)
        table.add_row(
            cell["exchange"], size, _milliseconds(cell["median_s"]), iterations, hottest, wrong
        )
    return table


def _emulation_table(cells: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="slowest rank, median over iterations", title_justify="left", box=None)
    table.add_column("exchange")
    for heading in ("ranks", "time", "iterations", "theory", "ratio", "CPU-bound", "wrong"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells:
        ratio = cell["ratio"]
        table.add_row(
            cell["exchange"],
            _text(cell["ranks"]),
            _milliseconds(cell["median_s"]),
            _text(cell["iterations"]),
            _milliseconds(cell["theory_s"]),
            "-" if math.isnan(ratio) else f"{ratio:.2f}",
            {1.0: "yes", 0.0: "no"}.get(cell["cpu_bound"], "-"),
            _text(cell["wrong"]),
        )
    return table


def _simulation_table(cells: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="one exchange, simulated", title_justify="left", box=None)
    table.add_column("exchange")
    for heading in ("ranks", "time", "predicted", "ratio", "busiest link", "took"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells:
        ratio = cell["ratio"]
        table.add_row(
            cell["exchange"],
            _text(cell["ranks"]),
            *(_milliseconds(cell[name]) for name in ("seconds", "predicted_s")),
            "-" if math.isnan(ratio) else f"{ratio:.2f}",
            f"{100 * cell['hottest_share']:.0f} %",
            f"{cell['wall_s']:.1f} s",
        )
    return table


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.3f} ms"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, float) and math.isnan(value):
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.5g}"
    return str(value) or "-"


def _show(tables: list[Table]) -> None:
    from rich.console import Console

    # Piped into a file, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for i, table in enumerate(tables):
        if i:
            console.print()
        console.print(table)
