"""Panel: the rate of training over the batch size, under the roofs of the input's stages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from commbench.figures.style import legend_below

if TYPE_CHECKING:
    from commbench.pipeline.roofline import Rate, Roofline

_LOOKS = {
    "read": ("#56B4E9", "--", "read the files"),
    "decode": ("#E69F00", "--", "decode"),
    "augment": ("#CC79A7", "--", "augment"),
    "input": ("#000000", "-", "the whole input"),
}
_TRAINING = "#009E73"


def draw(axes: Any, roofline: Roofline) -> None:
    """Draw the input's stages as horizontal lines, training as points over the batch size."""
    facts = roofline.facts
    batches = [rate.batch for rate in roofline.training]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for rate in roofline.inputs:
        colour, style, label = _LOOKS[rate.stage]
        axes.axhline(
            rate.images_per_s, color=colour, linestyle=style, label=f"{label}: {_number(rate)}/s"
        )
        if math.isfinite(rate.high):
            axes.axhspan(rate.low, rate.high, color=colour, alpha=0.1, linewidth=0)
    bars = (
        [[], []]
        if any(math.isinf(rate.high) for rate in roofline.training)
        else [
            [rate.images_per_s - rate.low for rate in roofline.training],
            [rate.high - rate.images_per_s for rate in roofline.training],
        ]
    )
    axes.errorbar(
        batches,
        [rate.images_per_s for rate in roofline.training],
        yerr=bars if bars[0] else None,
        color=_TRAINING,
        marker="o",
        capsize=3,
        label="train: forward, backward, update",
    )
    reached = [min(rate.images_per_s, roofline.input.images_per_s) for rate in roofline.training]
    axes.fill_between(batches, reached, color=_TRAINING, alpha=0.08, linewidth=0)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    every = [rate.images_per_s for rate in (*roofline.inputs, *roofline.training)]
    axes.set_ylim(min(every) / 2, 2 * max(every))
    axes.set_xlabel("batch size")
    axes.set_ylabel("images a second")
    size = facts["options"]["image_size"]
    pixels = f" at {size} pixels" if size else ""
    axes.set_title(f"{facts['model']}{pixels}: bound by {_bounds(roofline)}")
    legend_below(axes, 2)


def _bounds(roofline: Roofline) -> str:
    found = {roofline.bound(rate) for rate in roofline.training}
    if len(found) > 1:
        return "training, then the input"
    return "training" if found == {"training"} else "the input"


def _number(rate: Rate) -> str:
    return f"{rate.images_per_s:,.0f}"
