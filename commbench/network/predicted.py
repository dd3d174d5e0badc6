"""What the model says beside what was measured: of a sweep's rows, and of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commbench.errors import UserError
from commbench.network.cluster import Cluster, load_cluster
from commbench.network.cost import price
from commbench.network.iteration import Compute, Iteration, Load, iterate, model_loads

if TYPE_CHECKING:
    from commbench.sweep_table import Row


def cluster_of(name: str | None, ranks: int) -> Cluster | None:
    """The cluster of an option; None where it was not given.

    Raises:
        UserError: there is none of this name, or it has fewer ranks.
    """
    if name is None:
        return None
    cluster = load_cluster(name)
    cluster.nodes(ranks)
    return cluster


def row_seconds(rows: Sequence[Row], ranks: int, cluster: Cluster) -> list[float | None]:
    """The price of each row of a sweep; None for what the library does by itself."""
    found: list[float | None] = []
    for row in rows:
        try:
            found.append(price(row.exchange, ranks, row.size, cluster).seconds)
        except UserError:
            found.append(None)
    return found


def sweep_lines(rows: Sequence[Row], ranks: int, cluster: Cluster) -> list[str]:
    """A table of rows that were measured and predicted, after a sweep's own."""
    width = max([24, *(len(row.exchange) for row in rows)])
    lines = [
        f"# predicted on {cluster.name}",
        f"#{'size (B)':>11} {'exchange':<{width}} {'predicted (us)':>14} {'median (us)':>12} "
        f"{'off':>8}",
    ]
    for row, seconds in zip(rows, row_seconds(rows, ranks, cluster), strict=True):
        told = f" {row.size:>11} {row.exchange:<{width}}"
        if not seconds:
            lines.append(f"{told} {'N/A':>14} {row.time_us['median']:>12.1f} {'N/A':>8}")
            continue
        off = row.time_us["median"] / (1e6 * seconds) - 1
        lines.append(f"{told} {1e6 * seconds:>14.1f} {row.time_us['median']:>12.1f} {off:>+8.1%}")
    return lines


def step_line(path: Path, cluster: Cluster) -> str:
    """A training run's step as predicted from its own forward and backward, and as measured.

    Args:
        path: of its run file.
        cluster: what its exchanges are priced on.
    """
    from commbench.record.reader import summary

    run = summary(path)
    phases = run["phases_s"]
    try:
        predicted = predict_step(run, cluster)
    except UserError as error:
        return f"predicted on {cluster.name}: nothing: {error}"
    measured = sum(phases[name] for name in ("forward", "backward", "exchange"))
    return (
        f"predicted on {cluster.name}: forward, backward and exchange in "
        f"{1e3 * predicted.seconds:.1f} ms, measured {1e3 * measured:.1f} "
        f"({measured / predicted.seconds - 1:+.1%}); {1e3 * predicted.exposed_s:.1f} ms of the "
        f"exchange not hidden, measured {1e3 * phases['exchange']:.1f}"
    )


def predict_step(run: dict[str, Any], cluster: Cluster) -> Iteration:
    """Put a step together from a run's own computing and the prices of its buckets.

    Args:
        run: `record.reader.summary` of a training run.
        cluster: of as many ranks at least.

    Raises:
        UserError: an exchange that has no price, or an older run file without buckets.
    """
    if not run.get("buckets"):
        raise UserError("the run has no buckets that are exchanged on a schedule")
    compute = Compute(run["phases_s"]["forward"], run["phases_s"]["backward"], "measured")
    ready = _ready(run["options"])
    buckets = run["buckets"]
    if len(ready) != len(buckets):  # a codec has its own
        ready = [Load(0, 1.0)] * len(buckets)
    loads = [
        replace(load, n_bytes=bucket["bytes"]) for load, bucket in zip(ready, buckets, strict=True)
    ]
    # Buckets of one length may be exchanged in one way only.
    ways = {bucket["bytes"]: bucket["algorithm"] for bucket in buckets}
    return iterate(
        compute,
        loads,
        lambda n_bytes: price(ways[int(n_bytes)], run["ranks"], n_bytes, cluster).seconds,
        overlap=bool(run["options"].get("overlap", False)),
    )


def _ready(options: dict[str, Any]) -> list[Load]:
    """When backward has filled each bucket, by the layers of the model as it was trained."""
    from commbench.buckets import parse_fusion
    from commbench.workloads.models import build_model

    model = build_model(
        options["model"],
        classes=options["classes"] or None,
        image_size=options["image_size"] or None,
        width=options["width"],
        seed=None,
    )
    split = options.get("fusion_split") or None
    size = None if split else options.get("fusion_bytes") or "all"
    return list(model_loads(model, parse_fusion(size, split)))
