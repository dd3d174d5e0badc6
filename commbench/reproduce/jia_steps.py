"""Jia's hierarchical all-reduce: eleven times fewer steps than a ring's on 1,024 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), section 3.3: 4(k-1) + 2(p/k-1) steps against 2(p-1); and the
Tencent team's own account, with p = 16 in four groups.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

NEEDS = "nothing: counted in seconds"

RANKS = 1024
GROUPS = (2, 4, 8, 16, 32, 64, 128, 256)
_EXACT = 1e-9
_BAND = 0.01


def run() -> Outcome:
    """Steps as counted from the schedules, and messages on the chain that decides the price."""
    steps = {k: _rounds(f"hierarchical@group={k}", RANKS) for k in GROUPS}
    ring = _rounds("ring", RANKS)
    chain = _messages("ring", RANKS) / _messages("hierarchical@group=16", RANKS)
    best = min(GROUPS, key=lambda k: steps[k])
    return Outcome(
        title="Jia: steps of the hierarchical all-reduce",
        source="Jia et al., 2018",
        cells=(
            Cell("16 ranks", "ring", _rounds("ring", 16), 30, _EXACT, method="theory"),
            Cell(
                *("16 ranks", "groups of 4", _rounds("hierarchical@group=4", 16), 18, _EXACT),
                method="theory",
            ),
            Cell("1024 ranks", "ring", ring, method="theory"),
            *(Cell("1024 ranks", f"groups of {k}", steps[k], method="theory") for k in GROUPS),
            Cell("1024 ranks", "times fewer, groups of 16", ring / steps[16], 11, _BAND, "up to"),
        ),
        findings=(
            Finding(
                "the chain of messages is as much shorter as the steps are fewer",
                f"{chain:.2f} times",
                abs(chain / (ring / steps[16]) - 1) < _BAND,
            ),
            Finding(
                "groups of about sqrt(p/2) take the fewest steps",
                f"sqrt(512) = {sqrt(RANKS / 2):.1f}; groups of {best} take {steps[best]:.0f}",
                best in (16, 32),
            ),
        ),
        series=(
            Series("hierarchical", tuple(map(float, GROUPS)), tuple(steps.values()), "steps"),
            Series("ring", (GROUPS[0], GROUPS[-1]), (ring, ring), "steps"),
        ),
        notes=("A step is a round of the schedule: what waits for the one before.",),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Steps over the size of the groups."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    title = f"Steps on {RANKS} ranks"
    return drawn(outcome, {"steps": Panel(title, "ranks in a group", "steps", "xy", GROUPS)})


def _rounds(spec: str, ranks: int) -> float:
    """Of the formula that `commbench verify` holds against the schedules."""
    from commbench.registry import parse_exchange

    formula = parse_exchange(spec).closed_form(ranks)
    assert formula is not None
    return float(formula.rounds)


def _messages(spec: str, ranks: int) -> int:
    """On the chain that decides how long a short buffer takes."""
    from commbench.network.cluster import load_cluster
    from commbench.network.cost import price

    return price(spec, ranks, 4.0, load_cluster("ethernet-25g")).alpha_count
