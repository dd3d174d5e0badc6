"""Scalars for TensorBoard: ``tensorboard --logdir FOLDER`` draws the runs below it together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commbench.errors import UserError
from commbench.journals import Evaluation, Journal, Step, missing


class TensorBoard(Journal):
    """Writes one folder of events a run, named as its run file."""

    def __init__(self, folder: Path) -> None:
        """Check that it can be written; `begin` makes the run's own folder.

        Raises:
            UserError: no such library, or no such folder.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("--tensorboard", "tensorboard", "tensorboard") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--tensorboard {folder}: {error.strerror}") from error
        self._folder = folder
        self._writer: Any = None
        self._open = SummaryWriter

    def begin(self, facts: Mapping[str, object]) -> None:
        """Open the events, and tell what the run is as text."""
        self._writer = self._open(str(self._folder / str(facts["name"])))
        rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
        self._writer.add_text("run", f"| option or fact | value |\n|---|---|\n{rows}")

    def step(self, step: Step) -> None:
        """Loss, learning rate, speed, and where the time of the step went."""
        add = self._writer.add_scalar
        add("train/loss", step.loss, step.number)
        add("train/learning_rate", step.lr, step.number)
        add("train/images_per_s", step.images_per_s, step.number)
        for phase, seconds in step.seconds.items():
            add(f"milliseconds/{phase}", 1e3 * seconds, step.number)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Accuracy and loss of the test."""
        add = self._writer.add_scalar
        add("test/top1", evaluation.top1, evaluation.step)
        add("test/top5", evaluation.top5, evaluation.step)
        add("test/loss", evaluation.loss, evaluation.step)
        self._writer.flush()

    def end(self, status: str) -> None:
        """Close the events."""
        if self._writer is not None:
            self._writer.close()
