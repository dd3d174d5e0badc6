"""Top-1 over training time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from commbench.figures.style import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from commbench.report import Training


def draw(axes: Axes, trainings: Sequence[Training]) -> None:
    """One line a run, a point at each evaluation."""
    for training in trainings:
        axes.plot(
            training.time_s,
            [100 * top1 for top1 in training.top1],
            marker="o",
            ms=4,
            color=colour(training.exchange),
            label=training.label,
        )
    axes.set_xlim(left=0)
    axes.set_ylim(0, 100)
    axes.set_xlabel("training time, evaluations apart (s)")
    axes.set_ylabel("top-1 on the test images (%)")
    axes.set_title("Accuracy over time")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
