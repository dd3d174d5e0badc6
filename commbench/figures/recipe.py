"""Panels of a recipe: learning rate, batch and momentum over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LINES = {"learning rate": "#0072B2", "global batch": "#D55E00", "momentum": "#009E73"}


def panels(curves: Mapping[str, Sequence[float]], title: str) -> list[Callable[[Any], None]]:
    """What draws each panel, from the top.

    Args:
        curves: "epoch", and each of the lines over it.
        title: of the topmost.
    """

    def panel(name: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            axes.plot(curves["epoch"], curves[name], color=_LINES[name])
            axes.set_ylabel(name)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1.08 * max(curves[name]) or 1)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            if name == "learning rate":
                axes.set_title(title)
            if name == "momentum":
                axes.set_xlabel("epochs of training data")

        return draw

    return [panel(name) for name in _LINES]
