"""Which exchange a cluster should use: every one priced, with the buckets that suit it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commbench.errors import UserError
from commbench.network.cluster import Cluster
from commbench.network.cost import Price, price
from commbench.network.curve import Curve
from commbench.network.iteration import Compute, Iteration, Load, iterate
from commbench.registry import Choice, parse_exchange, topology_names

FUSIONS = ("none", "256K", "1M", "4M", "16M", "64M", "all")
_EQUAL = 1.01  # what is within a hundredth is as good: the model is no better

_NAMED = 3


@dataclass(frozen=True)
class Training:
    """What gradients are exchanged for.

    Attributes:
        ranks, cluster: how many, of what.
        compute: of a rank in a step.
        loads: the buckets of the model's gradients, by fusion.
        overlap: whether buckets are exchanged beside backward.
    """

    ranks: int
    cluster: Cluster
    compute: Compute
    loads: Mapping[str, Sequence[Load]]
    overlap: bool = True

    @property
    def gradient_bytes(self) -> float:
        """Of all buckets, as they travel."""
        return sum(load.n_bytes for load in next(iter(self.loads.values())))


@dataclass(frozen=True)
class Option:
    """An exchange with the buckets that suit it best.

    Attributes:
        exchange: as on the command line.
        fusion: of `FUSIONS`, or what was asked for.
        buckets: how many there are.
        iteration: predicted.
        whole: the price of all gradients in one buffer, by which exchanges are compared in words.
    """

    exchange: str
    fusion: str
    buckets: int
    iteration: Iteration
    whole: Price


@dataclass(frozen=True)
class Advice:
    """All options, the best first.

    Attributes:
        options: by predicted time.
        refused: why others cannot be used.
        compute: of a rank.
        gradient_bytes: as they travel.
    """

    options: tuple[Option, ...]
    refused: tuple[str, ...]
    compute: Compute
    gradient_bytes: float

    @property
    def reason(self) -> str:
        """Why the first is first, in a line."""
        best, *others = self.options
        if not others:
            return _told(best, self.gradient_bytes)
        equal = [
            option.exchange
            for option in others
            if option.iteration.seconds <= _EQUAL * best.iteration.seconds
        ]
        told = _told(best, self.gradient_bytes)
        if equal:
            more = f" and {len(equal) - _NAMED} more" if len(equal) > _NAMED else ""
            return f"{told}; as good within 1 %: {', '.join(equal[:_NAMED])}{more}"
        return f"{told}; {others[0].exchange}, the next: {_told(others[0], self.gradient_bytes)}"


def candidates(ranks: int, cluster: Cluster) -> list[str]:
    """The exchanges worth a try: every topology with its defaults, and some that know of nodes."""
    names = [name for name in topology_names() if name not in ("none", "native", "ps-async")]
    per_node = cluster.ranks_per_node
    if 1 < per_node < ranks:
        names += [
            f"hierarchical@group=node@inner={inner}@outer={outer}"
            for inner in ("ring", "tree")
            for outer in ("ring", "binary-blocks", "double-tree")
        ]
        names += [f"torus@x={per_node}"] * (ranks % per_node == 0)
    return names


def advise(exchanges: Sequence[str], training: Training) -> Advice:
    """Price exchanges, each with the fusion that suits it best.

    Args:
        exchanges: as on the command line, without those that leave work to a library.
        training: what they are for.

    Raises:
        UserError: none of the exchanges runs on so many ranks, or the cluster has fewer.
    """
    nodes = training.cluster.nodes(training.ranks)
    options, refused, seen = [], [], set()
    for spec in exchanges:
        choice = parse_exchange(spec).placed(nodes)
        if choice.spec in seen:
            continue
        seen.add(choice.spec)
        try:
            options.append(_best(spec, choice, training))
        except UserError as error:
            refused.append(str(error))
    if not options:
        raise UserError("; ".join(refused))
    options.sort(key=lambda option: option.iteration.seconds)
    return Advice(tuple(options), tuple(refused), training.compute, training.gradient_bytes)


def _best(spec: str, choice: Choice, training: Training) -> Option:
    """The fusion with which an exchange is fastest."""
    loads = training.loads
    curve = Curve(choice, training.ranks, training.cluster)
    curve.of(load.n_bytes for each in loads.values() for load in each)
    tried = {
        fusion: iterate(training.compute, each, curve.seconds, overlap=training.overlap)
        for fusion, each in loads.items()
    }
    fusion = min(tried, key=lambda one: tried[one].seconds)
    whole = price(choice, training.ranks, training.gradient_bytes, training.cluster)
    return Option(spec, fusion, len(loads[fusion]), tried[fusion], whole)


def _told(option: Option, total: float) -> str:
    """What an exchange takes, in one buffer, and how much of it training waits for."""
    whole, iteration = option.whole, option.iteration
    share = whole.latency_s / whole.seconds if whole.seconds else 0.0
    hidden = 1 - iteration.exposed_s / iteration.exchange_s if iteration.exchange_s else 1.0
    return (
        f"{whole.alpha_count} messages and {whole.beta_bytes / total:.3g} x the gradient one after "
        f"another ({share:.0%} of the time is latency), {hidden:.0%} hidden behind backward"
    )
