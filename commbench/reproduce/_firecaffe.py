"""What FireCaffe's Tables 2 and 3 have in common: hours of training, from one bandwidth.

The paper's machine did not overlap: an iteration is the share of the batch at the rate of one GPU,
and then the exchange, a reduction tree over all weights. The tree's price is that of our own
schedule on the cluster `titan-gemini`, whose bandwidth is the model's one parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from commbench.experiments import Finding
from commbench.reproduce import Cell

CLUSTER = "titan-gemini"
BAND = 0.05  # two digits are printed, of times that a supercomputer's other users share
_HOUR = 3600.0


@dataclass(frozen=True)
class Row:
    """A row as printed.

    Attributes:
        ranks, batch, iterations: of the training.
        hours, speedup: as printed.
        note: why the printed speedup is not judged; "" if it is.
    """

    ranks: int
    batch: int
    iterations: int
    hours: float
    speedup: float
    note: str = ""


@dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        name: as printed.
        model: ours.
        base: the row of one GPU.
        rows: the others.
    """

    name: str
    model: str
    base: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Predicted:
    """A row as computed, seconds of an iteration.

    Attributes:
        row: what for.
        compute_s: at the rate of one GPU.
        exchange_s: of our tree.
        chain_bytes: sent in it, one message after another.
        server_s: a parameter server's in its stead.
    """

    row: Row
    compute_s: float
    exchange_s: float
    chain_bytes: float
    server_s: float

    @property
    def hours(self) -> float:
        """Of the training."""
        return self.row.iterations * (self.compute_s + self.exchange_s) / _HOUR

    @property
    def printed_exchange_s(self) -> float:
        """What the printed time leaves for the exchange."""
        return self.row.hours * _HOUR / self.row.iterations - self.compute_s


def predict(network: Network) -> list[Predicted]:
    """All rows but the one of one GPU, whose rate is taken from print."""
    from commbench.network.cluster import load_cluster
    from commbench.network.cost import price
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    base = network.base
    rate = base.batch * base.iterations / (base.hours * _HOUR)
    n_bytes = 4 * count_cost(build_model(network.model, seed=None), training=True).parameters
    cluster = load_cluster(CLUSTER)
    told = []
    for row in network.rows:
        tree = price("tree", row.ranks, n_bytes, cluster)
        server = price("parameter-server", row.ranks, n_bytes, cluster)
        compute_s = row.batch / row.ranks / rate
        told.append(Predicted(row, compute_s, tree.seconds, tree.beta_bytes, server.seconds))
    return told


def cells(network: Network, predicted: Sequence[Predicted]) -> list[Cell]:
    """Hours and speedups, judged; and what an iteration is made of, told."""
    made = []
    for one in predicted:
        row = one.row
        name = f"{network.name}, {row.ranks} GPUs, batch {row.batch}"
        faster = network.base.hours / one.hours
        made += [
            Cell(name, "time (h)", one.hours, row.hours, BAND, method="theory"),
            Cell(
                *(name, "speedup", faster, row.speedup),
                None if row.note else BAND + 0.5 / row.speedup,  # printed without decimals
                row.note,
                method="theory",
            ),
            Cell(
                *(name, "exchange (ms)", 1e3 * one.exchange_s, 1e3 * one.printed_exchange_s),
                note=f"printed time less compute: {1e3 * one.printed_exchange_s:.0f} ms; "
                f"a parameter server would take {1e3 * one.server_s:.0f}",
                method="theory",
            ),
        ]
    return made


def root_mean_square(predicted: Sequence[Predicted]) -> Finding:
    """How far all times are off together."""
    off = [one.hours / one.row.hours - 1 for one in predicted]
    rms = sqrt(sum(value**2 for value in off) / len(off))
    return Finding(
        f"one bandwidth explains all times within {BAND:.0%} (root mean square)",
        f"{rms:.1%}; these rows alone would give {_fitted(predicted) / 1e9:.2f} GB/s",
        rms <= BAND,
    )


def _fitted(predicted: Sequence[Predicted]) -> float:
    """Bytes a second for the least squares of relative deviations, which is linear in 1/bandwidth.

    All of the exchange is put down to it.
    """
    above = below = 0.0
    for one in predicted:
        total = one.row.hours * _HOUR / one.row.iterations
        slope, missing = one.chain_bytes / total, 1 - one.compute_s / total
        above += slope * missing
        below += slope**2
    return below / above
