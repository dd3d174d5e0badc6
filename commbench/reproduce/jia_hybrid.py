"""Jia's hybrid all-reduce: up to which size groups are faster than one ring, on 1,024 GPUs.

Source: Jia et al., "Highly scalable deep learning training system with mixed precision: training
ImageNet in four minutes" (2018), section 3.3: convolutions' gradients by groups, AlexNet's dense
layers by the ring. The paper prints no crossover; the formula's is 500 alpha / beta.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import TYPE_CHECKING, Any

from commbench.experiments import Finding
from commbench.reproduce import Cell, Outcome, Series

if TYPE_CHECKING:
    from commbench.network.cluster import Cluster

NEEDS = "nothing: computed in seconds"

RANKS, GROUP = 1024, 16
SIZES = tuple(1e4 * 4**power for power in range(9))
LINKS = {"5 us, 6 GB/s": (5.0, 6.0), "5 us, 12.5 GB/s": (5.0, 12.5)}
EXCHANGES = {"hierarchical": f"hierarchical@group={GROUP}", "ring": "ring"}
_WIRE_BYTES = 2  # float16
_BAND = 0.01


def run() -> Outcome:
    """Where the two prices meet, and on which side the papers' tensors lie."""
    cells, findings, series = [], [], []
    for label, (alpha_us, beta_gb_s) in LINKS.items():
        cluster = _cluster(alpha_us, beta_gb_s)
        met, formula = _crossover(cluster), _formula(alpha_us, beta_gb_s)
        unit = cluster.between.latency_s * cluster.between.bandwidth
        cells += [
            Cell(label, "crossover (MB)", met / 1e6, method="theory"),
            Cell(label, "crossover (alpha / beta)", met / unit, method="theory"),
        ]
        findings += [
            Finding(
                f"prices meet where the formula of `hybrid` says ({label})",
                f"{met / 1e6:.2f} and {formula / 1e6:.2f} MB",
                abs(met / formula - 1) < _BAND,
            ),
            *_sides(label, met),
        ]
        series += [_series(name, label, cluster) for name in EXCHANGES]
    return Outcome(
        title=f"Jia: groups of {GROUP} or one ring, on {RANKS} GPUs",
        source="Jia et al., 2018",
        cells=tuple(cells),
        findings=tuple(findings),
        series=tuple(series),
        notes=(
            "All links alike, and additions at no cost, as in the formula. The paper tells neither "
            "its latency nor its threshold, so no number is judged.",
        ),
    )


def panels(outcome: Outcome) -> list[Callable[[Any], None]]:
    """Time over size, a panel for each link."""
    from commbench.figures.lines import Panel
    from commbench.figures.lines import panels as drawn

    told = {label: Panel(f"Links of {label}", "MB", "seconds", "xy") for label in LINKS}
    return drawn(outcome, told)


def _cluster(alpha_us: float, beta_gb_s: float) -> Cluster:
    from commbench.network.cluster import Cluster, Link

    link = Link(alpha_us * 1e-6, beta_gb_s * 1e9)
    return Cluster("links alike", "", (), (), 1, link, link, float("inf"))


def _formula(alpha_us: float, beta_gb_s: float) -> float:
    from commbench.topologies.hybrid import crossover_bytes

    return crossover_bytes(RANKS, GROUP, RANKS // GROUP, alpha_us, beta_gb_s)


def _seconds(name: str, size: float, cluster: Cluster) -> float:
    from commbench.network.cost import price

    return price(EXCHANGES[name], RANKS, size, cluster).seconds


def _crossover(cluster: Cluster) -> float:
    """By bisection: both prices grow with the size, that of the groups from less and faster."""
    low, high = SIZES[0], SIZES[-1]
    while high / low > 1.001:
        middle = sqrt(low * high)
        grouped, ring = (_seconds(name, middle, cluster) for name in EXCHANGES)
        low, high = (middle, high) if grouped < ring else (low, middle)
    return sqrt(low * high)


def _series(name: str, label: str, cluster: Cluster) -> Series:
    times = tuple(_seconds(name, size, cluster) for size in SIZES)
    return Series(name, tuple(size / 1e6 for size in SIZES), times, label)


def _sides(label: str, crossover: float) -> list[Finding]:
    """On which side the tensors lie that the paper names."""
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import tensor_macs

    largest = {
        model: [
            _WIRE_BYTES * elements
            for elements, _ in sorted(tensor_macs(build_model(model, seed=None)), reverse=True)
        ]
        for model in ("alexnet", "resnet50")
    }
    dense = largest["alexnet"][:2]
    return [
        Finding(
            f"AlexNet's two large dense layers go by the ring ({label})",
            f"{dense[0] / 1e6:.1f} and {dense[1] / 1e6:.1f} MB in float16",
            min(dense) > crossover,
        ),
        Finding(
            f"every tensor of ResNet-50 goes by groups ({label})",
            f"{largest['resnet50'][0] / 1e6:.1f} MB at most in float16",
            largest["resnet50"][0] < crossover,
        ),
    ]
