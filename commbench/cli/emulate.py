"""`commbench emulate`: a cluster's network on one machine, and any command on its hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commbench.cli.options import Number, output_options, timeout_option
from commbench.cli.sweep import Size

if TYPE_CHECKING:
    from commbench.emulation.layout import Layout
    from commbench.emulation.settings import Timing


@click.command("emulate")
@click.option("--hosts", type=int, default=8, show_default=True, help="Hosts, a rank on each.")
@click.option(
    "--rate",
    default="100mbit",
    show_default=True,
    help="What a host's link carries each way: 100mbit, 1gbit.",
)
@click.option(
    "--exchange",
    default="parameter-server,tree,ring",
    show_default=True,
    help="Exchanges to time, as of `commbench sweep`.",
)
@click.option("--bytes", "nbytes", type=Size(), default="3M", show_default=True, help="The buffer.")
@click.option(
    "--ranks",
    help="How many of the hosts exchange, several with commas: 2,4,8. "
    "[default: powers of two up to --hosts]",
)
@click.option("-n", "--iters", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--row-seconds",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    help="Where an exchange takes long, time it so often that all take about so long; at least "
    "once.",
)
@click.option("--racks", type=int, default=1, show_default=True, help="Switches, one a rack.")
@click.option(
    "--oversubscription",
    type=Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times less than its hosts' links together a rack's uplink carries.",
)
@click.option(
    "--place",
    type=click.Choice(["block", "round-robin"]),
    default="block",
    show_default=True,
    help="Fill one rack with ranks after another, or deal them out.",
)
@click.option(
    "--mtu",
    type=click.IntRange(min=576, max=65535),
    default=9000,
    show_default=True,
    help="Largest packet; fewer of them cost less CPU.",
)
@click.option(
    "--burst",
    type=Size(),
    help="What a link sends at once after a pause, for nothing. [default: 16K, or a packet]",
)
@timeout_option("Longest wait for a peer.")
@output_options
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(**options: Any) -> None:
    """Time exchanges over real MPI and TCP between emulated hosts, whose links are slow.

    Every host is a network namespace on this machine, its link shaped both ways, on a bridge.
    Without a command, exchanges are timed over the first p of the hosts. What follows -- is a
    command of commbench that runs with a rank on every host:

    \b
      commbench emulate --hosts 8 --rate 100mbit --exchange parameter-server,tree,ring
      commbench emulate --hosts 4 --rate 1gbit -- train --model nin --exchange ring --steps 5

    \b
    seconds   median over iterations, with the least and the most; the slowest rank's
    theory    from the schedule's counts: latency, and the busiest link of each level
    CPU       the ranks' own share of all cores; all: anybody's
    late      share of the time for which ranks were ready and had no core
    wire      bytes that the shaped links carried, over those that the schedule counts
    bound by  CPU-bound: the cores decided and not the links; not for conclusions

    Needs Linux, root (CAP_NET_ADMIN and CAP_SYS_ADMIN), iproute2 with tc, and util-linux. Without:
    --transport emulated of `commbench sweep` and `train`. Leaves nothing behind, even if killed.
    """
    from commbench.emulation.layout import Layout
    from commbench.emulation.machine import require
    from commbench.emulation.start import start
    from commbench.errors import UserError
    from commbench.launcher import is_launched
    from commbench.transport.link import Rate

    if is_launched():
        raise UserError("commbench emulate starts mpirun itself: run it without mpirun")
    try:
        rate = Rate(options["rate"])
    except ValueError as error:
        raise UserError(f"--rate: {error}") from None
    mtu = options["mtu"]
    layout = Layout(
        hosts=options["hosts"],
        rate=rate,
        racks=options["racks"],
        oversubscription=options["oversubscription"],
        place=options["place"],
        mtu=mtu,
        burst=max(16384, mtu + 14) if options["burst"] is None else options["burst"],
    )
    inner = list(options["command_line"])
    if inner:
        program = ["-m", "commbench", *inner]
    else:
        program = ["-m", "commbench.emulation.ranks", _timing(options, layout).to_json()]
    require()
    sys.exit(start(layout, program))


def _timing(options: dict[str, Any], layout: Layout) -> Timing:
    from commbench.emulation.settings import Timing
    from commbench.emulation.start import require_in_reach
    from commbench.errors import UserError
    from commbench.record import check_output
    from commbench.registry import parse_exchanges

    if options["nbytes"] < 4:
        raise UserError(f"--bytes {int(options['nbytes'])}: give 4 or more, one float32")
    choices = parse_exchanges(options["exchange"])
    for choice in choices:
        if choice.asynchronous:
            raise UserError(
                f"--exchange {choice.spec}: it follows no schedule that could be timed alone; "
                "emulate it with `commbench emulate ... -- train`"
            )
    require_in_reach(options["output"] or options["results"])
    if options["output"]:
        check_output(options["output"])
    return Timing(
        layout=layout,
        exchanges=[choice.spec for choice in choices],
        ranks=_sizes(options["ranks"], layout.hosts),
        nbytes=int(options["nbytes"]) // 4 * 4,
        iterations=options["iters"],
        row_seconds=options["row_seconds"],
        timeout_s=options["timeout"],
        output=options["output"],
        results=Path(options["results"]),
        command_line=sys.argv,
    )


def _sizes(text: str | None, hosts: int) -> list[int]:
    from commbench.emulation.settings import powers_of_two
    from commbench.errors import UserError

    if text is None:
        return powers_of_two(hosts)
    words = [word.strip() for word in text.split(",")]
    right = all(word.isascii() and word.isdigit() and len(word) < 9 for word in words)
    sizes = sorted({int(word) for word in words}) if right else [0]
    if sizes[0] < 2 or sizes[-1] > hosts:
        raise UserError(f"--ranks {text}: give numbers from 2 to --hosts {hosts}, such as 2,4,8")
    return sizes
