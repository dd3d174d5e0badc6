"""Jia's tensor fusion: time of a step over the size of buckets, on 1,024 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), section 3.3: small tensors are packed, as a ring of 1,024 takes
2,046 steps for each; two buckets, split after tensor 20 of AlexNet and 76 of ResNet-50.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series
from commbench.reproduce._step import Case, loads, predict
from commbench.units import Bytes

NEEDS = "nothing: computed in half a minute"

RANKS = 1024
THRESHOLDS = ("none", "64K", "256K", "1M", "4M", "16M", "64M", "all")
EXCHANGES = {"ring": "ring", "groups of 16": "hierarchical@group=16"}
_CLUSTER = "p40-100g"
_SPLITS = {"resnet50": ("ResNet-50", 76), "alexnet-bn@variant=jia": ("AlexNet", 20)}
_IMAGES = {"resnet50": 64, "alexnet-bn@variant=jia": 128}
_WIRE_BYTES = 2
_NEAR = 1.1


def run() -> Outcome:
    """Both models, by the ring and by groups, at all thresholds and in the paper's two buckets."""
    cells, findings, series = [], [], []
    for model, (name, split) in _SPLITS.items():
        for label, exchange in EXCHANGES.items():
            times = {one: _seconds(model, exchange, one) for one in THRESHOLDS}
            two = _seconds(model, exchange, split)
            best = min(times, key=lambda one: times[one])
            row = f"{name}, {label}"
            cells += [
                Cell(row, f"step, a bucket a tensor (ms) x{_count(model)}", 1e3 * times["none"]),
                Cell(row, "step, one bucket (ms)", 1e3 * times["all"]),
                Cell(row, f"step, best, {best} (ms)", 1e3 * times[best]),
                Cell(row, f"step, two, split after tensor {split} (ms)", 1e3 * two),
            ]
            findings += _findings(row, label, times, two)
            sizes = tuple(_megabytes(model, one) for one in THRESHOLDS)
            series.append(Series(label, sizes, tuple(1e3 * t for t in times.values()), name))
    return Outcome(
        title=f"Jia: tensor fusion on {RANKS} GPUs",
        source="Jia et al., 2018",
        cells=tuple(cells),
        findings=tuple(findings),
        series=tuple(series),
        notes=(
            "Servers of eight P40 with 100 Gbit/s, gradients in float16; buckets travel as "
            "backward fills them. The paper prints no times of these.",
            "AlexNet's rate alone is not in print, so it is taken to do multiply-adds as fast as "
            "ResNet-50.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """A step over the size of its largest bucket."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    told = {
        name: Panel(f"{name}, {RANKS} GPUs", "a bucket's bytes at least (MB)", "step (ms)", "xy")
        for name, _ in _SPLITS.values()
    }
    return drawn(outcome, told)


def _seconds(model: str, exchange: str, fusion: str | int) -> float:
    case = Case(model, _CLUSTER, RANKS, _IMAGES[model], exchange, fusion, _WIRE_BYTES)
    return predict(case).seconds


def _count(model: str) -> int:
    return len(loads(model, "none", _WIRE_BYTES))


def _megabytes(model: str, fusion: str) -> float:
    """Where a threshold stands on the axis: a bucket a tensor at 16 kB, one bucket at its size."""
    if fusion == "none":
        return 16e-3
    if fusion == "all":
        return loads(model, "all", 4)[0].n_bytes / 1e6
    return int(Bytes(fusion)) / 1e6


def _findings(row: str, label: str, times: dict[str, float], two: float) -> list[Finding]:
    fused = min(times.values())
    return [
        Finding(
            f"packed buckets are faster than one of each tensor ({row})",
            f"{1e3 * fused:.0f} against {1e3 * times['none']:.0f} ms",
            fused < times["none"],
            # Steps are what packing saves, and groups have few.
            expected=label == "ring",
        ),
        Finding(
            f"the paper's two buckets are within {_NEAR - 1:.0%} of the best ({row})",
            f"{1e3 * two:.0f} against {1e3 * fused:.0f} ms",
            two <= _NEAR * fused,
            expected=False,
            why="told: the paper gives no times",
        ),
    ]
