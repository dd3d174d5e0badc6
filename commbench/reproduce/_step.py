"""A training step on a cluster, as several reproductions compute it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commbench.network.curve import Curve
    from commbench.network.iteration import Iteration, Load


@dataclass(frozen=True)
class Case:
    """What is trained, and how gradients travel.

    Attributes:
        model: by name, with its options.
        cluster: by name.
        ranks: how many.
        images: a rank's share of the batch.
        exchange: as on the command line.
        fusion: as `--fusion-bytes`, or the number of tensors of `--fusion-split`.
        element_bytes: of an element as it travels.
        images_per_s: of a rank alone; None for the cluster's.
    """

    model: str
    cluster: str
    ranks: int
    images: float
    exchange: str
    fusion: str | int
    element_bytes: int = 4
    images_per_s: float | None = None


def predict(case: Case, *, overlap: bool = True) -> Iteration:
    """Price every bucket and put the step together; one rank exchanges nothing."""
    from commbench.network.cluster import load_cluster
    from commbench.network.iteration import Compute, iterate, rank_compute

    compute = (
        Compute.of(case.images / case.images_per_s)
        if case.images_per_s
        else rank_compute(load_cluster(case.cluster), case.model, case.images)
    )
    if case.ranks == 1:
        return iterate(compute, (), lambda _: 0.0)
    buckets = loads(case.model, case.fusion, case.element_bytes)
    curve = _curve(case.exchange, case.ranks, case.cluster)
    curve.of(load.n_bytes for load in buckets)
    return iterate(compute, buckets, curve.seconds, overlap=overlap)


@functools.cache
def loads(model: str, fusion: str | int, element_bytes: int) -> tuple[Load, ...]:
    """The buckets of a model's gradients."""
    from commbench.buckets import parse_fusion
    from commbench.network.iteration import model_loads
    from commbench.workloads.models import build_model

    text, split = (None, fusion) if isinstance(fusion, int) else (fusion, None)
    return model_loads(build_model(model, seed=None), parse_fusion(text, split), element_bytes)


@functools.cache
def _curve(exchange: str, ranks: int, cluster: str) -> Curve:
    from commbench.network.cluster import load_cluster
    from commbench.network.curve import Curve
    from commbench.registry import parse_exchange

    return Curve(parse_exchange(exchange), ranks, load_cluster(cluster))
