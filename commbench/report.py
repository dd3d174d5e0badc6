"""Puts run files side by side: what `commbench report` draws and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.record import open_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

# What must be the same for two trainings to be a comparison of their exchanges.
_CONDITIONS = ("model", "parameters", "data", "global_batch", "base_lr", "seed")


@dataclass(frozen=True)
class Spread:
    """Samples in seconds, summed up."""

    lowest: float
    median: float
    p99: float

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Spread:
        """Of finite samples; NaN where there are none."""
        if not len(samples):
            return cls(np.nan, np.nan, np.nan)
        return cls(
            float(samples.min()), float(np.median(samples)), float(np.percentile(samples, 99))
        )


@dataclass(frozen=True)
class Sweep:
    """One sweep: for each (size in bytes, exchange) the time of the slowest rank."""

    path: Path
    ranks: int
    sizes: list[int]
    exchanges: list[str]
    times: dict[tuple[int, str], Spread]


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        label: exchange and ranks.
        time_s, top1: at each evaluation that was made.
        phase_s: median over steps and workers of each phase.
        conditions: the attributes that a comparison holds fixed.
    """

    path: Path
    label: str
    exchange: str
    ranks: int
    time_s: list[float]
    top1: list[float]
    phase_s: dict[str, float]
    conditions: dict[str, Any]


def load(paths: Sequence[Path]) -> tuple[list[Sweep], list[Training]]:
    """Read run files.

    Raises:
        UserError: a file is no run file, or of a kind that has no figure.
    """
    sweeps, trainings = [], []
    for path in paths:
        with open_run(path) as file:
            kind = file.attrs["kind"]
            if kind == "sweep":
                sweeps.append(_sweep(path, file))
            elif kind == "train":
                trainings.append(_training(path, file))
            else:
                raise UserError(f"{path}: no figure for a run of kind {kind!r}: train or sweep")
    return sorted(sweeps, key=lambda sweep: sweep.ranks), trainings


def _sweep(path: Path, file: Any) -> Sweep:
    table = file["sweep"]
    sizes = [int(size) for size in table["size_bytes"][:]]
    exchanges = table["exchange"].asstr()[:].tolist()
    slowest = table["seconds"][:].max(axis=3)
    times = {
        (size, exchange): Spread.of(slowest[i, j][np.isfinite(slowest[i, j])])
        for i, size in enumerate(sizes)
        for j, exchange in enumerate(exchanges)
    }
    return Sweep(path, int(file.attrs["ranks"]), sizes, exchanges, times)


def _training(path: Path, file: Any) -> Training:
    attributes = file.attrs
    top1 = file["eval/top1"][:]
    made = np.isfinite(top1)
    phases = file["timing/phase"].asstr()[:].tolist()
    seconds = file["timing/seconds"][:]
    # A dedicated server computes nothing; its zeros would pull the medians down.
    busy = seconds[:, np.nan_to_num(seconds[:, :, phases.index("forward")]).sum(axis=0) > 0]
    medians = [np.nan] * len(phases)
    if np.isfinite(busy).any():
        medians = [float(np.nanmedian(busy[:, :, index])) for index in range(len(phases))]
    exchange, ranks = str(attributes["exchange"]), int(attributes["ranks"])
    return Training(
        path=path,
        label=f"{exchange}, {ranks} ranks",
        exchange=exchange,
        ranks=ranks,
        time_s=file["eval/time_s"][:][made].tolist(),
        top1=top1[made].tolist(),
        phase_s=dict(zip(phases, medians, strict=True)),
        conditions={name: _plain(attributes.get(name)) for name in _CONDITIONS},
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def nearest_size(sweeps: Sequence[Sweep], wanted: int | None) -> int:
    """The size that all sweeps share nearest to `wanted`; the largest if that is None.

    Raises:
        UserError: the sweeps have no size in common.
    """
    common = set(sweeps[0].sizes).intersection(*(sweep.sizes for sweep in sweeps))
    if not common:
        raise UserError("the sweeps have no buffer size in common: run them with the same sizes")
    return max(common) if wanted is None else min(common, key=lambda size: abs(size - wanted))


def remarks(trainings: Sequence[Training]) -> list[str]:
    """What makes trainings incomparable: conditions that differ between them."""
    told = []
    for name in _CONDITIONS:
        values = sorted({str(training.conditions[name]) for training in trainings})
        if len(values) > 1:
            told.append(f"runs differ in {name}: {', '.join(values)}")
    return told


def numbers(sweeps: Sequence[Sweep], trainings: Sequence[Training]) -> dict[str, Any]:
    """Everything the figure shows, for tables and JSON."""
    return {
        "sweeps": [
            {
                "file": str(sweep.path),
                "ranks": sweep.ranks,
                "size_bytes": size,
                "exchange": exchange,
                "min_s": spread.lowest,
                "median_s": spread.median,
                "p99_s": spread.p99,
            }
            for sweep in sweeps
            for (size, exchange), spread in sweep.times.items()
        ],
        "trainings": [
            {
                "file": str(training.path),
                "exchange": training.exchange,
                "ranks": training.ranks,
                "time_s": training.time_s,
                "top1": training.top1,
                "phase_s": training.phase_s,
                **training.conditions,
            }
            for training in trainings
        ],
        "remarks": remarks(trainings),
    }


def draw(
    sweeps: Sequence[Sweep],
    trainings: Sequence[Training],
    output: Path,
    *,
    title: str | None = None,
    size: int | None = None,
) -> None:
    """Draw what the files hold into one PNG, SVG or PDF.

    Raises:
        UserError: the file cannot be written, or its suffix is no picture's.
    """
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"cannot draw {output}: its name must end in .png, .svg or .pdf")
    if not output.parent.is_dir():
        raise UserError(f"cannot draw {output}: there is no folder {output.parent}")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    from commbench.figures import accuracy, phases, ranks, sizes

    panels: list[Callable[[Axes], None]] = []
    if sweeps:
        chosen = nearest_size(sweeps, size)
        largest = sweeps[-1]
        panels.append(lambda axes: sizes.draw(axes, largest))
        if len({sweep.ranks for sweep in sweeps}) > 1:
            panels.append(lambda axes: ranks.draw(axes, sweeps, chosen))
    if trainings:
        panels.append(lambda axes: accuracy.draw(axes, trainings))
        panels.append(lambda axes: phases.draw(axes, trainings))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4.6 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        panel(axes)
    if title:
        figure.suptitle(title)
    notes = remarks(trainings)
    if notes:
        figure.supxlabel("Beware: " + "; ".join(notes), fontsize="small")
    figure.savefig(output, dpi=150)
    pyplot.close(figure)
