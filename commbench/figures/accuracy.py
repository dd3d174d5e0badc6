"""Panel: accuracy over training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from commbench.figures.style import Look, legend_below

if TYPE_CHECKING:
    from commbench.report import Training


def draw(axes: Any, runs: Sequence[Training], look: Mapping[str, Look]) -> None:
    """Draw the top-1 accuracy of each run over its seconds of training.

    Args:
        axes: where to draw.
        runs: those with at least one evaluation.
        look: the colour of each exchange.
    """
    seen: list[str] = []
    for run in runs:
        # Runs of one exchange share its colour and differ in the line.
        style = ("-", "--", ":", "-.")[seen.count(run.exchange) % 4]
        seen.append(run.exchange)
        axes.plot(
            run.evaluations["time_s"],
            100 * run.evaluations["top1"],
            label=run.label,
            linestyle=style,
            **look[run.exchange].line(),
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("training time (s), evaluations apart")
    axes.set_ylabel("top-1 accuracy on the test images (%)")
    axes.set_title("Accuracy over training time")
    legend_below(axes, 2 if all(len(run.label) < 30 for run in runs) else 1)
