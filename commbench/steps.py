"""The steps of a training run as samples: how long each took, and each of its phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Steps:
    """What was measured of every step recorded, in order; the first is left out.

    The first step pays for memory, and for peers that are still starting. Of one step alone there
    is nothing else to tell, so that one stays.

    Attributes:
        number: of the step, from 1, ``(steps,)``.
        step_s: by rank 0's clock, in seconds.
        images_per_s: of all ranks together.
        phase_s: of each phase the mean over the ranks with data, in seconds.
    """

    number: NDArray[np.int64]
    step_s: NDArray[np.float64]
    images_per_s: NDArray[np.float64]
    phase_s: dict[str, NDArray[np.float64]]


def workers(seconds: NDArray[np.float64], phases: list[str]) -> NDArray[np.bool_]:
    """Which ranks have data, ``(ranks,)``, by the times of ``(steps, ranks, phases)``.

    A dedicated server has none: its forward pass takes no time, and its step is all waiting.
    """
    forward = seconds[:, :, phases.index("forward") if "forward" in phases else 0]
    found: NDArray[np.bool_] = np.nansum(forward, axis=0) > 0
    return found if found.any() else np.ones_like(found)


def read_steps(file: Any) -> Steps:
    """Read them from an open run file of a training."""
    table, timing = file["steps"], file["timing"]
    phases = timing["phase"].asstr()[:].tolist()
    seconds = timing["seconds"][:].astype(np.float64)
    own = seconds[:, workers(seconds, phases)]
    rate = table["images_per_s"][:]
    # Files of before there was a batch for every step have the same one throughout.
    batch = table["batch"][:] if "batch" in table else float(file.attrs["global_batch"])
    with np.errstate(divide="ignore", invalid="ignore"):
        step_s = batch / rate
    done = np.flatnonzero(np.isfinite(step_s) & np.isfinite(own).all(axis=(1, 2)))
    done = done[1:] if len(done) > 1 else done
    means = own[done].mean(axis=1)
    return Steps(
        number=table["step"][:][done].astype(np.int64),
        step_s=step_s[done],
        images_per_s=rate[done],
        phase_s={name: means[:, column] for column, name in enumerate(phases)},
    )
