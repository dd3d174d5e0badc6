"""Puts a report's panels on one sheet and writes it as PNG or SVG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commbench.errors import UserError
from commbench.figures import accuracy, phases, ranks, sizes
from commbench.figures.style import SETTINGS, looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from commbench.report import Report

SUFFIXES = (".png", ".svg")
_PANEL_INCHES = (6.6, 5.0)


def check_target(path: Path, option: str = "--output", suffixes: Sequence[str] = SUFFIXES) -> None:
    """Say early that a figure cannot be written as `path`, which `option` gave.

    Raises:
        UserError: another suffix, no such folder, or a folder's name.
    """
    if path.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise UserError(f"{option} {path}: a figure's name ends in {', '.join(others)} or {last}")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: name a file")


def panels(report: Report, size: int | None) -> dict[str, Callable[[Any], None]]:
    """The panels for which there are numbers, by name, in reading order."""
    look = looks(report.exchanges())
    drawn: dict[str, Callable[[Any], None]] = {}
    accurate = [run for run in report.trainings if len(run.evaluations["top1"])]
    if accurate:
        drawn["accuracy"] = lambda axes: accuracy.draw(axes, accurate, look)
    stepped = [run for run in report.trainings if run.phase_s]
    if stepped:
        drawn["phases"] = lambda axes: phases.draw(axes, stepped)
    timings = report.most_ranks()
    if timings:
        drawn["sizes"] = lambda axes: sizes.draw(axes, timings, look)
    ranked = report.over_ranks(size)
    if len({timing.ranks for timing in ranked if timing.ranks > 1}) > 1:
        drawn["ranks"] = lambda axes: ranks.draw(axes, ranked, look)
    return drawn


def default_title(report: Report) -> str:
    """Model, data and exchanges as far as the runs agree on them."""
    tasks = {(run.task.get("model"), run.task.get("data")) for run in report.trainings}
    names = [name for name in report.exchanges() if name != "none"]
    trained = list(dict.fromkeys(run.exchange for run in report.trainings))
    subject = ", ".join(trained or names)
    if len(tasks) == 1:
        model, data = tasks.pop()
        return f"{model} on {data}: {subject}"
    return f"Exchanges: {subject}" if subject else "Exchanges"


def compose(report: Report, title: str | None, size: int | None) -> Figure:
    """Draw all panels; needs no display and leaves matplotlib's global state alone."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)
    drawn = list(panels(report, size).values())
    columns = min(2, max(1, len(drawn)))
    rows = -(-len(drawn) // columns)
    width, height = _PANEL_INCHES
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(columns * width, rows * height + 0.6), layout=layout)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(rows, columns)
        for number, draw in enumerate(drawn):
            # An odd panel out has the whole last row.
            alone = len(drawn) % columns and number == len(drawn) - 1
            place = (number // columns, slice(None) if alone else number % columns)
            draw(figure.add_subplot(grid[place]))
        figure.suptitle(
            title or default_title(report), x=0.012, ha="left", fontsize=14, weight="bold"
        )
        lines = [
            line for note in report.notes for line in textwrap.wrap(note, int(columns * width * 15))
        ]
        if lines:
            figure.supxlabel("\n".join(lines), x=0.012, ha="left", fontsize=8.5, color="#555555")
    return figure


def write(report: Report, path: Path, title: str | None, size: int | None) -> None:
    """Draw the report into the file at `path`, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    _save(lambda: compose(report, title, size), path)


def write_row(draws: Sequence[Callable[[Any], None]], path: Path) -> None:
    """Draw panels side by side into the file at `path`, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    width, height = _PANEL_INCHES
    _write_panels(draws, path, (width * len(draws), height), shape=(1, len(draws)))


def write_column(draws: Sequence[Callable[[Any], None]], path: Path) -> None:
    """Draw flat panels over one horizontal axis, the first on top, as `write_panel` does.

    Raises:
        UserError: the file cannot be written.
    """
    width, height = _PANEL_INCHES
    _write_panels(draws, path, (width, height * len(draws) / 2), shape=(len(draws), 1))


def _write_panels(
    draws: Sequence[Callable[[Any], None]],
    path: Path,
    inches: tuple[float, float],
    *,
    shape: tuple[int, int],
) -> None:
    def compose_panels() -> Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(*shape, sharex=shape[1] == 1, squeeze=False)
        for draw, panel in zip(draws, axes.flat, strict=True):
            draw(panel)
        return figure

    _save(compose_panels, path)


def _save(compose: Callable[[], Figure], path: Path) -> None:
    import matplotlib as mpl

    kind = path.suffix.lower().removeprefix(".")
    # Without the date the same numbers give the same file.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    image = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        compose().savefig(image, format=kind, dpi=150, metadata=metadata)
    try:
        path.write_bytes(image.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
