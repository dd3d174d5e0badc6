"""Panel: where the time of a training step goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from commbench.figures.style import PHASES, legend_below, seconds_text

if TYPE_CHECKING:
    from commbench.report import Training

_UNKNOWN = "#F0E3C0"
# Narrower than this, a part has no room for its number.
_ROOM = 0.06


def draw(axes: Any, runs: Sequence[Training]) -> None:
    """Draw one bar a run, divided by the phases' share of a step.

    Args:
        axes: where to draw.
        runs: those with at least one step recorded.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.phase_s))
    rows = list(range(len(runs)))
    left = [0.0] * len(runs)
    for name in names:
        shares = [run.phase_s.get(name, 0.0) / run.step_s() for run in runs]
        colour = PHASES.get(name, _UNKNOWN)
        axes.barh(rows, [100 * share for share in shares], 0.6, left, color=colour, label=name)
        for row, share in enumerate(shares):
            if share >= _ROOM:
                axes.text(
                    left[row] + 50 * share,
                    row,
                    f"{share:.0%}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if name in ("exchange", "backward") else "#333333",
                )
            left[row] += 100 * share
    for row, run in enumerate(runs):
        axes.text(
            101,
            row,
            f"{seconds_text(1e6 * run.step_s())}\na step",
            ha="left",
            va="center",
            fontsize=8.5,
            color="#444444",
        )
    axes.set_yticks(rows, [_broken(run.label) for run in runs])
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.invert_yaxis()
    axes.set_ylim(max(len(runs) - 0.4, 1.6), -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of a step (%), mean over workers and steps")
    axes.set_title("Where a step's time goes")
    legend_below(axes, 3 if any("@" in run.label for run in runs) else 5)


def _broken(label: str) -> str:
    """A run's label in lines short enough to stand beside the bars."""
    return label.replace("@", "\n@").replace(", ", ",\n", 1)
