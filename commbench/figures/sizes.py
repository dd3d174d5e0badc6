"""Panel: the time of each exchange over buffer sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from commbench.figures.style import Look, bytes_text, legend_below, seconds_text, time_axis

if TYPE_CHECKING:
    from commbench.report import Timing

_MOST_TICKS = 7


def draw(axes: Any, timings: Sequence[Timing], look: Mapping[str, Look]) -> None:
    """Draw the median of each exchange as a line, minimum to 99th percentile as a band.

    Args:
        axes: where to draw.
        timings: by size, all on the same number of ranks.
        look: the colour of each exchange.
    """
    lines: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        # Of an empty buffer there is no place on a logarithmic axis.
        if timing.size > 0:
            lines.setdefault((timing.setting, timing.exchange), []).append(timing)
    settings = sorted({setting for setting, _ in lines})
    moved = {key: line for key, line in lines.items() if key[1] != "none"}
    floor = [line for key, line in lines.items() if key[1] == "none"]
    for (setting, exchange), line in (moved or lines).items():
        sizes = [timing.size for timing in line]
        times = [timing.time_us() for timing in line]
        axes.plot(
            sizes,
            [time["median"] for time in times],
            label=exchange if len(settings) == 1 else f"{exchange} ({setting})",
            linestyle=("-", "--", ":", "-.")[settings.index(setting) % 4],
            **look[exchange].line(),
        )
        axes.fill_between(
            sizes,
            [time["min"] for time in times],
            [time["p99"] for time in times],
            color=look[exchange].colour,
            alpha=0.08,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    measured = sorted({timing.size for line in lines.values() for timing in line})
    if len(measured) <= _MOST_TICKS:
        axes.set_xticks(measured)
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda size, _: bytes_text(size))
    time_axis(axes)
    axes.set_xlabel("buffer size")
    ranks = timings[0].ranks
    axes.set_title(f"The exchange alone, {ranks} ranks" if ranks > 1 else "The exchange alone")
    if moved and floor:
        # Drawn, it would take most of the axis for itself.
        medians = [timing.time_us()["median"] for line in floor for timing in line]
        low, high = seconds_text(min(medians), 2), seconds_text(max(medians), 2)
        axes.annotate(
            f"none, the floor: {low} to {high}, not drawn",
            (0.99, 0.02),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            fontsize=8.5,
            color="#666666",
        )
    band = "minimum to 99th percentile"
    axes.plot([], [], color="#888888", alpha=0.3, linewidth=8, label=band)
    legend_below(axes, 3 if len(settings) == 1 else 2, [band])
