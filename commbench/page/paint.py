"""The colours of the page's charts: those of the drawn figures, for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from commbench.figures.spread import COLOURS
from commbench.figures.style import PHASES, Look, on_dark

RUNGS = ("#D9D9D9", "#A6BDDB", "#5E8FBF", "#D55E00")
"""Of the headroom ladder, from what costs nothing to what costs most."""
_OTHER = "#999999"


def palette(look: Mapping[str, Look], phases: Iterable[str]) -> dict[str, dict[str, str]]:
    """Every key that a trace may name, in the light and in the dark theme.

    Args:
        look: of each exchange.
        phases: all that any run has.
    """
    light = {
        "none": _OTHER,
        **{exchange_key(name): one.colour for name, one in look.items()},
        **{phase_key(name): PHASES.get(name, _OTHER) for name in phases},
        **{f"rung {number}": colour for number, colour in enumerate(RUNGS)},
        **{f"series {number}": colour for number, colour in enumerate(COLOURS)},
    }
    return {"light": light, "dark": {key: on_dark(colour) for key, colour in light.items()}}


def exchange_key(name: str) -> str:
    """The key of an exchange."""
    return f"exchange {name}"


def phase_key(name: str) -> str:
    """The key of a phase."""
    return f"phase {name}"


def series_key(turn: int) -> str:
    """The key of a kind of run of an experiment."""
    return f"series {turn % len(COLOURS)}"
