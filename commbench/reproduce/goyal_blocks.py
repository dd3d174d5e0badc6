"""Goyal's binary blocks: halving and doubling on 44 servers as on 32, against the ring.

Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section
4: recursive halving and doubling takes 2 log2 p steps and the ring 2(p-1); off powers of two,
binary blocks take two more; at 32 servers it is three times as fast as the ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

if TYPE_CHECKING:
    from commbench.network.cost import Price

NEEDS = "nothing: computed in half a minute"

CLUSTER = "big-basin"
RANKS = tuple(range(2, 129))
SIZES = {"1 MB": 1e6, "100 MB": 1e8}
_NAMES = {"binary blocks": "binary-blocks", "ring": "ring"}
_EXACT = 1e-9
_FASTER = 3.0


def run() -> Outcome:
    """All numbers of servers, at two sizes."""
    prices = {
        (name, size, ranks): _price(spec, ranks, n_bytes)
        for name, spec in _NAMES.items()
        for size, n_bytes in SIZES.items()
        for ranks in RANKS
    }
    blocks = {ranks: prices["binary blocks", "1 MB", ranks].alpha_count for ranks in RANKS}
    ring = {ranks: prices["ring", "1 MB", ranks].alpha_count for ranks in RANKS}
    alone = {ranks: _price("binary-blocks", ranks, 4.0).alpha_count for ranks in (32, 44, 48)}
    cells = [
        Cell("32 servers", "steps, halving and doubling", alone[32], 10, _EXACT, method="theory"),
        Cell("32 servers", "steps, ring", ring[32], 62, _EXACT, method="theory"),
        Cell("44 servers", "steps, ring", ring[44], 86, _EXACT, method="theory"),
        Cell("48 servers", "steps, binary blocks", alone[48], 12, _EXACT, method="theory"),
        Cell(
            *("44 servers", "steps, binary blocks", alone[44], 12),
            note="the paper's two more are those of two neighbouring blocks; 44 = 32 + 8 + 4, "
            "and a rank of 8 sends to four of 32",
            method="theory",
        ),
    ]
    for size in SIZES:
        for ranks in (32, 44):
            ratio = _ratio(prices, size, ranks)
            label = "ring / binary blocks" if ranks == 44 else "ring / halving and doubling"
            cells.append(Cell(f"{ranks} servers", f"{label}, {size}", ratio, method="theory"))
    return Outcome(
        title="Goyal: binary blocks between servers of 50 Gbit/s",
        source="Goyal et al., 2017",
        cells=tuple(cells),
        findings=tuple(_findings(prices, blocks, ring)),
        series=tuple(
            Series(
                name,
                tuple(map(float, RANKS)),
                tuple(1e3 * prices[name, size, ranks].seconds for ranks in RANKS),
                size,
            )
            for size in SIZES
            for name in _NAMES
        ),
        notes=(
            "One rank a server, as the paper sums in a server first. 10 us between servers are "
            "ours; without additions the ring's best ratio is 62 / 10.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Time over servers, a panel for each size."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    ticks = (2, 16, 32, 44, 64, 96, 128)
    told = {size: Panel(f"A buffer of {size}", "servers", "ms", "", ticks) for size in SIZES}
    return drawn(outcome, told)


def _price(spec: str, ranks: int, n_bytes: float) -> Price:
    from commbench.network.cluster import load_cluster
    from commbench.network.cost import price

    servers = replace(load_cluster(CLUSTER), ranks_per_node=1)
    return price(spec, ranks, n_bytes, servers)


def _ratio(prices: dict[tuple[str, str, int], Price], size: str, ranks: int) -> float:
    """How much longer the ring takes."""
    return prices["ring", size, ranks].seconds / prices["binary blocks", size, ranks].seconds


def _findings(
    prices: dict[tuple[str, str, int], Price], blocks: dict[int, int], ring: dict[int, int]
) -> list[Finding]:
    slower = [ranks for ranks in RANKS if blocks[ranks] > ring[ranks]]
    worst = min(RANKS, key=lambda ranks: _ratio(prices, "100 MB", ranks))
    return [
        Finding(
            f"at 32 servers, halving and doubling can be {_FASTER:g} times as fast as the ring",
            f"{_ratio(prices, '1 MB', 32):.2f} times at 1 MB, "
            f"{_ratio(prices, '100 MB', 32):.2f} at 100 MB, {ring[32] / blocks[32]:.1f} at most",
            ring[32] / blocks[32] >= _FASTER,
            why="as bandwidths are equal, it is for buffers in which latency counts",
        ),
        Finding(
            "on any number of servers up to 128, binary blocks take no more steps than the ring",
            f"more at {slower}" if slower else "fewer or as many at all",
            not slower,
        ),
        Finding(
            "nor more time, however long the buffer",
            f"at 100 MB and {worst} servers they take "
            f"{1 / _ratio(prices, '100 MB', worst):.2f} times as long",
            _ratio(prices, "100 MB", worst) >= 1,
            expected=False,
            why="with many blocks, as 31 = 16+8+4+2+1, each waits for the next: 3.3 n instead of "
            "1.9 n on the chain",
        ),
    ]
