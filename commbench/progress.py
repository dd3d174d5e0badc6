"""Shows how a training run goes: a bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from commbench.launcher import writes_to_terminal

_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.2


@dataclass(frozen=True)
class Glance:
    """What is known at some step.

    Attributes:
        step: steps done; `epoch` the passes over the data.
        loss: of the last step that all ranks reported, mean over the global batch; NaN before.
        top1: at the last evaluation; NaN before the first.
        images_per_s: over all ranks, lately.
        exchange_share: of rank 0's step time.
    """

    step: int
    epoch: float
    loss: float
    top1: float
    images_per_s: float
    exchange_share: float

    def text(self) -> str:
        """One line without the step."""
        top1 = "-" if math.isnan(self.top1) else f"{self.top1:.1%}"
        loss = "-" if math.isnan(self.loss) else f"{self.loss:.4f}"
        return (
            f"epoch {self.epoch:.2f}  loss {loss}  top-1 {top1}  "
            f"{self.images_per_s:.0f} images/s  exchange {self.exchange_share:.0%}"
        )


class Display:
    """Rank 0's display; on the other ranks, or with style "none", it shows nothing."""

    def __init__(self, total_steps: int, style: str) -> None:
        """Prepare it.

        Args:
            total_steps: length of the run.
            style: "bar", "lines", "none", or "auto": a bar if standard output is a terminal.
        """
        if style == "auto":
            style = "bar" if writes_to_terminal() else "lines"
        # Launchers connect ranks by pipes even where their own output is a terminal.
        self._console = Console(force_terminal=style == "bar")
        self._style = style
        self._total = total_steps
        self._started = self._shown = time.monotonic()
        self._bar: Progress | None = None
        if style == "bar":
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total_steps)

    def update(self, glance: Glance) -> None:
        """Show a step, if the last one shown is old enough."""
        now = time.monotonic()
        every = _BAR_EVERY_S if self._bar else _LINE_EVERY_S
        if self._style == "none" or (now - self._shown < every and glance.step < self._total):
            return
        self._shown = now
        left = (now - self._started) / glance.step * (self._total - glance.step)
        text = f"{glance.text()}  ETA {int(left) // 60}:{int(left) % 60:02d}"
        if self._bar:
            self._bar.update(self._task, completed=glance.step, description=text)
        else:
            print(f"step {glance.step}/{self._total}  {text}", flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._style == "bar":
            self._console.print(text, markup=False, highlight=False)
        elif self._style == "lines":
            print(text, flush=True)

    def __enter__(self) -> Self:
        """Start the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the bar."""
        if self._bar:
            self._bar.stop()
