"""NCCL's double binary trees against its rings: latency on up to 24,576 ranks, and bandwidth.

Source: NVIDIA, "Massively scale your deep learning training with NCCL 2.4" (2019): trees of NCCL
2.4 take up to 180 times less latency on 24,576 GPUs, at full bandwidth; Sanders, Speck and Traeff
(Parallel Computing 35, 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: computed in a minute"

CLUSTER = "p40-100g"
SHORT = 8.0  # bytes
LONG = 1e8
RANKS = (24, 96, 384, 1536, 6144, 24576)
LONG_RANKS = (6, 12, 24, 48, 96, 192, 384)
CHUNKS = (4, 16, 64)
_CLAIMED = 180
_NEAR = 1.25  # of the ring's time for a long buffer


def run() -> Outcome:
    """The latency of a few bytes, and the time of 100 MB with the number of chunks that suits."""
    ring = {p: _seconds("ring", p, SHORT) for p in RANKS}
    tree = {p: _seconds("double-tree@segments=1", p, SHORT) for p in RANKS}
    long_ring = {p: _seconds("ring", p, LONG) for p in LONG_RANKS}
    long_tree = {
        p: min(_seconds(f"double-tree@segments={one}", p, LONG) for one in CHUNKS)
        for p in LONG_RANKS
    }
    last, most = RANKS[-1], LONG_RANKS[-1]
    rises = tree[last] / tree[RANKS[0]]
    return Outcome(
        title="NCCL 2.4: double binary trees and rings",
        source="NVIDIA, 2019",
        cells=tuple(
            Cell(
                f"{p} ranks",
                "ring / trees, 8 bytes",
                ring[p] / tree[p],
                method="theory",
                note=f"up to {_CLAIMED} in print" if p == last else "",
            )
            for p in RANKS
        )
        + tuple(
            Cell(f"{p} ranks", "trees / ring, 100 MB", long_tree[p] / long_ring[p], method="theory")
            for p in LONG_RANKS
        ),
        findings=(
            Finding(
                f"trees take {_CLAIMED} times less latency on {last:,} ranks, or even less",
                f"{ring[last] / tree[last]:.0f} times",
                ring[last] / tree[last] >= _CLAIMED,
                why="all links are alike here; of real ones those inside a node are quicker, which "
                "most of a ring's are",
            ),
            Finding(
                "the latency of trees grows with the logarithm of the ranks",
                f"x {rises:.2f} from {RANKS[0]} to {last:,}, whose logarithms are as "
                f"1 to {log2(last) / log2(RANKS[0]):.2f}",
                abs(rises / (log2(last) / log2(RANKS[0])) - 1) < 0.2,
            ),
            Finding(
                f"trees keep the bandwidth: 100 MB take no more than {_NEAR:g} times the ring's",
                f"{long_tree[most] / long_ring[most]:.2f} times on {most} ranks",
                long_tree[most] <= _NEAR * long_ring[most],
                why="2 n on a rank with two children, where the ring has 2 n (p-1)/p; on few ranks "
                f"it is up to {max(long_tree[p] / long_ring[p] for p in LONG_RANKS):.2f} times",
            ),
        ),
        series=(
            *_lines("8 bytes", {"ring": ring, "double tree": tree}),
            *_lines("100 MB", {"ring": long_ring, "double tree": long_tree}),
        ),
        notes=(
            "5 us and 100 Gbit/s between all ranks. Of the figures in print only the one is known "
            "here, and it is told and not judged as a number.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Time over ranks, of few bytes and of many."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    return drawn(
        outcome,
        {
            "8 bytes": Panel("8 bytes", "ranks", "seconds", "xy", RANKS),
            "100 MB": Panel("100 MB", "ranks", "seconds", "x", LONG_RANKS),
        },
    )


def _seconds(spec: str, ranks: int, n_bytes: float) -> float:
    from dataclasses import replace

    from commbench.network.cluster import Layout, load_cluster
    from commbench.network.cost import price

    alike = replace(load_cluster(CLUSTER), ranks_per_node=1, layout=Layout())
    return price(spec, ranks, n_bytes, alike).seconds


def _lines(panel: str, found: dict[str, dict[int, float]]) -> list[Series]:
    return [
        Series(name, tuple(map(float, times)), tuple(times.values()), panel)
        for name, times in found.items()
    ]
