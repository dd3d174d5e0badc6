"""A map of which candidate wins where, over ranks and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from commbench.figures.spread import COLOURS
from commbench.figures.style import legend_below
from commbench.reproduce import Series

NEAR = " (within 10 %)"
"""Ends the name of a series of places where the next best is hardly slower."""


def names_of(series: Sequence[Series]) -> list[str]:
    """The candidates that win anywhere, sorted: their order is that of the colours."""
    return sorted({one.name.removesuffix(NEAR) for one in series})


def draw(axes: Any, *, names: Sequence[str], title: str, series: Sequence[Series]) -> None:
    """Draw a map with a square for each place, small and pale where the lead is small.

    Args:
        axes: where to draw.
        names: of all maps' winners, which gives each its colour.
        title: of the panel.
        series: of each winner its places, ranks and bytes; the near ones are named with `NEAR`.
    """
    shown = set()
    for one in series:
        name = one.name.removesuffix(NEAR)
        sure = name == one.name
        axes.scatter(
            one.x,
            one.y,
            s=150 if sure else 60,
            marker="s",
            color=COLOURS[names.index(name) % len(COLOURS)],
            alpha=1.0 if sure else 0.45,
            label=None if name in shown else name,
        )
        shown.add(name)
    ranks = sorted({x for one in series for x in one.x})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("ranks")
    axes.set_ylabel("bytes")
    axes.set_title(title)
    legend_below(axes, 2)
