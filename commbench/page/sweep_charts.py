"""Charts of sweeps: time over sizes, over ranks, and ratios to one exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from commbench.figures.ranks import THEORY, theory
from commbench.figures.style import Look, bytes_text
from commbench.page.charts import (
    DASHES,
    Chart,
    Trace,
    View,
    axis,
    band,
    line,
    log_axis,
    plain,
    seconds_axis,
)
from commbench.page.paint import exchange_key
from commbench.report import Report, Timing, plural

_MOST_TICKS = 8
_TIME = "time of one exchange, slowest rank"


def charts(report: Report, size: int | None, look: Mapping[str, Look]) -> list[Chart]:
    """Those for which there are numbers."""
    drawn = [timing for timing in report.timings if timing.size > 0]
    counts = sorted({timing.ranks for timing in drawn})
    found = []
    if counts:
        found.append(_sizes(drawn, counts, look))
    ratios = _ratios(drawn, counts, look)
    if ratios.views:
        found.append(ratios)
    ranked = _ranks(drawn, size, look)
    if ranked.views:
        found.append(ranked)
    return found


def reference(names: Sequence[str]) -> str:
    """The exchange that the others are held against; "" where there is nothing to hold."""
    several = [name for name in names if name != "none"]
    preferred = [name for name in ("native", "parameter-server") if name in several]
    return (preferred or several)[0] if len(several) > 1 else ""


def lines(timings: Sequence[Timing]) -> dict[tuple[str, str], list[Timing]]:
    """The timings of each line of a chart, by setting and exchange."""
    found: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        found.setdefault((timing.setting, timing.exchange), []).append(timing)
    return found


def _named(setting: str, exchange: str, settings: Sequence[str]) -> str:
    return exchange if len(settings) == 1 else f"{exchange} ({setting})"


def _sizes(timings: Sequence[Timing], counts: Sequence[int], look: Mapping[str, Look]) -> Chart:
    settings = sorted({timing.setting for timing in timings})

    def view(ranks: int) -> View:
        chosen = sorted((one for one in timings if one.ranks == ranks), key=lambda one: one.size)
        traces: list[Trace] = []
        for (setting, exchange), cells in lines(chosen).items():
            key, sizes = exchange_key(exchange), [cell.size for cell in cells]
            times = [cell.time_us() for cell in cells]
            median, low, high = (
                [1e-6 * time[name] for time in times] for name in ("median", "min", "p99")
            )
            floor = exchange == "none"  # it would take most of the axis for itself
            if not floor:
                traces.append(
                    band(
                        key,
                        sizes,
                        list(zip(low, high, strict=True)),
                        group=f"{setting} {exchange}",
                        exchange=exchange,
                    )
                )
            traces.append(
                line(
                    _named(setting, exchange, settings),
                    key,
                    sizes,
                    median,
                    dash=DASHES[settings.index(setting) % 4],
                    marker=look[exchange].marker,
                    hollow=look[exchange].hollow,
                    exchange=exchange,
                    legendgroup=plain(f"{setting} {exchange}"),
                    customdata=[
                        [bytes_text(cell.size), float(f"{a:.4g}"), float(f"{b:.4g}")]
                        for cell, a, b in zip(cells, low, high, strict=True)
                    ],
                    hover="%{customdata[0]}: %{y:.3s}s<br>%{customdata[1]:.3s}s to "
                    "%{customdata[2]:.3s}s",
                    **({"visible": "legendonly"} if floor else {}),
                )
            )
        layout = {
            "xaxis": _size_axis(chosen),
            "yaxis": seconds_axis(_TIME, _ends(chosen)),
        }
        return View(plural(ranks, "rank"), traces, layout)

    return Chart(
        "sizes",
        "The exchange alone, over buffer sizes",
        "Median of the slowest rank's time; the band is from the minimum to the 99th percentile.",
        [view(ranks) for ranks in counts],
        height=460,
        last_first=True,
    )


def _ratios(timings: Sequence[Timing], counts: Sequence[int], look: Mapping[str, Look]) -> Chart:
    own = reference(list(dict.fromkeys(timing.exchange for timing in timings)))
    views = []
    for ranks in counts:
        chosen = sorted((one for one in timings if one.ranks == ranks), key=lambda one: one.size)
        traces = _ratio_traces(chosen, own, look)
        if traces:
            layout = {
                "xaxis": _size_axis(chosen),
                "yaxis": log_axis(
                    f"time over {own}'s", [ratio for trace in traces for ratio in trace["y"]]
                ),
                "shapes": [
                    {
                        "type": "line",
                        "xref": "paper",
                        "x0": 0,
                        "x1": 1,
                        "y0": 1,
                        "y1": 1,
                        "line": {"width": 1.5, "dash": "dot"},
                    }
                ],
            }
            views.append(View(plural(ranks, "rank"), traces, layout))
    return Chart(
        "ratios",
        f"Held against {own}",
        "Below 1 is faster. Median over the turns that both had in one sweep; the bars are its "
        "95 % intervals.",
        views,
        height=460,
        last_first=True,
    )


def _ratio_traces(timings: Sequence[Timing], own: str, look: Mapping[str, Look]) -> list[Trace]:
    grouped = lines(timings)
    settings = sorted({timing.setting for timing in timings})
    traces = []
    for (setting, exchange), cells in grouped.items():
        bases = {cell.size: cell for cell in grouped.get((setting, own), [])}
        if exchange in (own, "none"):
            continue
        found = [(cell.size, cell.over(bases[cell.size])) for cell in cells if cell.size in bases]
        found = [(size, ratio) for size, ratio in found if np.isfinite(ratio.value)]
        if not found:
            continue
        bounded = [ratio if np.isfinite(ratio.high) else None for _, ratio in found]
        traces.append(
            line(
                _named(setting, exchange, settings),
                exchange_key(exchange),
                [size for size, _ in found],
                [ratio.value for _, ratio in found],
                dash=DASHES[settings.index(setting) % 4],
                marker=look[exchange].marker,
                hollow=look[exchange].hollow,
                exchange=exchange,
                customdata=[[bytes_text(size), ratio.text()] for size, ratio in found],
                hover="%{customdata[0]}: %{customdata[1]}",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [b.high - b.value if b else 0 for b in bounded],
                    "arrayminus": [b.value - b.low if b else 0 for b in bounded],
                    "thickness": 1.2,
                    "width": 3,
                },
            )
        )
    return traces


def _ranks(timings: Sequence[Timing], wanted: int | None, look: Mapping[str, Look]) -> Chart:
    moving = [one for one in timings if one.ranks > 1 and one.exchange != "none"]
    by_size = {
        size: [one for one in moving if one.size == size] for size in {one.size for one in moving}
    }
    several = {
        size: sorted(cells, key=lambda one: one.ranks)
        for size, cells in sorted(by_size.items())
        if len({cell.ranks for cell in cells}) > 1
    }
    # The size that was asked for, or the largest, is shown first: so it comes last.
    nearest = min(several, key=lambda one: abs(one - wanted)) if wanted and several else None
    order = sorted(several, key=lambda one: (one == nearest, one))
    return Chart(
        "ranks",
        "The exchange alone, over ranks",
        "Medians, with minimum and 99th percentile. Dashed: FireCaffe's theory, scaled to the "
        "fewest ranks.",
        [
            View(bytes_text(size), _rank_traces(several[size], look), _rank_layout(several[size]))
            for size in order
        ],
        height=460,
        of="size",
        last_first=True,
    )


def _rank_traces(timings: Sequence[Timing], look: Mapping[str, Look]) -> list[Trace]:
    settings = sorted({timing.setting for timing in timings})
    traces = []
    for (setting, exchange), cells in lines(timings).items():
        key, ranks = exchange_key(exchange), [cell.ranks for cell in cells]
        times = [cell.time_us() for cell in cells]
        medians = np.array([1e-6 * time["median"] for time in times])
        traces.append(
            line(
                _named(setting, exchange, settings),
                key,
                ranks,
                medians,
                dash=DASHES[settings.index(setting) % 4],
                marker=look[exchange].marker,
                hollow=look[exchange].hollow,
                exchange=exchange,
                hover="%{x} ranks: %{y:.3s}s",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [1e-6 * t["p99"] - m for t, m in zip(times, medians, strict=True)],
                    "arrayminus": [
                        m - 1e-6 * t["min"] for t, m in zip(times, medians, strict=True)
                    ],
                    "thickness": 1.2,
                    "width": 3,
                },
            )
        )
        if exchange in THEORY and len(ranks) > 1:
            along = np.geomspace(ranks[0], ranks[-1], 25).tolist()
            formula = THEORY[exchange][0]
            traces.append(
                line(
                    f"theory: {formula}",
                    key,
                    along,
                    theory(exchange, along, float(medians[0])),
                    dash="dash",
                    mode="lines",
                    exchange=exchange,
                    hover="%{y:.3s}s",
                )
            )
            traces[-1]["line"]["width"] = 1.2
    return traces


def _rank_layout(timings: Sequence[Timing]) -> dict[str, object]:
    counts = sorted({timing.ranks for timing in timings})
    ticks = {"tickmode": "array", "tickvals": counts, "ticktext": [str(count) for count in counts]}
    return {
        "xaxis": axis("ranks", type="log", **ticks),
        "yaxis": seconds_axis(_TIME, _ends(timings)),
    }


def _ends(timings: Sequence[Timing]) -> list[float]:
    """Least and greatest time of each in seconds; without the floor, which is not shown first."""
    shown = [one for one in timings if one.exchange != "none"] or timings
    return [float(time) for one in shown for time in (one.slowest_s.min(), one.slowest_s.max())]


def _size_axis(timings: Sequence[Timing]) -> dict[str, object]:
    sizes = sorted({timing.size for timing in timings})
    stride = -(-len(sizes) // _MOST_TICKS)
    # From the largest down, which is the one that is read first.
    shown = sizes[::-1][::stride][::-1]
    ticks = {"tickvals": shown, "ticktext": [bytes_text(size) for size in shown]}
    return axis("buffer size", type="log", tickmode="array", **ticks)
