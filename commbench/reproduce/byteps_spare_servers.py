"""BytePS's bound: what k spare machines save as parameter servers for n machines with GPUs.

Source: Jiang et al., "A unified architecture for accelerating distributed DNN training in
heterogeneous GPU/CPU clusters" (BytePS, OSDI 2020): with buffers cut to suit, an exchange of M
bytes takes 2n(n-1) M / ((n^2 + kn - 2k) B); all-reduce is k = 0, and k = n takes half as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: computed in seconds"

MACHINES = 8
SPARE = (0, 1, 2, 3, 4, 5, 6, 7, 8)
_EXACT = 1e-6


def run() -> Outcome:
    """The bound, and our sharded server on as many machines, in units of M / B."""
    bound = {k: _bound(k) for k in SPARE}
    ours = {k: _ours(k) for k in SPARE}
    cells = [
        Cell("no spare machine", "sharded server", ours[0], bound[0], _EXACT, method="theory"),
        Cell(
            "no spare machine", "ring", _price("ring", MACHINES), bound[0], _EXACT, method="theory"
        ),
    ]
    cells += [
        Cell(
            *(f"{k} spare", "servers on them (M/B)", ours[k], bound[k]),
            note="the bound has all machines serve, and both directions at once",
            method="theory",
        )
        for k in SPARE[1:]
    ]
    need = next((k for k in SPARE[1:] if ours[k] <= ours[0]), None)
    return Outcome(
        title=f"BytePS: {MACHINES} machines and up to as many spare ones",
        source="Jiang et al., OSDI 2020",
        cells=tuple(cells),
        findings=(
            Finding(
                "as many spare machines halve what an all-reduce takes",
                f"the bound is {bound[MACHINES]:.2f} M/B, without {bound[0]:.2f}",
                bound[MACHINES] <= 0.58 * bound[0],
            ),
            Finding(
                "servers on spare machines alone do so, too",
                f"{ours[MACHINES]:.2f} M/B; no worse than none from {need} on"
                if need
                else f"{ours[MACHINES]:.2f} M/B, and never better than none",
                ours[MACHINES] <= 1.1 * bound[MACHINES],
                expected=False,
                why="ours adds all gradients before it sends the first sum, so directions take "
                "turns: 2 n/k M/B, where BytePS has both busy at once",
            ),
        ),
        series=tuple(
            Series(name, tuple(map(float, some)), tuple(some.values()), "time")
            for name, some in (
                ("BytePS's bound", bound),
                ("sharded server on the spare ones", {k: ours[k] for k in SPARE[2:]}),
                ("all-reduce", dict.fromkeys(SPARE, ours[0])),
            )
        ),
        notes=("Without latencies and additions, as in the bound.",),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Time over spare machines."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    title = f"{MACHINES} machines with GPUs"
    return drawn(outcome, {"time": Panel(title, "spare machines", "time (M / B)", "", SPARE)})


def _bound(spare: int) -> float:
    n = MACHINES
    return 2 * n * (n - 1) / (n * n + spare * n - 2 * spare)


def _ours(spare: int) -> float:
    """Servers on the spare machines; without any, on all."""
    if spare == 0:
        return _price("sharded-server", MACHINES)
    return _price(f"sharded-server@servers={spare}", MACHINES + spare)


def _price(spec: str, ranks: int) -> float:
    from commbench.network.cluster import Cluster, Link
    from commbench.network.cost import price

    link = Link(0.0, 1.0)
    free = Cluster("bandwidth alone", "", (), (), 1, link, link, float("inf"))
    return price(spec, ranks, 1.0, free).seconds
