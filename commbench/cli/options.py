"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def server_option(function: F) -> F:
    """``--server``: the parameter server's place."""
    return click.option(
        "--server",
        type=click.Choice(["colocated", "dedicated"]),
        help="Parameter server: rank 0 is a worker as well (colocated, the default) or only serves "
        "and gets no data (dedicated).",
    )(function)


def exchange_options(function: F) -> F:
    """``--server --transport --device --timeout``: how an exchange runs."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=300.0,
            show_default=True,
            metavar="SECONDS",
            help="Longest wait for a peer; then the job ends and names rank, round and peer.",
        ),
        click.option(
            "--device",
            type=click.Choice(["cpu", "cuda"]),
            default="cpu",
            show_default=True,
            help="Where the buffers are: NumPy on the CPU or CuPy on the GPU.",
        ),
        click.option(
            "--transport",
            type=click.Choice(["auto", "mpi", "shared-memory"]),
            default="auto",
            show_default=True,
            help="How bytes move between ranks: auto is shared memory within a node and MPI "
            "between nodes; mpi is MPI everywhere.",
        ),
        server_option,
    ):
        function = option(function)
    return function


def topology_options(server: str | None) -> dict[str, str]:
    """The options to hand to the exchanges: those the user gave."""
    return {} if server is None else {"server": server}
