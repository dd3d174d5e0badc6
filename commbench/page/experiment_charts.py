"""Charts of reproductions that train: the panels that matplotlib draws, as data for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.experiments import Results
from commbench.figures import lines, spread, winners
from commbench.page.charts import DASHES, Chart, Trace, View, axis, band, line, log_axis, plain
from commbench.page.paint import series_key
from commbench.reproduce import Series

_MARKERS = "os^DvPX"
_COLOURS = len(spread.COLOURS)


def charts(
    name: str, panels: Sequence[Callable[[Any], None]], results: Results | None = None
) -> list[Chart]:
    """A chart of each panel; of one that only matplotlib can draw, accuracy over the epochs.

    Args:
        name: of the reproduction.
        panels: as its file makes them.
        results: of one that trains.
    """
    found = []
    for number, panel in enumerate(panels):
        draw = _DRAWN.get(panel.func) if isinstance(panel, partial) else None
        keywords = panel.keywords if isinstance(panel, partial) else {}
        if draw is None:
            if results is None:
                continue
            draw, keywords = _curves, _accuracies(results)
        view = draw(**{name: value for name, value in keywords.items() if name != "columns"})
        found.append(
            Chart(
                f"experiment-{name}-{number}",
                view.name,
                "Mean over the seeds; the band, or the bar, is their range." if results else "",
                [view],
                height=420,
            )
        )
    return found


def _accuracies(results: Results) -> dict[str, Any]:
    curves = {
        variant: [(run.epochs, 100 * run.top1) for run in results.of(variant)]
        for variant in results.variants
    }
    return {"curves": curves, "title": "Accuracy over the epochs", "y": "top-1 (%)"}


def _sweep(
    *,
    series: Mapping[str, Mapping[Any, NDArray[np.float64]]],
    title: str,
    x: str,
    y: str = "top-1 after training (%)",
) -> View:
    """As `spread.draw_sweep`."""
    traces: list[Trace] = []
    for turn, (label, points) in enumerate(series.items()):
        places = sorted(points)
        means = [float(points[place].mean()) for place in places]
        ends = [(float(points[place].min()), float(points[place].max())) for place in places]
        traces.append(band(series_key(turn), places, ends, group=label))
        traces.append(_series(turn, label, places, means, ends))
    settings = sorted({place for points in series.values() for place in points})
    ticks = {"tickvals": settings, "ticktext": [f"{setting:g}" for setting in settings]}
    layout = {"xaxis": axis(x, type="log", tickmode="array", **ticks), "yaxis": axis(y)}
    return View(title, traces, layout)


def _curves(
    *,
    curves: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]],
    title: str,
    y: str,
) -> View:
    """As `spread.draw_curves`."""
    traces: list[Trace] = []
    for turn, (label, runs) in enumerate(curves.items()):
        epochs, mean, low, high = spread.over_seeds(runs)
        ranges = list(zip(low, high, strict=True))
        traces.append(band(series_key(turn), epochs, ranges, group=label))
        traces.append(_series(turn, label, epochs, mean, ranges, at="%{x:.3~g} epochs: "))
    return View(title, traces, {"xaxis": axis("epochs", rangemode="tozero"), "yaxis": axis(y)})


def _choices(
    *,
    series: Mapping[str, Mapping[Any, NDArray[np.float64]]],
    title: str,
    x: str,
    y: str = "top-1 after training (%)",
) -> View:
    """As `spread.draw_choices`."""
    choices = list(dict.fromkeys(str(choice) for points in series.values() for choice in points))
    traces: list[Trace] = []
    for turn, (label, points) in enumerate(series.items()):
        means = np.array([values.mean() for values in points.values()])
        ends = [(float(values.min()), float(values.max())) for values in points.values()]
        trace = _series(turn, label, [str(choice) for choice in points], means, ends)
        trace["mode"] = "markers"
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
            "arrayminus": [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
            "thickness": 1.5,
        }
        traces.append(trace)
    order = {"type": "category", "categoryorder": "array", "categoryarray": choices}
    return View(title, traces, {"xaxis": axis(x, **order), "yaxis": axis(y)})


def _lines(*, series: Sequence[Series], panel: lines.Panel) -> View:
    """As `lines.draw`."""
    names = list(dict.fromkeys(one.name for one in series))
    methods = {one.method for one in series}
    traces = []
    for one in series:
        mode, dash, marker = _WAYS[one.method]
        traces.append(
            line(
                one.name if methods <= {"theory"} else f"{one.name}, {one.method}",
                series_key(names.index(one.name)),
                one.x,
                one.y,
                mode=mode,
                dash=dash,
                marker=marker,
                hover="%{x:.4~g}: %{y:.4~g}",
            )
        )
    ticks = panel.ticks or sorted({x for one in series for x in one.x})
    shown = {"tickmode": "array", "tickvals": list(ticks), "ticktext": [f"{t:g}" for t in ticks]}
    across = {"type": "log", **shown} if "x" in panel.log else {}
    heights = [y for one in series for y in one.y if y > 0]
    logarithmic = "y" in panel.log and heights
    up = log_axis(panel.y, heights) if logarithmic else axis(panel.y, rangemode="tozero")
    return View(panel.title, traces, {"xaxis": axis(panel.x, **across), "yaxis": up})


def _map(*, names: Sequence[str], title: str, series: Sequence[Series]) -> View:
    """As `winners.draw`."""
    traces = []
    for one in series:
        name = one.name.removesuffix(winners.NEAR)
        traces.append(
            line(
                one.name,
                series_key(names.index(name)),
                one.x,
                one.y,
                mode="markers",
                marker="s",
                hollow=name != one.name,
                hover="%{x} ranks, %{y:.4~g} bytes",
            )
        )
    ticks = sorted({x for one in series for x in one.x})
    shown = {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    up = log_axis("bytes", [y for one in series for y in one.y])
    return View(title, traces, {"xaxis": axis("ranks", type="log", **shown), "yaxis": up})


# As in `lines`: theory is a line, what was had in another way stands on it as marks.
_WAYS = {
    "theory": ("lines", "solid", "o"),
    "simulated": ("lines+markers", "dash", "o"),
    "emulated": ("markers", "solid", "s"),
    "measured": ("markers", "solid", "D"),
    "printed": ("markers", "solid", "*"),
}


def _series(
    turn: int,
    label: str,
    x: Any,
    means: Any,
    ranges: Sequence[tuple[float, float]],
    *,
    at: str = "%{x}: ",
) -> Trace:
    return line(
        label,
        series_key(turn),
        x,
        means,
        dash=DASHES[turn // _COLOURS % len(DASHES)],
        marker=_MARKERS[turn % len(_MARKERS)],
        legendgroup=plain(label),
        customdata=[[float(f"{low:.4g}"), float(f"{high:.4g}")] for low, high in ranges],
        hover=f"{at}%{{y:.4~g}}<br>%{{customdata[0]}} to %{{customdata[1]}}",
    )


_DRAWN: dict[Any, Callable[..., View]] = {
    spread.draw_sweep: _sweep,
    spread.draw_curves: _curves,
    spread.draw_choices: _choices,
    lines.draw: _lines,
    winners.draw: _map,
}
