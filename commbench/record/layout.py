"""The tables of a run file: which variables over which dimensions, in which units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORMAT = "commbench run file"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Variable:
    """One dataset. With `data` it is written once; without, it is NaN until the run fills it.

    A variable whose only dimension carries its own name is that dimension's coordinate (netCDF's
    convention); a group has one for every dimension it uses.

    Attributes:
        dims: the dimensions' names, at least one.
        long_name: one phrase for an axis label.
        units: UDUNITS spelling; "1" for counts, ratios and labels.
        data: numbers or strings, shaped as `dims`; None for a variable filled during the run.
        dtype: "float32" or "float64" of a variable without data (NaN says "not measured").
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    data: ArrayLike | None = None
    dtype: str = "float64"


@dataclass(frozen=True)
class Group:
    """One HDF5 group, opened by xarray as one dataset.

    Raises:
        ValueError: a dimension without a coordinate, data of another shape, or a variable to be
            filled that is not floating-point.
    """

    name: str
    variables: Mapping[str, Variable]

    def __post_init__(self) -> None:
        """Check every variable against the dimensions' lengths."""
        for name, variable in self.variables.items():
            shape = self.shape(variable)
            if variable.data is not None and np.shape(variable.data) != shape:
                raise ValueError(
                    f"{self.name}/{name}: data of shape {np.shape(variable.data)}, "
                    f"its dimensions {variable.dims} say {shape}"
                )
            if variable.data is None and variable.dtype not in ("float32", "float64"):
                raise ValueError(f"{self.name}/{name}: {variable.dtype} cannot hold NaN")

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """The variable's shape, from the coordinates of its dimensions."""
        if not variable.dims:
            raise ValueError(f"{self.name}: a variable without dimensions belongs in an attribute")
        lengths = {}
        for name in variable.dims:
            coordinate = self.variables.get(name)
            if coordinate is None or coordinate.dims != (name,) or coordinate.data is None:
                raise ValueError(f"{self.name}: dimension {name} has no coordinate with data")
            lengths[name] = np.shape(coordinate.data)[0]
        return tuple(lengths[name] for name in variable.dims)


@dataclass(frozen=True)
class Bucket:
    """One gradient bucket and what one exchange of it makes each rank send and receive.

    The per-rank sequences have one entry a rank; None where nobody can know (`native`: the MPI
    library does not tell what it sends). `bound_bytes` is the least that any all-reduce moves
    through its busiest rank.
    """

    bytes: int
    algorithm: str
    messages_sent: Sequence[float] | None = None
    messages_received: Sequence[float] | None = None
    bytes_sent: Sequence[float] | None = None
    bytes_received: Sequence[float] | None = None
    bound_bytes: float = math.nan

    @property
    def hottest_rank_bytes(self) -> float:
        """What the busiest rank sends or receives, the greater; NaN if unknown."""
        return max([*(self.bytes_sent or [math.nan]), *(self.bytes_received or [math.nan])])


def training_groups(
    *,
    steps: int,
    ranks: int,
    phases: Sequence[str],
    evaluations: int,
    buckets: Sequence[Bucket] = (),
) -> list[Group]:
    """The groups of a training run: /steps, /timing, /eval and /exchange.

    To fill: `steps/{epoch,lr,batch,loss,images_per_s}` (steps,), `timing/seconds` (steps, ranks,
    phases) and `timing/{exchanging,waiting}` (steps, ranks) float32,
    `eval/{step,epoch,time_s,top1,top5,loss}` (evaluations,). Row i of the first two belongs to
    update i + 1.
    """
    step = Variable(("step",), "update number, from 1", data=np.arange(1, steps + 1))
    rank = _rank(ranks)
    steps_group = Group(
        "steps",
        {
            "step": step,
            "epoch": Variable(("step",), "epochs of training data seen after the update"),
            "lr": Variable(("step",), "learning rate of the update"),
            "batch": Variable(("step",), "samples of the update, all ranks together"),
            "loss": Variable(("step",), "training loss, mean over the global batch"),
            "images_per_s": Variable(("step",), "samples per second, all ranks together", "s-1"),
        },
    )
    timing = Group(
        "timing",
        {
            "step": step,
            "rank": rank,
            "phase": Variable(("phase",), "part of the step", data=np.array(phases, str)),
            "seconds": Variable(
                ("step", "rank", "phase"), "time spent in the phase", "s", dtype="float32"
            ),
            "exchanging": Variable(
                ("step", "rank"),
                "time in exchanges, waits included, hidden behind backward or not",
                "s",
                dtype="float32",
            ),
            "waiting": Variable(
                ("step", "rank"),
                "time from the rank's last gradient to the slowest rank's",
                "s",
                dtype="float32",
            ),
        },
    )
    dims = ("evaluation",)
    evaluation = Group(
        "eval",
        {
            "evaluation": Variable(dims, "evaluation, from 0", data=np.arange(evaluations)),
            "step": Variable(dims, "updates done before the evaluation"),
            "epoch": Variable(dims, "epochs of training data seen before the evaluation"),
            "time_s": Variable(dims, "training time before the evaluation", "s"),
            "top1": Variable(dims, "fraction of test samples whose first guess is right"),
            "top5": Variable(dims, "fraction of test samples right among the first five guesses"),
            "loss": Variable(dims, "test loss, mean over the test samples"),
        },
    )
    return [steps_group, timing, evaluation, _exchange_group(ranks, buckets)]


def staleness_group(servers: Sequence[int], workers: Sequence[int], bins: int) -> Group:
    """The group of an asynchronous training run, /staleness.

    To fill: `staleness/{updates,clocks}` (servers, workers, bins), and of each
    `staleness/NAME_{sum,largest}` (servers, workers). The last bin also holds all that is larger.
    """
    pair = ("server", "worker")
    variables = {
        "server": Variable(("server",), "MPI rank of the server", data=np.array(servers)),
        "worker": Variable(("worker",), "MPI rank of the worker", data=np.array(workers)),
        "staleness": Variable(
            ("staleness",), "staleness, in the last bin this or more", data=np.arange(bins)
        ),
    }
    for name, what in (
        ("updates", "updates of the shard since the pull"),
        ("clocks", "steps not complete at the pull"),
    ):
        variables[name] = Variable((*pair, "staleness"), f"gradients applied, by {what}")
        variables[f"{name}_sum"] = Variable(pair, f"{what}, sum over the gradients")
        variables[f"{name}_largest"] = Variable(pair, f"{what}, largest")
    return Group("staleness", variables)


def sweep_groups(
    *,
    sizes_bytes: Sequence[int],
    exchanges: Sequence[str],
    iterations: int,
    ranks: int,
    hottest_rank_bytes: ArrayLike | None = None,
    bound_bytes: ArrayLike | None = None,
    algorithms: Sequence[Sequence[str]] | None = None,
    inexact: bool = False,
) -> list[Group]:
    """The one group of a sweep, /sweep.

    To fill: `sweep/seconds` (sizes, exchanges, iterations, ranks) and `sweep/wrong` (sizes,
    exchanges), both float64; also `sweep/hottest_rank_bytes` and `sweep/bound_bytes` (sizes,
    exchanges) unless they are given here. `algorithms` (sizes, exchanges) are what the exchanges
    come down to at each size, where that is not themselves. With `inexact` sums there is
    `sweep/error` (sizes, exchanges) to fill as well.
    """
    cell = ("size_bytes", "exchange")

    def table(values: ArrayLike | None) -> NDArray[np.float64] | None:
        return None if values is None else np.asarray(values, np.float64)

    return [
        Group(
            "sweep",
            {
                "size_bytes": Variable(
                    ("size_bytes",), "size of the buffer", "byte", data=np.asarray(sizes_bytes)
                ),
                "exchange": Variable(
                    ("exchange",), "exchange and options", data=np.array(exchanges, str)
                ),
                "iteration": Variable(
                    ("iteration",), "timed iteration, from 0", data=np.arange(iterations)
                ),
                "rank": _rank(ranks),
                "algorithm": Variable(
                    cell,
                    "exchange that sums buffers of this size",
                    data=np.array(algorithms or [exchanges] * len(sizes_bytes), str),
                ),
                "seconds": Variable((*cell, "iteration", "rank"), "time of one exchange", "s"),
                "wrong": Variable(cell, "elements found wrong, all ranks together"),
                "hottest_rank_bytes": Variable(
                    cell,
                    "bytes the busiest rank sends or receives in one exchange, the greater",
                    "byte",
                    data=table(hottest_rank_bytes),
                ),
                "bound_bytes": Variable(
                    cell,
                    "the least that any all-reduce moves through its busiest rank",
                    "byte",
                    data=table(bound_bytes),
                ),
                **(
                    {"error": Variable(cell, "norm of the error of the sum over that of the sum")}
                    if inexact
                    else {}
                ),
            },
        )
    ]


def _exchange_group(ranks: int, buckets: Sequence[Bucket]) -> Group:
    def per_rank(values: Sequence[Sequence[float] | None]) -> NDArray[np.float64]:
        table = np.full((len(buckets), ranks), np.nan)
        for row, counts in zip(table, values, strict=True):
            if counts is not None:
                row[:] = counts
        return table

    both = ("bucket", "rank")
    number = np.arange(len(buckets))
    sizes = np.array([b.bytes for b in buckets], np.int64)
    names = np.array([b.algorithm for b in buckets], str)
    return Group(
        "exchange",
        {
            "bucket": Variable(("bucket",), "bucket, in the order of exchange", data=number),
            "rank": _rank(ranks),
            "bytes": Variable(("bucket",), "size of the bucket", "byte", data=sizes),
            "algorithm": Variable(("bucket",), "exchange that sums the bucket", data=names),
            "messages_sent": Variable(
                both,
                "messages sent by the rank in one exchange",
                data=per_rank([b.messages_sent for b in buckets]),
            ),
            "messages_received": Variable(
                both,
                "messages received by the rank in one exchange",
                data=per_rank([b.messages_received for b in buckets]),
            ),
            "bytes_sent": Variable(
                both,
                "bytes sent by the rank in one exchange",
                "byte",
                data=per_rank([b.bytes_sent for b in buckets]),
            ),
            "bytes_received": Variable(
                both,
                "bytes received by the rank in one exchange",
                "byte",
                data=per_rank([b.bytes_received for b in buckets]),
            ),
            "hottest_rank_bytes": Variable(
                ("bucket",),
                "bytes the busiest rank sends or receives in one exchange, the greater",
                "byte",
                data=np.array([b.hottest_rank_bytes for b in buckets], np.float64),
            ),
            "bound_bytes": Variable(
                ("bucket",),
                "the least that any all-reduce moves through its busiest rank",
                "byte",
                data=np.array([b.bound_bytes for b in buckets], np.float64),
            ),
        },
    )


def _rank(ranks: int) -> Variable:
    return Variable(("rank",), "MPI rank", data=np.arange(ranks))
