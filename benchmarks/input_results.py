"""The run files of `benchmarks.input`, as Markdown's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.estimate import estimate
from benchmarks.input import OURS
from commbench.record import open_run

HEADER = [
    *("cores", "who", "images/s", "images/s of a processor", "ours / theirs"),
    *("the same of a processor", "furthest apart (deviations)"),
]


def input_rows(path: Path) -> list[list[str]]:
    """One row for each candidate.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        names = [str(name) for name in file["input/candidate"].asstr()[:]]
        wall = dict(zip(names, file["input/seconds"][:], strict=True))
        busy = dict(zip(names, file["input/processor_seconds"][:], strict=True))
        pictures = int(file.attrs["option_pictures"])
        cores, apart = str(file.attrs["option_cores"]), f"{file.attrs['apart']:.3f}"
    rows = []
    for name in names:
        rates = [f"{pictures / np.median(one[name]):.0f}" for one in (wall, busy)]
        ratios = [estimate(one[name] / one[OURS]).text() for one in (wall, busy)]
        last = ["", "", apart] if name == OURS else [*ratios, ""]
        rows.append([cores, name, *rates, *last])
    return rows
