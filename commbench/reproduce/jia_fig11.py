"""Figure 11 of Jia et al.: ResNet-50 at 64 images a GPU, 99.2 % efficient on 1,024 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), Figure 11, and 8.7 minutes for 90 epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series
from commbench.reproduce import _jia_scaling as scaling

NEEDS = "nothing: computed in half a minute"

_IMAGES, _GPUS = 64, 1024
_EFFICIENCY = 0.992
_RATE = 90 * 1_281_167 / (8.7 * 60)  # images/s, from the time
_BAND = 0.02
_TIME_BAND = 0.05  # evaluation and start are in the 8.7 minutes
_PANEL = "throughput"


def run() -> Outcome:
    """Predicted from one GPU's 218 images/s and the links."""
    found = scaling.rates("resnet50", _IMAGES)
    single = scaling.alone("resnet50", _IMAGES)
    grouped, ring = (values[scaling.GPUS.index(_GPUS)] for values in found.values())
    efficiency = grouped / (_GPUS * single)
    return Outcome(
        title="Jia, Figure 11: ResNet-50, 64 images a GPU",
        source="Jia et al., 2018",
        cells=(
            Cell("1024 GPUs", "efficiency", efficiency, _EFFICIENCY, _BAND, method="theory"),
            Cell("1024 GPUs", "images/s", grouped, _RATE, _TIME_BAND, method="theory"),
        ),
        findings=(
            Finding(
                "a ring of all GPUs, a tensor at a time, does not scale",
                f"{ring / (_GPUS * single):.0%} efficient",
                ring < 0.5 * grouped,
            ),
        ),
        series=(
            *scaling.series(found, single, _PANEL),
            Series("Jia et al.", (float(_GPUS),), (_RATE,), _PANEL, "printed"),
        ),
        notes=(
            "Sums in each server, then between servers, with the bucket size that suits; mixed "
            "precision, gradients in float16. Printed images/s are from 8.7 minutes for 90 epochs.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Images a second over GPUs."""
    return scaling.panels(outcome, _PANEL, "ResNet-50, 64 images a GPU")
