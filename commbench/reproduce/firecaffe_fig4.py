"""Figure 4 of FireCaffe: a parameter server against a reduction tree, on 1 to 256 ranks.

Source: Iandola, Ashraf, Moskewicz, Keutzer, "FireCaffe: near-linear acceleration of deep neural
network training on compute clusters" (CVPR 2016), section 4.2: |W| p / BW against
2 |W| log2(p) / BW, for 30 MB of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from pathlib import Path
from typing import Any

import commbench
from commbench.experiments import Finding
from commbench.network.simgrid import find_simgrid
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: computed in a few seconds"

CLUSTER = "titan-gemini"
WEIGHTS = 30e6  # bytes
RANKS = tuple(2**power for power in range(9))
EXCHANGES = {"parameter server": "parameter-server", "tree": "tree"}
_BAND = 0.03  # latencies and additions, which the formula leaves out
_LOOSE = 0.1  # of packets, clocks and cores as well
# What `commbench emulate` measured over 128 hosts; docs/EMULATION.md has its commands. Where the
# machine's cores decided, the slower links of the second run tell.
_RESULTS = Path(commbench.__file__).parents[1] / "results/benchmarks"
EMULATED = (_RESULTS / "emulated-mpich-n128.h5", _RESULTS / "emulated-25mbit-mpich-n128.h5")

# Enough to see the torus; each takes a second.
SIMULATED = (8, 64, 256)

_SIMULATED_NOTE = (
    "Simulated: by SimGrid on Titan's torus, where messages of the tree share links; told, and not "
    "judged by a formula that knows none.",
)
_EMULATED_NOTE = (
    "Emulated: measured over slowed links of one machine, in times of what a link needs for the "
    "buffer, taken times |W| / BW; 2.72 GB/s itself no such links can have.",
)

Way = Callable[[str, int], float | None]
"""Seconds of an exchange of the weights on so many ranks; None where there is no number."""


def run() -> Outcome:
    """All ranks in all ways there are."""
    ways: dict[str, Way] = {"theory": _theory}
    if find_simgrid():
        ways["simulated"] = _simulated
    if files := [file for file in EMULATED if file.exists()]:  # they come along with a checkout
        ways["emulated"] = _emulated_way(files)
    found = {
        (method, label, ranks): seconds
        for method, way in ways.items()
        for label, exchange in EXCHANGES.items()
        for ranks in RANKS
        if (seconds := way(exchange, ranks)) is not None
    }
    cells = [
        _cell(method, label, ranks, found[method, label, ranks])
        for ranks in RANKS
        for label in EXCHANGES
        for method in ways
        if (method, label, ranks) in found
    ]
    return Outcome(
        title="FireCaffe, Figure 4: 30 MB of weights",
        source="Iandola et al., CVPR 2016",
        cells=tuple(cells),
        findings=tuple(
            finding
            for method in ways
            if method != "simulated"
            for finding in _findings(method, found)
        ),
        series=(*_printed(), *_series(found, tuple(ways))),
        notes=(
            "In print is the formula, at titan-gemini's 2.72 GB/s: the paper does not tell the "
            "bandwidth of its figure.",
            "The formula of the server counts one direction, and the server among those that send: "
            "p. Ours gathers p-1 buffers and then sends p-1.",
            *(_SIMULATED_NOTE if "simulated" in ways else ()),
            *(_EMULATED_NOTE if "emulated" in ways else ()),
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Time over ranks, and the ratio."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    return drawn(
        outcome,
        {
            "time": Panel("Time of one exchange", "ranks", "seconds", "xy", RANKS),
            "ratio": Panel("Parameter server over tree", "ranks", "times as long", "x", RANKS),
        },
    )


def _theory(exchange: str, ranks: int) -> float:
    from commbench.network.cluster import load_cluster
    from commbench.network.cost import price

    return price(exchange, ranks, WEIGHTS, load_cluster(CLUSTER)).seconds


def _simulated(exchange: str, ranks: int) -> float | None:
    from commbench.network.cluster import load_cluster
    from commbench.network.simgrid import simulate

    if ranks not in SIMULATED:
        return None
    return simulate(exchange, ranks, WEIGHTS, load_cluster(CLUSTER)).seconds


def _emulated_way(files: Sequence[Path]) -> Way:
    """What emulated clusters measured, their buffers and links scaled to the figure's.

    A network-bound exchange takes so many times what a link needs for the buffer; that number is
    measured, and taken times |W| / BW. Rows that were bound by the machine's cores are left out; of
    several for the same, the first counts.
    """
    from commbench.network.cluster import load_cluster
    from commbench.record import summary

    unit_s = WEIGHTS * load_cluster(CLUSTER).between.beta_s
    seconds: dict[tuple[str, int], float] = {}
    for run in map(summary, files):
        buffer_s = run["options"]["nbytes"] / run["expected_bytes_per_s"]
        for row in run["emulation"]:
            if row["cpu_bound"] == 0 and row["wrong"] == 0:
                key = row["exchange"], row["ranks"]
                seconds.setdefault(key, row["median_s"] / buffer_s * unit_s)
    return lambda exchange, ranks: seconds.get((exchange, ranks))


def _formula(label: str, ranks: int) -> float:
    """As printed, in seconds."""
    from commbench.network.cluster import load_cluster

    buffers = ranks if label == "parameter server" else 2 * log2(ranks)
    return buffers * WEIGHTS * load_cluster(CLUSTER).between.beta_s


def _cell(method: str, label: str, ranks: int, seconds: float) -> Cell:
    formula = _formula(label, ranks)
    judged = label == "tree" and ranks > 1 and method != "simulated"
    note = "both directions, of p-1 ranks" if ranks > 1 else "nothing to send"
    if label == "tree" and ranks > 1:
        note = "on a torus" if method == "simulated" else ""
    return Cell(
        *(f"{ranks} ranks", f"{label} (ms)", 1e3 * seconds),
        1e3 * formula if formula else None,
        (_BAND if method == "theory" else _LOOSE) if judged else None,
        note,
        method=method,
    )


def _findings(method: str, found: dict[tuple[str, str, int], float]) -> list[Finding]:
    def ratio(ranks: int) -> float:
        return found[method, "parameter server", ranks] / found[method, "tree", ranks]

    sizes = [ranks for ranks in RANKS if (method, "tree", ranks) in found and ranks >= 32]
    if len(sizes) < 2:
        return []
    first, last = sizes[0], sizes[-1]
    grows = found[method, "parameter server", last] / found[method, "parameter server", first]
    rises = found[method, "tree", last] / found[method, "tree", first]
    return [
        Finding(
            f"the server's time grows with the number of ranks ({method})",
            f"x {grows:.2f} from {first} to {last}",
            abs(grows / (last / first) - 1) < 0.1,
        ),
        Finding(
            f"the tree's grows with its logarithm ({method})",
            f"x {rises:.2f} from {first} to {last}",
            abs(rises / (log2(last) / log2(first)) - 1) < 0.1,
        ),
        Finding(
            f"at {last} ranks the tree is {last / 2 / log2(last):.3g} times as fast or more "
            f"({method})",
            f"{ratio(last):.3g} times",
            ratio(last) >= last / 2 / log2(last),
        ),
    ]


def _printed() -> list[Series]:
    some = RANKS[1:]
    times = [
        Series(label, some, tuple(_formula(label, p) for p in some), "time", "printed")
        for label in EXCHANGES
    ]
    ratios = tuple(p / (2 * log2(p)) for p in some)
    return [*times, Series("server / tree", some, ratios, "ratio", "printed")]


def _series(found: dict[tuple[str, str, int], float], ways: tuple[str, ...]) -> list[Series]:
    made = []
    for method in ways:
        for label in EXCHANGES:
            some = tuple(p for p in RANKS[1:] if (method, label, p) in found)
            times = tuple(found[method, label, p] for p in some)
            made.append(Series(label, some, times, "time", method))
        some = tuple(p for p in RANKS[1:] if (method, "tree", p) in found)
        ratios = tuple(
            found[method, "parameter server", p] / found[method, "tree", p] for p in some
        )
        made.append(Series("server / tree", some, ratios, "ratio", method))
    return made
