"""A map of exchanges: for each number of ranks and size of buffer, which one is fastest.

Not of one paper: what FireCaffe, Goyal, Jia and NCCL each argue for, on two kinds of links. Where
the next one is within 10 % the model does not decide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from commbench.figures.winners import NEAR
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: computed in a minute"

CLUSTERS = ("ethernet-25g", "p40-100g")
RANKS = (2, 4, 8, 16, 32, 64, 128, 256)
SIZES = tuple(1e3 * 4**power for power in range(11))
MODELS = {"NiN": "nin", "ResNet-50": "resnet50", "AlexNet": "alexnet"}
_CANDIDATES = (
    *("parameter-server", "tree", "recursive-doubling", "halving-doubling", "ring", "torus"),
    *("double-tree", "hierarchical@group=node@outer=halving-doubling"),
)
_BAND = 0.1


def run() -> Outcome:
    """Every place of the map, and the models' gradients as they are."""
    cells, series = [], []
    for cluster in CLUSTERS:
        winners: dict[str, list[tuple[float, float]]] = {}
        for ranks in RANKS:
            times = _times(cluster, ranks, SIZES)
            for size in SIZES:
                first, margin = _winner(times, size)
                name = first + (NEAR if margin < _BAND else "")
                winners.setdefault(name, []).append((float(ranks), size))
        series += [
            Series(
                name,
                tuple(ranks for ranks, _ in places),
                tuple(size for _, size in places),
                panel=cluster,
            )
            for name, places in sorted(winners.items())
        ]
        cells += _model_cells(cluster)
    return Outcome(
        title="Which exchange is fastest, by ranks and size",
        source="prices of all exchanges",
        cells=tuple(cells),
        series=tuple(series),
        notes=(
            "Powers of two, where binary blocks are halving and doubling. Exchanges are timed "
            "alone; `commbench advise` takes off what backward hides.",
            "Nothing is judged: no paper prints such a map.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """A map for each kind of links."""
    from commbench.figures import winners

    names = winners.names_of(outcome.series)
    drawn: list[Callable[[Any], None]] = []
    for cluster in CLUSTERS:
        series = [one for one in outcome.series if one.panel == cluster]
        title = f"Fastest on {cluster} (small and pale: within 10 %)"
        drawn.append(partial(winners.draw, names=names, title=title, series=series))
    return drawn


def _times(
    cluster_name: str, ranks: int, sizes: tuple[float, ...]
) -> dict[str, dict[float, float]]:
    """Seconds of every candidate at every size."""
    from commbench.network.cluster import load_cluster
    from commbench.network.curve import Curve
    from commbench.registry import parse_exchange

    cluster = load_cluster(cluster_name)
    shared = 1 < cluster.ranks_per_node < ranks
    return {
        spec.split("@")[0]: Curve(parse_exchange(spec), ranks, cluster).of(sizes)
        for spec in _CANDIDATES
        if shared or "group=node" not in spec
    }


def _winner(times: dict[str, dict[float, float]], size: float) -> tuple[str, float]:
    """The fastest, and by how much of its time the next one is slower."""
    order = sorted(times, key=lambda name: times[name][size])
    first, second = (times[name][size] for name in order[:2])
    return order[0], second / first - 1


def _model_cells(cluster: str) -> list[Cell]:
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    made = []
    for name, model in MODELS.items():
        n_bytes = 4.0 * count_cost(build_model(model, seed=None), training=True).parameters
        for ranks in (8, 64, 256):
            times = _times(cluster, ranks, (n_bytes,))
            order = sorted(times, key=lambda one: times[one][n_bytes])
            margin = _winner(times, n_bytes)[1]
            made.append(
                Cell(
                    *(f"{name}, {ranks} ranks of {cluster}", "exchange (ms)"),
                    1e3 * times[order[0]][n_bytes],
                    note=f"{order[0]}; {order[1]} takes {margin:.0%} more",
                    method="theory",
                )
            )
    return made
