"""What Jia's Figures 11 to 13 have in common: images a second over GPUs, predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from commbench.network.advice import FUSIONS
from commbench.reproduce import Outcome, Series
from commbench.reproduce._step import Case, predict

CLUSTER = "p40-100g"
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
GROUPED = "hierarchical@group=node"
WAYS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # What Jia's system does, each bucket size tried; and what it is compared with.
    "groups and fusion": (GROUPED, FUSIONS),
    "ring, a tensor at a time": ("ring", ("none",)),
}


def rates(model: str, images: float, images_per_s: float | None = None) -> dict[str, list[float]]:
    """Images a second of all GPUs together, for each way, over `GPUS`; gradients in float16."""
    case = Case(model, CLUSTER, 1, images, GROUPED, "all", 2, images_per_s)
    return {
        way: [
            max(_rate(replace(case, ranks=gpus, exchange=exchange, fusion=one)) for one in fusions)
            for gpus in GPUS
        ]
        for way, (exchange, fusions) in WAYS.items()
    }


def _rate(case: Case) -> float:
    return case.ranks * case.images / predict(case).seconds


def alone(model: str, images: float, images_per_s: float | None = None) -> float:
    """Images a second of one GPU."""
    case = Case(model, CLUSTER, 1, images, "none", "all", 2, images_per_s)
    return images / predict(case).seconds


def series(found: Mapping[str, list[float]], single: float, panel: str) -> list[Series]:
    """A line for each way, and the ideal one."""
    x = tuple(map(float, GPUS))
    lines = [Series(way, x, tuple(values), panel) for way, values in found.items()]
    return [*lines, Series("ideal", x, tuple(single * gpus for gpus in GPUS), panel)]


def panels(outcome: Outcome, panel: str, title: str) -> list[Callable[[Any], None]]:
    """Images a second over GPUs."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    return drawn(outcome, {panel: Panel(title, "GPUs", "images/s", "xy", GPUS)})
