"""The time of a training iteration: what is left of the exchanges when backward is over.

Backward fills one bucket of gradients after another, last layer first. A bucket's exchange begins
when it is full and the one before is done: ``end[i] = max(ready[i], end[i-1]) + T(bytes[i])``. The
iteration ends with the last of them, and no earlier than backward. Without overlap, as FireCaffe
had it, all exchanges follow backward.

When a bucket is ready is computed from the layers: backward takes each the time that its share of
all multiply-adds gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from commbench.errors import UserError
from commbench.network.cluster import Cluster

if TYPE_CHECKING:
    from commbench.buckets import Fusion
    from commbench.workloads.models.network import Network

_FORWARD_SHARE = 1 / 3  # of the work of a step; backward takes twice the forward pass


@dataclass(frozen=True)
class Compute:
    """What a rank computes in a step.

    Attributes:
        forward_s, backward_s: seconds.
        how: where they are from, in words.
    """

    forward_s: float
    backward_s: float
    how: str = ""

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.forward_s + self.backward_s

    @classmethod
    def of(cls, seconds: float, how: str = "") -> Compute:
        """Of a whole step, a third of it forward."""
        return cls(seconds * _FORWARD_SHARE, seconds * (1 - _FORWARD_SHARE), how)


@dataclass(frozen=True)
class Load:
    """A bucket of gradients.

    Attributes:
        n_bytes: to exchange.
        ready: how much of backward is done when it is full, from 0 to 1.
    """

    n_bytes: float
    ready: float


@dataclass(frozen=True)
class Iteration:
    """One step of training.

    Attributes:
        seconds: all of it.
        compute_s: forward and backward.
        exchange_s: of all exchanges, hidden behind backward or not.
    """

    seconds: float
    compute_s: float
    exchange_s: float

    @property
    def exposed_s(self) -> float:
        """What the exchanges add to the step."""
        return self.seconds - self.compute_s

    @property
    def efficiency(self) -> float:
        """Of a rank, against one that computes alone: 1 where nothing is added."""
        return self.compute_s / self.seconds


def iterate(
    compute: Compute,
    loads: Sequence[Load],
    seconds: Callable[[float], float],
    *,
    overlap: bool = True,
) -> Iteration:
    """Put a step together.

    Args:
        compute: of a rank.
        loads: in the order in which backward fills them.
        seconds: of the exchange of so many bytes.
        overlap: whether exchanges run beside backward.
    """
    times = [seconds(load.n_bytes) for load in loads]
    end = 0.0
    for load, took in zip(loads, times, strict=True):
        ready = load.ready if overlap else 1.0
        end = max(compute.forward_s + ready * compute.backward_s, end) + took
    return Iteration(max(compute.seconds, end), compute.seconds, sum(times))


def model_loads(model: Network, fusion: Fusion, element_bytes: float = 4) -> tuple[Load, ...]:
    """The buckets of a model's gradients, and when backward has filled them.

    Args:
        model: with or without values.
        fusion: which gradients travel together; counted in float32, as in training.
        element_bytes: of an element as it travels.
    """
    from commbench.workloads.models.cost import tensor_macs

    tensors = tensor_macs(model)[::-1]
    counts = fusion.cut([4 * elements for elements, _ in tensors])
    done = [0, *accumulate(macs for _, macs in tensors)]
    edges = [0, *accumulate(counts)]
    loads = []
    for first, last in pairwise(edges):
        elements = sum(elements for elements, _ in tensors[first:last])
        loads.append(Load(element_bytes * elements, done[last] / done[-1]))
    return tuple(loads)


def rank_compute(cluster: Cluster, model: str, batch: float) -> Compute:
    """What a step of a model takes a rank of a cluster, without any exchange.

    Between two batches of which the rate is known it lies between, beyond them it is the nearest.
    A model of which none is known is taken to do as many multiply-adds a second as one of which
    it is.

    Args:
        cluster: with rates of some model.
        model: by name, with its options.
        batch: images a step of the rank.

    Raises:
        UserError: the cluster tells the rate of no model, or the batch is not above 0.
    """
    if not batch > 0:
        raise UserError(f"a batch of {batch:g} images a rank: it must be above 0")
    rates = cluster.images_per_s
    if model in rates:
        rate = _at(rates[model], batch)
        return Compute.of(batch / rate, f"{rate:.4g} images/s a rank, of {cluster.name}")
    if not rates:
        raise UserError(
            f"cluster {cluster.name} does not tell how fast its ranks compute: give "
            "--images-per-s, or [images_per_s] in the cluster's file"
        )
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    known = next(iter(rates))
    work = [count_cost(build_model(one, seed=None), training=True).macs for one in (known, model)]
    rate = _at(rates[known], batch) * work[0] / work[1]
    how = f"{rate:.4g} images/s a rank, if it does multiply-adds as fast as {known} does there"
    return Compute.of(batch / rate, how)


def _at(rates: Mapping[int, float], batch: float) -> float:
    """A rate between those that are known."""
    batches = sorted(rates)
    if batch <= batches[0]:
        return rates[batches[0]]
    for low, high in pairwise(batches):
        if batch <= high:
            share = (batch - low) / (high - low)
            return rates[low] + share * (rates[high] - rates[low])
    return rates[batches[-1]]
