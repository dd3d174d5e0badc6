"""Panels of experiments: means over seeds, the range behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.figures.style import legend_below

# Okabe and Ito's, without yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvPX"


def draw_sweep(
    axes: Any,
    series: Mapping[str, Mapping[Any, NDArray[np.float64]]],
    *,
    title: str,
    x: str,
    y: str = "top-1 after training (%)",
    columns: int = 2,
) -> None:
    """Draw a value over a setting such as the batch, one line for each kind of run.

    Args:
        axes: where to draw.
        series: for each kind, and each setting, the values of all seeds.
        title: of the panel.
        x: of the setting; its axis is logarithmic with a tick at every setting.
        y: of the value.
        columns: of the legend.
    """
    for turn, (label, points) in enumerate(series.items()):
        places = sorted(points)
        look = {"color": COLOURS[turn % len(COLOURS)], "marker": _MARKERS[turn % len(_MARKERS)]}
        axes.plot(places, [points[place].mean() for place in places], label=label, **look)
        low, high = ([bound(points[place]) for place in places] for bound in (np.min, np.max))
        axes.fill_between(places, low, high, color=look["color"], alpha=0.18, linewidth=0)
    settings = sorted({place for points in series.values() for place in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(settings, [f"{setting:g}" for setting in settings])
    axes.minorticks_off()
    _name(axes, title, x, y)
    legend_below(axes, columns)


def draw_curves(
    axes: Any,
    curves: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]],
    *,
    title: str,
    y: str,
    columns: int = 2,
) -> None:
    """Draw a value over epochs, the mean over seeds in front of their range.

    Args:
        axes: where to draw.
        curves: for each kind of run, epochs and values of every seed; a seed that diverged ends
            early, and the mean goes on with the others.
        title: of the panel.
        y: of the value.
        columns: of the legend.
    """
    for turn, (label, runs) in enumerate(curves.items()):
        colour = COLOURS[turn % len(COLOURS)]
        epochs, mean, low, high = over_seeds(runs)
        axes.plot(epochs, mean, label=label, color=colour)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlim(left=0)
    _name(axes, title, "epochs", y)
    legend_below(axes, columns)


def over_seeds(
    runs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Epochs at which any run was evaluated; mean, least and largest value of those that were."""
    found: dict[float, list[float]] = {}
    for epochs, values in runs:
        for epoch, value in zip(epochs.tolist(), values.tolist(), strict=True):
            found.setdefault(epoch, []).append(value)
    places = sorted(found)
    each = [found[place] for place in places]
    return places, [sum(v) / len(v) for v in each], [min(v) for v in each], [max(v) for v in each]


def draw_choices(
    axes: Any,
    series: Mapping[str, Mapping[str, NDArray[np.float64]]],
    *,
    title: str,
    x: str,
    y: str = "top-1 after training (%)",
    columns: int = 2,
) -> None:
    """Draw a value over choices without a scale, such as number formats or a bound of inf.

    Args:
        axes: where to draw.
        series: for each kind of run, and each choice by name, the values of all seeds; the choices
            stand in the order in which they first come.
        title: of the panel.
        x: what is chosen.
        y: of the value.
        columns: of the legend, which one series alone does without.
    """
    choices = list(dict.fromkeys(choice for points in series.values() for choice in points))
    for turn, (label, points) in enumerate(series.items()):
        places = [choices.index(choice) for choice in points]
        means = np.array([values.mean() for values in points.values()])
        ends = np.array([(values.min(), values.max()) for values in points.values()]).T
        axes.errorbar(
            places,
            means,
            yerr=np.abs(ends - means),
            label=label,
            color=COLOURS[turn % len(COLOURS)],
            marker=_MARKERS[turn % len(_MARKERS)],
            linestyle="none",
            capsize=3,
        )
    axes.set_xticks(range(len(choices)), choices)
    axes.set_xlim(-0.5, len(choices) - 0.5)
    _name(axes, title, x, y)
    if len(series) > 1:
        legend_below(axes, columns)


def _name(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
