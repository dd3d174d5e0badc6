"""Options that several commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from commbench.errors import UserError
from commbench.transport import EMULATED, TRANSPORTS, link_of

F = TypeVar("F", bound=Callable[..., Any])

# More than any machine has cores for.
MOST_THREADS = 1024
# torch's generators take 64 bits, with a sign.
MOST_SEED = 2**63 - 1


class Number(click.FloatRange):
    """A finite number within bounds; click's own lets nan pass them all."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read ``0.5``."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


_TOPOLOGY_OPTIONS = ("server", "servers", "segments", "group")


def topology_options(function: F) -> F:
    """``--server --servers --segments --group``: options of the exchanges that have them."""
    for option in (
        click.option(
            "--group",
            metavar="K|node|RANKS",
            help="hierarchical, hybrid: so many neighbours in a group, or the ranks of each node, "
            "or these ranks: 0-3/4-7, 0+2/1+3. [default: about sqrt(p/2) neighbours]",
        ),
        click.option(
            "--segments",
            type=click.IntRange(min=1),
            help="tree, double-tree, ring: cut the buffer and send the parts as a pipeline.",
        ),
        click.option(
            "--servers",
            type=click.IntRange(min=0),
            help="sharded-server, ps-async: so many ranks only serve. [default: 0, every worker "
            "serves; ps-async: 1]",
        ),
        click.option(
            "--server",
            type=click.Choice(["colocated", "dedicated"]),
            help="parameter-server: rank 0 is a worker as well (colocated, the default) or only "
            "serves and gets no data (dedicated).",
        ),
    ):
        function = option(function)
    return function


def take_topology_options(options: dict[str, Any]) -> dict[str, str]:
    """Take the options of `topology_options` out of a command's, those that were given."""
    taken = {name: options.pop(name) for name in _TOPOLOGY_OPTIONS}
    return {name: str(value) for name, value in taken.items() if value is not None}


def loaders_option(function: F) -> F:
    """``--loaders``: threads that read, decode and augment."""
    return click.option(
        "--loaders",
        type=click.IntRange(0, MOST_THREADS),
        metavar="N",
        help="Threads of a rank that make the next batches while it is busy with one; 0 makes each "
        "when it is needed. The bits are the same. [default: for pictures from files, the cores "
        "shared out among the node's ranks; 0 for data in memory]",
    )(function)


def augment_on_option(function: F) -> F:
    """``--augment-on``: where pictures are scaled and coloured."""
    return click.option(
        "--augment-on",
        type=click.Choice(["auto", "cpu", "device"]),
        default="auto",
        show_default=True,
        help="Where pictures from --data PATH are scaled, flipped and coloured: by the loaders, "
        "one by one, or on the model's device, a batch at a time. auto is device for GPUs.",
    )(function)


def take_transport(options: dict[str, Any]) -> str:
    """Take ``--transport`` and ``--link`` out of a command's options, as `open_transport` has them.

    Raises:
        UserError: one of them without the other, or a link that is not understood.
    """
    name, link = str(options.pop("transport")), options.pop("link")
    if link is None:
        if name == EMULATED:
            link_of(name)
        return name
    if name != EMULATED:
        raise UserError(f"--link {link} is for --transport emulated, and not for {name}")
    link_of(emulated := f"{name}@{link.replace(' ', '')}")
    return emulated


def timeout_option(what: str) -> Callable[[F], F]:
    """``--timeout``: the longest wait; `what` is its help."""
    return click.option(
        "--timeout",
        type=Number(min=0, min_open=True),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help=what,
    )


def cluster_option(function: F) -> F:
    """``--cluster``: what the cost model says is told beside what was measured."""
    return click.option(
        "--cluster",
        metavar="NAME|FILE",
        help="Tell at the end what the cost model predicts on this cluster, and how far off it is; "
        "`commbench info --clusters` lists them, `commbench calibrate` makes one of this machine.",
    )(function)


def output_options(function: F) -> F:
    """``--output --results``: where the run file goes."""
    for option in (
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Folder for run files without --output.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            help="The run file. [default: a new name in --results]",
        ),
    ):
        function = option(function)
    return function


def exchange_options(function: F) -> F:
    """The topologies' options and ``--transport --device --timeout``: how an exchange runs."""
    for option in (
        click.option(
            "--tuning",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What `commbench tune` found, for --exchange auto. "
            "[default: ~/.cache/commbench/tuning.json]",
        ),
        timeout_option(
            "Longest wait for a peer; then the job ends and names rank, round and peer."
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
            type=click.Choice(["auto", *TRANSPORTS, EMULATED]),
            default="auto",
            show_default=True,
            help="How bytes move between ranks. On CPUs, auto is shared memory within a node and "
            "MPI between nodes; mpi is MPI everywhere; emulated is auto behind the slow links of "
            "--link. On GPUs, auto is the first that can be had of cuda-ipc (within a node), nccl, "
            "cuda-aware and staged; `commbench info` tells.",
        ),
        click.option(
            "--link",
            metavar="RATE[,LATENCY]",
            help="With --transport emulated: what each rank can send, and receive, and how late it "
            "arrives, such as 100mbit,50us.",
        ),
        topology_options,
    ):
        function = option(function)
    return function
