"""What a chart of the page is, and the traces they are all made of.

A chart is data for plotly.js: no colours, which follow the theme of the page. Each trace says in
`meta` by which key of `paint.palette` it is painted, and which exchange it shows, if one.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from commbench.figures.style import seconds_text

Trace = dict[str, Any]
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "*": "star",
}
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class View:
    """One of the views between which a chart can be switched.

    Attributes:
        name: on its button.
        traces, layout: as plotly.js takes them.
    """

    name: str
    traces: list[Trace]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: of the element, and of the data.
        title: above it.
        note: below it, in words.
        views: at least one; the last is shown first if `last_first`, else the first.
        height: in pixels.
        of: what the views are by, such as "ranks"; "" where their names say it.
        last_first: show the last view first.
    """

    id: str
    title: str
    note: str
    views: list[View] = field(default_factory=list)
    height: int = 400
    of: str = ""
    last_first: bool = False

    @property
    def shown(self) -> int:
        """Which view is shown first."""
        return len(self.views) - 1 if self.last_first else 0

    def data(self) -> dict[str, Any]:
        """What the script draws it from."""
        views = [
            {"name": view.name, "traces": _bands_first(view.traces), "layout": view.layout}
            for view in self.views
        ]
        return {"id": self.id, "shown": self.shown, "height": self.height, "views": views}


def _bands_first(traces: list[Trace]) -> list[Trace]:
    """In the order of drawing: no line lies under another one's band."""
    return sorted(traces, key=lambda trace: bool(trace["meta"]["paint"] != "band"))


def numbers(values: ArrayLike) -> list[float]:
    """Six digits of each: more than any screen shows."""
    return [float(f"{value:.6g}") for value in np.asarray(values, np.float64).ravel()]


def plain(text: str) -> str:
    """Text that plotly.js shows as it is: it takes <b> and <a> in labels for markup."""
    return html.escape(text, quote=False)


def line(
    name: str,
    key: str,
    x: ArrayLike | Sequence[str],
    y: ArrayLike,
    *,
    dash: str = "solid",
    marker: str = "o",
    hollow: bool = False,
    mode: str = "lines+markers",
    exchange: str = "",
    hover: str = "%{y}",
    **more: Any,
) -> Trace:
    """A line with markers.

    Args:
        name: in the legend.
        key: of the palette.
        x: numbers, or words of an axis without a scale.
        y: as many numbers.
        dash: of `DASHES`.
        marker: as matplotlib calls it.
        hollow: the marker.
        mode: of plotly.js.
        exchange: that it shows, by which it can be hidden.
        hover: template for one point.
        more: whatever else plotly.js takes.
    """
    words = isinstance(x, Sequence) and bool(x) and isinstance(x[0], str)
    return {
        "type": "scatter",
        "mode": mode,
        "name": plain(name),
        "x": [plain(str(word)) for word in x] if words else numbers(x),  # type: ignore[union-attr]
        "y": numbers(y),
        "line": {"dash": dash, "width": 2},
        "marker": {"symbol": _SYMBOLS[marker] + ("-open" if hollow else ""), "size": 7},
        "hovertemplate": f"<b>%{{fullData.name}}</b><br>{hover}<extra></extra>",
        "meta": {"key": key, "exchange": exchange, "paint": "line"},
        **more,
    }


def band(
    key: str,
    x: ArrayLike,
    ends: Sequence[tuple[float, float]],
    *,
    group: str,
    exchange: str = "",
) -> Trace:
    """The area between low and high `ends`, as one outline; it goes with its `group`'s legend."""
    along = numbers(x)
    below, above = (numbers([end[side] for end in ends]) for side in (0, 1))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": along + along[::-1],
        "y": above + below[::-1],
        "fill": "toself",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": plain(group),
        "meta": {"key": key, "exchange": exchange, "paint": "band"},
    }


def bar(name: str, key: str, rows: Sequence[str], lengths: ArrayLike, hover: str) -> Trace:
    """A part of stacked horizontal bars, one of each row."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(name),
        "y": [plain(row) for row in rows],
        "x": numbers(lengths),
        "hovertemplate": f"<b>%{{fullData.name}}</b><br>{hover}<extra>%{{y}}</extra>",
        "meta": {"key": key, "exchange": "", "paint": "bar"},
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": plain(title)}, "automargin": True, **more}


def seconds_axis(title: str, seconds: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis that holds so many `seconds`, with ticks such as 10 µs or 1 ms."""
    decades = [math.floor(math.log10(value)) for value in seconds if value > 0] or [0]
    first, last = min(decades), max(decades)
    # Such axes often span just one decade; and there is something to read after zooming in.
    digits = (1, 2, 5) if last - first > 1 else (1, 1.5, 2, 3, 5, 7)
    ticks = [digit * 10.0**decade for decade in range(first, last + 1) for digit in digits]
    texts = [seconds_text(1e6 * tick) for tick in ticks]
    return axis(title, type="log", tickmode="array", tickvals=numbers(ticks), ticktext=texts)


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis; every digit has a tick where the values are close together."""
    close = max(values) < 5 * min(values)
    return axis(title, type="log", dtick="D1" if close else "D2", tickformat="~g")
