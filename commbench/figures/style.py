"""How exchanges look in every panel: colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from commbench.spec import cut

# Okabe and Ito's palette; yellow, which white paper swallows, is left out.
_FIXED = {
    "none": "#999999",
    "native": "#000000",
    "parameter-server": "#D55E00",
    "tree": "#0072B2",
    "ring": "#009E73",
}
_FREE = ("#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#6A3D9A", "#4D4D4D")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# The same hues on a dark page, light enough to stand out from it.
_ON_DARK = {
    "#000000": "#F2F2F2",
    "#999999": "#8A8F98",
    "#D55E00": "#F2803A",
    "#0072B2": "#3F97E6",
    "#009E73": "#2BC79A",
    "#CC79A7": "#E39AC3",
    "#E69F00": "#F2B632",
    "#56B4E9": "#9BDCFF",
    "#8C564B": "#C4968A",
    "#6A3D9A": "#AE8BDA",
    "#4D4D4D": "#B9BEC6",
    "#D9D9D9": "#5A606A",
    "#A6BDDB": "#7FA3CF",
    "#5E8FBF": "#4A7DB5",
    "#B8D8A8": "#7FB069",
}
PHASES = {
    "input": "#D9D9D9",
    "forward": "#A6BDDB",
    "backward": "#5E8FBF",
    "exchange": "#D55E00",
    "update": "#B8D8A8",
}
SETTINGS: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    # The same numbers give the same file.
    "svg.hashsalt": "commbench",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """The looks of one exchange."""

    colour: str
    marker: str
    hollow: bool

    def line(self) -> dict[str, Any]:
        """Keyword arguments for `Axes.plot`."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": "white" if self.hollow else self.colour,
        }


def looks(exchanges: Sequence[str]) -> dict[str, Look]:
    """A look for every exchange, the same in every panel.

    The exchanges that come with commbench keep theirs in every figure; others take what is free, in
    the order of their names. Variants of one exchange share its colour and differ in the marker.
    """
    names = sorted({cut(exchange, "@")[0] for exchange in exchanges} - _FIXED.keys())
    colours = _FIXED | {name: _FREE[turn % len(_FREE)] for turn, name in enumerate(names)}
    order = list(colours)
    variants: dict[str, list[str]] = {}
    for exchange in sorted(exchanges):
        variants.setdefault(cut(exchange, "@")[0], []).append(exchange)
    return {
        exchange: Look(
            colours[name],
            _MARKERS[(order.index(name) + turn) % len(_MARKERS)],
            hollow=len(cut(exchange, "@")) > 1,
        )
        for name, group in variants.items()
        for turn, exchange in enumerate(group)
    }


def on_dark(colour: str) -> str:
    """The colour that stands for another one on a dark page."""
    return _ON_DARK.get(colour, colour)


def bytes_text(size: float) -> str:
    """``4 KiB``, ``1.5 MiB``; powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def time_axis(axes: Any) -> None:
    """A logarithmic y axis of microseconds, with ticks at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    # Such panels often span just one decade.
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda time, _: seconds_text(time)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("time of one exchange, slowest rank")


def seconds_text(microseconds: float, digits: int = 3) -> str:
    """``3 µs``, ``1.5 ms``, ``2 s``."""
    for unit in ("µs", "ms"):
        if microseconds < 1000:
            return f"{microseconds:.{digits}g} {unit}"
        microseconds /= 1000
    return f"{microseconds:.{digits}g} s"


def legend_below(axes: Any, columns: int, asides: Sequence[str] = ()) -> None:
    """The legend under the axis label, where no line can run through it; `asides` come last."""
    handles, labels = axes.get_legend_handles_labels()
    # Matplotlib lists lines before lines with error bars; what was measured comes first.
    pairs = sorted(zip(handles, labels, strict=True), key=lambda pair: pair[1] in asides)
    if pairs:
        axes.legend(
            *zip(*pairs, strict=True),
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.14),
            ncols=max(1, min(columns, len(pairs))),
            columnspacing=1.4,
            handlelength=2.2,
        )
