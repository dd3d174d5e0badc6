"""Figure 12 of Jia et al.: ResNet-50 at 32 images a GPU, 87.9 % efficient on 2,048 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), Figure 12, and 6.6 minutes for 90 epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series
from commbench.reproduce import _jia_scaling as scaling

NEEDS = "nothing: computed in half a minute"

_IMAGES, _GPUS = 32, 2048
_EFFICIENCY = 0.879
_RATE = 90 * 1_281_167 / (6.6 * 60)  # images/s, from the time
_BAND = 0.15  # the model leaves out stragglers, which show when steps are short
_PANEL = "throughput"


def run() -> Outcome:
    """Predicted from one GPU's 162 images/s, itself 6.6 minutes at 87.9 %, and the links."""
    found = scaling.rates("resnet50", _IMAGES)
    single = scaling.alone("resnet50", _IMAGES)
    grouped, ring = (values[scaling.GPUS.index(_GPUS)] for values in found.values())
    efficiency = grouped / (_GPUS * single)
    return Outcome(
        title="Jia, Figure 12: ResNet-50, 32 images a GPU",
        source="Jia et al., 2018",
        cells=(
            Cell("2048 GPUs", "efficiency", efficiency, _EFFICIENCY, _BAND, method="theory"),
            Cell("2048 GPUs", "images/s", grouped, _RATE, _BAND, method="theory"),
        ),
        findings=(
            Finding(
                "links explain what is lost",
                f"predicted {efficiency:.1%}, printed {_EFFICIENCY:.1%}",
                abs(efficiency - _EFFICIENCY) < 0.02,
                expected=False,
                why="likely the slowest of 2048 GPUs, for which all wait after steps of 0.2 s",
            ),
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
            "The rate of one GPU at 32 images is not in print: 162 images/s are what 6.6 minutes "
            "at 87.9 % come to, so both numbers say the same. In float16, as Figure 11.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Images a second over GPUs."""
    return scaling.panels(outcome, _PANEL, "ResNet-50, 32 images a GPU")
