"""Figure 13 of Jia et al.: AlexNet at 128 images a GPU, on up to 2,048 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), Figure 13; 5 minutes for 95 epochs on 512 GPUs, 4 on 1,024 of 64
images each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series
from commbench.reproduce import _jia_scaling as scaling

NEEDS = "nothing: computed in half a minute"

_MODEL = "alexnet-bn@variant=jia"
_IMAGES = 128
_RATES = {512: 95 * 1_281_167 / (5 * 60), 1024: 95 * 1_281_167 / (4 * 60)}
_TIMES = 3.0  # as fast as the ring on 1,024 GPUs, as printed
_PANEL = "throughput"


def run() -> Outcome:
    """From a rate of one GPU that is chosen so that 512 GPUs are as printed."""
    single = _fitted()
    found = scaling.rates(_MODEL, _IMAGES, single)
    grouped, ring = (dict(zip(scaling.GPUS, values, strict=True)) for values in found.values())
    smaller = scaling.rates(_MODEL, 64, single)["groups and fusion"][scaling.GPUS.index(1024)]
    return Outcome(
        title="Jia, Figure 13: AlexNet, 128 images a GPU",
        source="Jia et al., 2018",
        cells=(
            Cell("one GPU", "images/s", single, note="fitted to 512 GPUs", method="theory"),
            Cell("512 GPUs", "images/s", grouped[512], _RATES[512], note="fitted", method="theory"),
            Cell(
                *("1024 GPUs, 64 images each", "images/s", smaller, _RATES[1024]),
                note="a GPU's rate at 64 images is not in print, and taken to be that at 128",
                method="theory",
            ),
            Cell("2048 GPUs", "images/s", grouped[2048], method="theory"),
        ),
        findings=(
            Finding(
                "a ring, a tensor at a time, takes longer",
                f"on 1024 GPUs groups and fusion train {grouped[1024] / ring[1024]:.2f} times as "
                f"fast; printed are {_TIMES:g} times, of the exchange against NCCL",
                grouped[1024] > ring[1024],
            ),
        ),
        series=(
            *scaling.series(found, single, _PANEL),
            Series(
                "Jia et al.", tuple(map(float, _RATES)), tuple(_RATES.values()), _PANEL, "printed"
            ),
        ),
        notes=(
            "No number is judged: neither the figure's values nor the rate of one GPU are known. "
            "Minutes are printed without decimals, so images/s are within 10 %.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Images a second over GPUs."""
    return scaling.panels(outcome, _PANEL, "AlexNet, 128 images a GPU")


def _fitted() -> float:
    """The rate of one GPU with which 512 of them have the printed one; by bisection."""
    from commbench.reproduce._step import Case, predict

    low, high = _RATES[512] / 512, 4 * _RATES[512] / 512
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        case = Case(
            *(_MODEL, scaling.CLUSTER, 512, _IMAGES, scaling.GROUPED),
            fusion="4M",
            element_bytes=2,
            images_per_s=middle,
        )
        slower = 512 * _IMAGES / predict(case).seconds < _RATES[512]
        low, high = (middle, high) if slower else (low, middle)
    return high
