"""Panel: the time of each exchange over numbers of ranks, beside what theory says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from commbench.figures.style import Look, bytes_text, legend_below, time_axis

if TYPE_CHECKING:
    from commbench.report import Timing

# FireCaffe's figure: a server's link carries every worker's gradient, a tree's root one in each of
# 2 log2 p rounds (Iandola et al., CVPR 2016, section 4).
THEORY: dict[str, tuple[str, Callable[[float], float]]] = {
    "parameter-server": ("p", lambda ranks: ranks),
    "tree": ("2 log₂ p", lambda ranks: 2 * math.log2(ranks)),
}


def theory(name: str, ranks: Sequence[float], first_us: float) -> list[float]:
    """What the theory of exchange `name` makes of the first of `ranks`' time at the others."""
    _, growth = THEORY[name]
    return [first_us * growth(count) / growth(ranks[0]) for count in ranks]


def draw(axes: Any, timings: Sequence[Timing], look: Mapping[str, Look]) -> None:
    """Draw the median of each exchange with minimum and 99th percentile.

    Args:
        axes: where to draw.
        timings: by ranks, all of the same size.
        look: the colour of each exchange.
    """
    lines: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        # A single rank exchanges nothing, and `none` never does.
        if timing.ranks > 1 and timing.exchange != "none":
            lines.setdefault((timing.setting, timing.exchange), []).append(timing)
    settings = sorted({setting for setting, _ in lines})
    counts = sorted({timing.ranks for line in lines.values() for timing in line})
    for (setting, exchange), line in lines.items():
        ranks = [timing.ranks for timing in line]
        times = [timing.time_us() for timing in line]
        median = np.array([time["median"] for time in times])
        # Side by side, for the bars to stay apart.
        shift = 1 + 0.012 * (list(lines).index((setting, exchange)) - (len(lines) - 1) / 2)
        axes.errorbar(
            np.array(ranks) * shift,
            median,
            yerr=[
                median - [time["min"] for time in times],
                [time["p99"] for time in times] - median,
            ],
            label=exchange if len(settings) == 1 else f"{exchange} ({setting})",
            linestyle=("-", ":", "-.")[settings.index(setting) % 3],
            elinewidth=0.9,
            capsize=2,
            **look[exchange].line(),
        )
        if exchange in THEORY and len(ranks) > 1:
            along = np.geomspace(ranks[0], ranks[-1], 50).tolist()
            axes.plot(
                along,
                theory(exchange, along, median[0]),
                color=look[exchange].colour,
                linestyle="--",
                linewidth=1.1,
                label=_theory_label(exchange),
            )
    axes.set_xscale("log", base=2)
    time_axis(axes)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("ranks p")
    axes.set_title(f"The exchange alone, {bytes_text(timings[0].size)}")
    asides = [_theory_label(exchange) for exchange in THEORY]
    legend_below(axes, 3 if len(settings) == 1 else 2, asides)


def _theory_label(exchange: str) -> str:
    return f"theory: {THEORY[exchange][0]}"
