"""Where the time of a training step goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from commbench.report import Training

# The exchange, which the runs differ in, stands out from what they share.
_COLOURS = {
    "input": "#F0E442",
    "forward": "#BBBBBB",
    "backward": "#888888",
    "exchange": "#D55E00",
    "update": "#56B4E9",
}


def draw(axes: Axes, trainings: Sequence[Training]) -> None:
    """A bar a run: the median of each phase over steps and workers, stacked."""
    labels = [training.label for training in trainings]
    start = [0.0] * len(trainings)
    for phase in trainings[0].phase_s:
        widths = [1e3 * training.phase_s.get(phase, 0.0) for training in trainings]
        bars = axes.barh(labels, widths, left=start, color=_COLOURS.get(phase), label=phase)
        if phase == "exchange":
            axes.bar_label(
                bars, [f"{width:.0f} ms" for width in widths], label_type="center", color="white"
            )
        start = [left + width for left, width in zip(start, widths, strict=True)]
    axes.set_xlabel("time in a step (ms, median over steps and workers)")
    axes.set_title("Where a step goes")
    axes.invert_yaxis()
    axes.margins(y=0.3)
    axes.legend(fontsize="small", ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
