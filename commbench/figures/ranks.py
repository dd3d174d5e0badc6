"""Time per exchange over ranks, for one buffer size, with how theory says it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from commbench.figures.style import bytes_text, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from commbench.report import Sweep

# Bytes through the busiest link, in buffers: FireCaffe's argument (CVPR 2016, section 4).
_GROWTH: dict[str, tuple[str, Callable[[int], float]]] = {
    "parameter-server": ("p - 1", lambda p: p - 1),
    "tree": ("log2 p", lambda p: math.ceil(math.log2(p))),
}


def draw(axes: Axes, sweeps: Sequence[Sweep], size: int) -> None:
    """One line an exchange over the sweeps' ranks; theory dashed, through the first point."""
    from matplotlib.ticker import ScalarFormatter

    exchanges = list(dict.fromkeys(name for sweep in sweeps for name in sweep.exchanges))
    for exchange in exchanges:
        points = [
            (sweep.ranks, 1e3 * sweep.times[size, exchange].median)
            for sweep in sweeps
            if exchange in sweep.exchanges and sweep.ranks > 1
        ]
        if exchange == "none" or not points:
            continue
        ranks, milliseconds = zip(*points, strict=True)
        axes.plot(ranks, milliseconds, marker="o", ms=4, color=colour(exchange), label=exchange)
        if exchange in _GROWTH and len(points) > 1:
            name, growth = _GROWTH[exchange]
            expected = [milliseconds[0] * growth(p) / growth(ranks[0]) for p in ranks]
            axes.plot(
                ranks, expected, "--", lw=1, color=colour(exchange), label=f"{exchange}: ~ {name}"
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({sweep.ranks for sweep in sweeps if sweep.ranks > 1}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.set_xlabel("ranks p")
    axes.set_ylabel("time of one exchange (ms)")
    axes.set_title(f"Exchange alone, {bytes_text(size)} (dashed: links alone, each rank its own)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
