"""`commbench simulate`: what an exchange takes on a cluster's wires, with contention."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import Number, take_topology_options, topology_options
from commbench.cli.sweep import Size
from commbench.cli.verify import Sizes
from commbench.errors import UserError
from commbench.launcher import launched_size
from commbench.network.placement import PLACES, place_ranks

if TYPE_CHECKING:
    from commbench.network.cluster import Cluster
    from commbench.network.simgrid import Simulated
    from commbench.network.simgrid_file import SimulationFile
    from commbench.registry import Choice


@click.command("simulate")
@click.option("--exchange", required=True, help="NAME[@option=value...], a,b,c or all.")
@click.option(
    "--cluster",
    "cluster_name",
    required=True,
    help="NAME of `commbench info --clusters`, or the path of a .toml file.",
)
@click.option(
    "--ranks", type=Sizes(), required=True, metavar="NUMBERS", help="Such as 64 or 64,256."
)
@click.option("--bytes", "n_bytes", type=Size(), default="30M", show_default=True)
@click.option(
    "--place",
    type=click.Choice(PLACES),
    default="block",
    show_default=True,
    help="Which ranks are on which nodes: one node full after another; dealt out to nodes and "
    "switches in turn; or nodes drawn from the whole cluster.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of random.")
@click.option(
    "--limit",
    "limit_s",
    type=Number(min=0, min_open=True),
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one simulation; those that take longer are left out.",
)
@topology_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a run file as well.")
def command(
    *,
    exchange: str,
    cluster_name: str,
    ranks: list[int],
    n_bytes: int,
    as_json: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Replay exchanges in SimGrid, on a cluster's layout: star, torus, fat tree or dragonfly.

    \b
      commbench simulate --exchange tree,ring --cluster fat-tree --ranks 64,128
      commbench simulate --exchange ring --cluster titan-gemini --ranks 256 --place random

    The same schedules that train and sweep run, message by message. Several simulations run at
    once, on as many cores as there are.

    \b
    simulated  until the last rank has the sum
    predicted  the same, had messages of different nodes never met (docs/CLUSTERS.md)
    ratio      simulated / predicted
    hottest    the busiest link, and for which part of the time it is busy
    took       to simulate

    docs/SIMULATION.md tells what is modelled. Needs SimGrid: Debian's python3-simgrid. Exits with 1
    if a simulation took longer than --limit.
    """
    from commbench.network.cluster import load_cluster
    from commbench.network.simgrid import require_simgrid
    from commbench.network.simgrid_platform import require_shape
    from commbench.record import check_output
    from commbench.registry import parse_exchanges

    if launched_size() > 1:
        raise UserError("commbench simulate starts its own processes: run it without mpirun")
    require_simgrid()
    if n_bytes < 1:
        raise UserError(f"--bytes {n_bytes}: give at least 1")
    given = take_topology_options(options)
    cluster = load_cluster(cluster_name)
    require_shape(cluster)
    sizes = list(dict.fromkeys(ranks))
    choices = parse_exchanges(exchange, given)
    placed = [place_ranks(cluster, size, options["place"], options["seed"]) for size in sizes]
    cases, left_out = _cases(choices, placed, every=exchange == "all")
    if output:
        check_output(output)
    told = {"exchange": exchange, **given, "cluster": cluster_name, "ranks": sizes, **options}
    with _file(output, cases, n_bytes, cluster, told) as file:
        done, late = _simulate(cases, n_bytes, cluster, options, file, quiet=as_json)
    if as_json:
        _print_json(done, [*left_out, *late], cluster, options)
    else:
        for reason in (*left_out, *late):
            print(f"left out: {reason}")
    if late:
        sys.exit(1)


def _cases(
    choices: list[Choice], placed: list[list[int]], *, every: bool
) -> tuple[list[tuple[Choice, int]], list[str]]:
    """What to simulate; of all exchanges those that can be, and why others cannot."""
    from commbench.network.simgrid import require_schedule

    cases, left_out = [], []
    for choice in choices:
        for nodes in placed:
            try:
                # Of all exchanges, the asynchronous one would only repeat a synchronous one.
                if every:
                    choice.parts(len(nodes))
                require_schedule(choice, nodes)
            except UserError as error:
                if not every:
                    raise
                left_out.append(str(error))
            else:
                cases.append((choice, len(nodes)))
    return cases, list(dict.fromkeys(left_out))


@contextmanager
def _file(
    path: Path | None,
    cases: list[tuple[Choice, int]],
    n_bytes: int,
    cluster: Cluster,
    options: dict[str, Any],
) -> Iterator[SimulationFile | None]:
    """The run file, if one is wanted; that of an interrupted run keeps what it has."""
    if path is None:
        yield None
        return
    from commbench.network.simgrid_file import SimulationFile

    exchanges = dict.fromkeys(choice.spec for choice, _ in cases)
    sizes = dict.fromkeys(size for _, size in cases)
    file = SimulationFile(path, (list(exchanges), list(sizes)), n_bytes, cluster, options)
    with file.run:
        yield file
        file.finish()


def _simulate(
    cases: list[tuple[Choice, int]],
    n_bytes: int,
    cluster: Cluster,
    options: dict[str, Any],
    file: SimulationFile | None,
    *,
    quiet: bool,
) -> tuple[list[Simulated], list[str]]:
    """All of them, each told as soon as it is known; what came out, and what took too long."""
    from commbench.network.simgrid import TooLongError, simulate_all

    done, late = [], []
    width = max([len("exchange"), *(len(choice.spec) for choice, _ in cases)])
    if not quiet:
        print(
            f"{'exchange':{width}}  ranks  simulated (s)  predicted (s)  ratio  took (s)  hottest"
        )
    results = simulate_all(cases, n_bytes, cluster, **options)
    for (choice, _), one in zip(cases, results, strict=True):
        if isinstance(one, TooLongError):
            late.append(str(one))
            continue
        done.append(one)
        if file:
            file.add(choice.spec, one)
        if not quiet:
            print(
                f"{choice.spec:{width}}  {one.ranks:5}  {one.seconds:13.6g}  "
                f"{one.predicted_s:13.6g}  {one.ratio:5.2f}  {one.wall_s:8.1f}  {_hottest(one)}",
                flush=True,
            )
    return done, late


def _hottest(one: Simulated) -> str:
    return f"{one.hottest_link}, {100 * one.hottest_share:.0f} %" if one.hottest_link else "-"


def _print_json(
    done: list[Simulated], left_out: list[str], cluster: Cluster, options: dict[str, Any]
) -> None:
    from dataclasses import asdict

    from commbench.record.reader import to_json

    rows = [{**asdict(one), "ratio": one.ratio} for one in done]
    facts = {"cluster": cluster.name, "place": options["place"], "seed": options["seed"]}
    click.echo(to_json({**facts, "simulations": rows, "left_out": left_out}))
