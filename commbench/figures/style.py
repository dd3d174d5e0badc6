"""What all panels share: one colour an exchange, and sizes as people say them."""

from __future__ import annotations

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = {
    "none": "#999999",
    "native": "#000000",
    "parameter-server": "#D55E00",
    "tree": "#009E73",
    "ring": "#0072B2",
}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#B8A800", "#7F3C8D", "#3969AC", "#11A579")


def colour(exchange: str) -> str:
    """The colour of an exchange, the same in every panel and every figure."""
    name = exchange.split("@", maxsplit=1)[0]
    if name in _COLOURS and name == exchange:
        return _COLOURS[name]
    return _OTHERS[sum(exchange.encode()) % len(_OTHERS)]


def bytes_text(size: float) -> str:
    """``16 MiB``, ``4 KiB``, ``30.4 MB``: binary units where they are whole."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= factor:
            if size % factor == 0:
                return f"{int(size // factor)} {unit}"
            decimal = {"GiB": (1e9, "GB"), "MiB": (1e6, "MB"), "KiB": (1e3, "kB")}[unit]
            return f"{size / decimal[0]:.3g} {decimal[1]}"
    return f"{int(size)} B"
