"""Goyal's scaling: 90 % efficiency on 256 GPUs in servers of eight.

Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section
5.5 and Figure 7: an iteration of 32 images a GPU on 8 to 352 GPUs; sums in a server, halving and
doubling between servers, beside backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: computed in half a minute"

CLUSTER = "big-basin"
EXCHANGE = "hierarchical@group=node@outer=binary-blocks"
GPUS = (8, 16, 32, 64, 128, 256, 352)
IMAGES = 32
FUSION = "4M"  # ours: the paper sums each layer as it is ready
_PRINTED = 0.9
_NEEDED = 12.8  # Gbit/s, from 100 MB twice over, in 125 ms of backward
_BAND = 0.05
_WAYS = {"overlapped": True, "after backward": False}


def run() -> Outcome:
    """Efficiency with all overlap and with none; the truth lies between."""
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    found = {way: [_efficiency(gpus, overlap) for gpus in GPUS] for way, overlap in _WAYS.items()}
    at = GPUS.index(256)
    hidden, bare = (found[way][at] for way in _WAYS)
    n_bytes = 4 * count_cost(build_model("resnet50", seed=None), training=True).parameters
    needed = 2 * 8 * n_bytes / 0.125 / 1e9
    return Outcome(
        title="Goyal: scaling of ResNet-50 at 32 images a GPU",
        source="Goyal et al., 2017",
        cells=(
            Cell(
                "256 GPUs",
                "efficiency, overlapped",
                hidden,
                _PRINTED,
                method="theory",
                note="what the links leave; print has what stragglers and copies cost as well",
            ),
            Cell(
                "256 GPUs",
                "efficiency, after backward",
                bare,
                _PRINTED,
                method="theory",
                note="as if nothing overlapped",
            ),
            Cell("a server", "needs (Gbit/s)", needed, _NEEDED, _BAND, "2 |W| in 125 ms"),
        ),
        findings=(
            Finding(
                f"{_PRINTED:.0%} at 256 GPUs lies between no overlap and all of it",
                f"{bare:.1%} and {hidden:.1%}",
                bare <= _PRINTED <= hidden,
            ),
            Finding(
                "50 Gbit/s a server are enough",
                f"{needed:.1f} are needed",
                needed < 50,
            ),
        ),
        series=(
            *(
                Series(way, tuple(map(float, GPUS)), tuple(100 * one for one in values), "scaling")
                for way, values in found.items()
            ),
            Series("Goyal et al.", (256.0,), (100 * _PRINTED,), "scaling", "printed"),
        ),
        notes=(
            "Against 0.232 s of 256 images on one server, whose own sums it contains; the price "
            f"counts them again, and buckets of {FUSION}. 10 us between servers are ours.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Efficiency over GPUs."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    panel = Panel("Efficiency, ResNet-50", "GPUs", "% of GPUs that compute alone", "x", GPUS)
    return drawn(outcome, {"scaling": panel})


def _efficiency(gpus: int, overlap: bool) -> float:
    from commbench.reproduce._step import Case, predict

    case = Case("resnet50", CLUSTER, gpus, IMAGES, EXCHANGE, FUSION)
    return predict(case, overlap=overlap).efficiency
