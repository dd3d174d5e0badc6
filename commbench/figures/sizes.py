"""Time per exchange over buffer sizes, on one number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commbench.figures.style import bytes_text, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from commbench.report import Sweep


def draw(axes: Axes, sweep: Sweep) -> None:
    """One line an exchange: the median, in a band from the fastest to the 99th percentile.

    The floor `none` is left out: it moves nothing.
    """
    from matplotlib.ticker import FuncFormatter

    sizes = [size for size in sweep.sizes if size > 0]
    for exchange in sweep.exchanges:
        if exchange == "none":
            continue
        spreads = [sweep.times[size, exchange] for size in sizes]
        milliseconds = [1e3 * spread.median for spread in spreads]
        axes.plot(sizes, milliseconds, marker="o", ms=4, color=colour(exchange), label=exchange)
        axes.fill_between(
            sizes,
            [1e3 * spread.lowest for spread in spreads],
            [1e3 * spread.p99 for spread in spreads],
            color=colour(exchange),
            alpha=0.12,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: bytes_text(size)))
    axes.minorticks_off()
    if len(sizes) > 8:
        axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel("buffer")
    axes.set_ylabel("time of one exchange (ms)")
    axes.set_title(f"Exchange alone, {sweep.ranks} ranks (median; band: min to p99)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
