"""The benchmark's run files, read back: times, ratios within a run, and targets met or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimate import Estimate, estimate
from commbench.record import open_run
from commbench.record.reader import attributes
from commbench.units import Bytes

KB, MB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Result:
    """One job: a number of ranks under one MPI library.

    Attributes:
        facts: the root attributes of the file.
        sizes: of the buffers, in bytes.
        names: the candidates.
        algorithms: ``[size][candidate]``, what each comes down to.
        best: for each size which exchange of ours was the fastest in a run before.
        slowest: ``(sizes, candidates, rounds)``, the slowest rank's seconds; NaN where not run.
        copies: bytes a second copied by all ranks together, ``(sizes,)``: of buffers of the size,
            and of 64 MiB.
    """

    facts: dict[str, Any]
    sizes: list[int]
    names: list[str]
    algorithms: list[list[str]]
    best: list[str]
    slowest: NDArray[np.float64]
    copies: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def library(self) -> str:
        """The MPI library's name and version."""
        return str(self.facts["mpi_library"])

    @property
    def ranks(self) -> int:
        """Their number."""
        return int(self.facts["ranks"])

    def seconds(self, size: int, name: str) -> NDArray[np.float64]:
        """A candidate's seconds at a size, round by round; `best` is the best of ours."""
        if name == "best":
            name = f"{self.best[self.sizes.index(size)]}/shared-memory"
        samples: NDArray[np.float64] = self.slowest[self.sizes.index(size), self.names.index(name)]
        return samples

    def ratio(self, size: int, slower: str, faster: str) -> Estimate:
        """How many times as long one takes as the other, round by round."""
        return estimate(self.seconds(size, slower) / self.seconds(size, faster))

    def difference_us(self, size: int, slower: str, faster: str) -> Estimate:
        """How many microseconds longer one takes than the other, round by round."""
        return estimate(1e6 * (self.seconds(size, slower) - self.seconds(size, faster)))

    def algorithm(self, size: int, name: str) -> str:
        """What a candidate comes down to at a size."""
        if name == "best":
            return self.best[self.sizes.index(size)]
        return self.algorithms[self.sizes.index(size)][self.names.index(name)]

    def of_copying(self, size: int, name: str, *, large: bool) -> float:
        """The share of the rate of copies that an exchange reaches.

        An all-reduce of n bytes on p ranks reads p n bytes and writes p n bytes at the least: as
        much as p copies of n bytes. The time of those at the measured rate, over the exchange's.
        """
        rate = self.copies[large][self.sizes.index(size)]
        return float(self.ranks * size / rate / np.nanmedian(self.seconds(size, name)))


@dataclass(frozen=True)
class Verdict:
    """Whether one job meets one target, where it is furthest from it.

    Attributes:
        target: in words.
        result: the job.
        size: of the buffer.
        measured: the ratio, or the time in microseconds, and its interval.
        bound: what it has to reach, or not to pass.
        at_least: which of the two.
    """

    target: str
    result: Result
    size: int
    measured: Estimate
    bound: float
    at_least: bool

    @property
    def word(self) -> str:
        """``met`` or ``not met`` by the whole interval; else the median's side, and ``unclear``."""
        low, middle, high = (
            (self.measured.low, self.measured.median, self.measured.high)
            if self.at_least
            else (-self.measured.high, -self.measured.median, -self.measured.low)
        )
        bound = self.bound if self.at_least else -self.bound
        if low >= bound:
            return "met"
        if high < bound:
            return "**not met**"
        return "met, unclear" if middle >= bound else "**not met**, unclear"


def read(path: Path) -> Result:
    """Read the file of a job.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        table = file["sweep"]
        return Result(
            facts=attributes(file),
            sizes=[int(size) for size in table["size_bytes"][:]],
            names=list(table["exchange"].asstr()[:]),
            algorithms=[list(row) for row in table["algorithm"].asstr()[:]],
            best=list(table["best"].asstr()[:]),
            slowest=table["seconds"][:].max(axis=3),
            copies=(
                np.median(file["copy/rate"][:], axis=1),
                np.median(file["copy/rate_large"][:], axis=1),
            ),
        )


def verdicts(result: Result) -> Iterator[Verdict]:
    """Every target, at the size where the job is furthest from it."""

    def worst(
        target: str,
        sizes: Callable[[int], bool],
        measure: Callable[[int], Estimate],
        bound: float,
        at_least: bool = True,
    ) -> Iterator[Verdict]:
        chosen = [size for size in result.sizes if sizes(size)]
        found = [Verdict(target, result, s, measure(s), bound, at_least) for s in chosen]
        sign = 1 if at_least else -1
        yield from sorted(found, key=lambda verdict: sign * verdict.measured.median)[:1]

    def over(slower: str, faster: str) -> Callable[[int], Estimate]:
        return lambda size: result.ratio(size, slower, faster)

    several = 2.0 if result.ranks == 2 else 3.0
    yield from worst(
        f"best {several:g}x as fast as Allreduce from 4M",
        lambda size: size >= 4 * MB,
        over("Allreduce", "best"),
        several,
    )
    yield from worst(
        "best 1.5x as fast as Allreduce from 256K up to 4M",
        lambda size: 256 * KB <= size < 4 * MB,
        over("Allreduce", "best"),
        1.5,
    )
    yield from worst(
        "best 4x as fast as Gloo from 4M", lambda size: size >= 4 * MB, over("Gloo", "best"), 4.0
    )
    for name in ("ring", "tree"):
        yield from worst(
            f"{name} over mpi at most 10 % slower than by hand",
            lambda size: True,
            over(f"{name}/mpi", f"{name}/mpi4py"),
            1.1,
            at_least=False,
        )
        yield from worst(
            f"{name} over shared memory 1.5x as fast as by hand",
            lambda size: True,
            over(f"{name}/mpi4py", f"{name}/shared-memory"),
            1.5,
        )
    yield from worst(
        "auto at most 10 us slower than Allreduce below 64K",
        lambda size: size < 64 * KB,
        lambda size: result.difference_us(size, "auto", "Allreduce"),
        10.0,
        at_least=False,
    )


def bytes_text(size: int) -> str:
    """``256K``."""
    return str(Bytes(size))
