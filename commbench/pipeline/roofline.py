"""The rates of a measured pipeline, and what bounds a run: a roofline.

Data reaches a training step only through its input. Where they have processors of their own, a step
that could train r samples a second trains min(r, input): the input is a roof over the batch sizes.
On CPUs both take the same cores, and a step waits for its input even where that is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.paired import RISK, median_interval
from commbench.record import open_run
from commbench.record.reader import attributes

INPUT = "input"


@dataclass(frozen=True)
class Rate:
    """How fast one stage is.

    Attributes:
        stage: its name.
        batch: of a training step; 0 of an input stage.
        images_per_s: the median over the rounds.
        low, high: of its interval of 95 %; 0 and infinity where there are fewer than six rounds.
        mb_per_s: of 10^6 bytes that the stage takes in, the median.
    """

    stage: str
    batch: int
    images_per_s: float
    low: float
    high: float
    mb_per_s: float


@dataclass(frozen=True)
class Roofline:
    """What was measured.

    Attributes:
        facts: the attributes of the run file.
        inputs: the input's stages; the last is all of them together.
        training: by batch size.
    """

    facts: dict[str, Any]
    inputs: list[Rate]
    training: list[Rate]

    def of(self, stage: str) -> Rate:
        """The rate of a stage of the input.

        Raises:
            KeyError: it has no such stage.
        """
        return {rate.stage: rate for rate in self.inputs}[stage]

    @property
    def input(self) -> Rate:
        """What the loaders deliver."""
        return self.of(INPUT)

    @property
    def slowest(self) -> Rate:
        """The slowest part of the input; the input itself where it has no parts."""
        parts = [rate for rate in self.inputs if rate.stage != INPUT] or self.inputs
        return min(parts, key=lambda rate: rate.images_per_s)

    def bound(self, rate: Rate) -> str:
        """What a run at this rate's batch is bound by: "input" or "training"."""
        return "input" if self.input.images_per_s < rate.images_per_s else "training"

    def told(self) -> list[str]:
        """The verdict on each batch, and what does not apply, in lines."""
        lines = []
        for rate in self.training:
            times = rate.images_per_s / self.input.images_per_s
            if self.bound(rate) == "training":
                lines.append(
                    f"batch {rate.batch}: bound by training; the input is {1 / times:.3g} times as "
                    "fast"
                )
            else:
                part = self.slowest.stage
                which = f", most of all to {part}" if part != INPUT else ""
                lines.append(
                    f"batch {rate.batch}: bound by the input{which}; training is {times:.3g} times "
                    "as fast"
                )
        if self.facts["in_memory"]:
            lines.append(
                f"{self.facts['data']} is in memory: nothing is read or decoded, and the input "
                "only puts batches together; pictures in files are --data PATH"
            )
        if self.facts["shares_cores"]:
            lines.append(
                "input and training share the cores here: a run has less than the lower of the two"
            )
        return lines


def read_roofline(path: Path) -> Roofline:
    """Read the run file of a measurement.

    Raises:
        UserError: it is no run file, or not of this kind.
    """
    with open_run(path) as file:
        if "pipeline" not in file:
            raise UserError(f"{path} is no run file of `commbench pipeline`")
        table = file["pipeline"]
        names = [str(name).split(" ")[0] for name in table["stage"].asstr()[:]]
        rows = zip(
            names,
            table["batch"][:],
            table["seconds"][:],
            table["samples"][:],
            table["bytes"][:],
            strict=True,
        )
        rates = [_rate(*row) for row in rows]
        return Roofline(
            attributes(file),
            [rate for rate in rates if not rate.batch],
            [rate for rate in rates if rate.batch],
        )


def _rate(
    name: str,
    batch: int,
    seconds: NDArray[np.float64],
    samples: NDArray[np.float64],
    nbytes: NDArray[np.float64],
) -> Rate:
    done = np.isfinite(seconds)
    each = samples[done] / seconds[done]
    low, high = median_interval(each, RISK)
    return Rate(
        name,
        int(batch),
        float(np.median(each)),
        max(0.0, float(low)),
        float(high),
        float(np.median(nbytes[done] / seconds[done])) / 1e6,
    )
