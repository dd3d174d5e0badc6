"""Panels of computed figures: lines over a quantity, by how each was had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from commbench.figures.spread import COLOURS
from commbench.figures.style import legend_below

if TYPE_CHECKING:
    from commbench.reproduce import Outcome, Series

# Theory is a line; what was simulated, emulated, measured or printed stands on it as marks.
_LOOKS: dict[str, dict[str, Any]] = {
    "theory": {},
    "simulated": {"linestyle": "--", "marker": "o", "markerfacecolor": "white"},
    "emulated": {"linestyle": "", "marker": "s"},
    "measured": {"linestyle": "", "marker": "D"},
    "printed": {"linestyle": "", "marker": "*", "markersize": 10},
}


@dataclass(frozen=True)
class Panel:
    """A panel's words and axes.

    Attributes:
        title, x, y: in words.
        log: which axes are logarithmic: "", "x", "y" or "xy"; x to the base of two.
        ticks: at which x, where not every one.
        columns: of the legend.
    """

    title: str
    x: str
    y: str
    log: str = ""
    ticks: tuple[float, ...] = ()
    columns: int = 2


def panels(outcome: Outcome, told: Mapping[str, Panel]) -> list[Callable[[Any], None]]:
    """One panel for each name in `told`, with the outcome's series of that panel."""
    drawn: list[Callable[[Any], None]] = []
    for name, panel in told.items():
        series = [one for one in outcome.series if one.panel == name]
        drawn.append(partial(draw, series=series, panel=panel))
    return drawn


def draw(axes: Any, series: Sequence[Series], panel: Panel) -> None:
    """Draw the series, one colour a name, one kind of line or mark for each way they were had."""
    names = list(dict.fromkeys(one.name for one in series))
    methods = {one.method for one in series}
    for one in series:
        label = one.name if methods <= {"theory"} else f"{one.name}, {one.method}"
        colour = COLOURS[names.index(one.name) % len(COLOURS)]
        axes.plot(one.x, one.y, label=label, color=colour, **_LOOKS[one.method])
    if "x" in panel.log:
        axes.set_xscale("log", base=2)
    if "y" in panel.log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        # Many such panels span a decade or two.
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axes.minorticks_off()
    if "y" not in panel.log:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_title(panel.title)
    legend_below(axes, panel.columns)
