"""Other programs' logs of a training run, kept beside the run file: TensorBoard's and MLPerf's.

A journal lives on rank 0, is told what happens as it happens, and imports its library only when it
is asked for. The run file stays the record; a journal has nothing that is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from commbench.errors import UserError


@dataclass(frozen=True)
class Step:
    """A step that all ranks have reported.

    Attributes:
        number: of the step, from 1.
        loss: mean over the global batch.
        lr: learning rate.
        images_per_s: over all ranks, by rank 0's clock.
        seconds: of each phase by name, mean over the workers.
    """

    number: int
    loss: float
    lr: float
    images_per_s: float
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A test on all ranks.

    Attributes:
        step: steps done; `epoch` the passes over the data.
        top1, top5: from 0 to 1; `loss` the mean over the test samples.
        images_per_s: of training, mean since the evaluation before.
        last: whether the run ends with it.
    """

    step: int
    epoch: float
    top1: float
    top5: float
    loss: float
    images_per_s: float
    last: bool


class Journal:
    """What a run tells; a journal overrides what it wants to hear."""

    def begin(self, facts: Mapping[str, object]) -> None:
        """The run starts.

        Args:
            facts: the attributes of its run file, and its `name`.

        Raises:
            UserError: the target cannot be written.
        """

    def step(self, step: Step) -> None:
        """All ranks have reported a step, some time after it."""

    def evaluating(self, step: int, epoch: float) -> None:
        """A test begins."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """A test has ended."""

    def end(self, status: str) -> None:
        """The run has ended; `status` is "completed" or "failed"."""


class Journals(Journal):
    """Several as one, told of the end however it comes."""

    def __init__(self, journals: Sequence[Journal] = ()) -> None:
        self._journals = journals

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._journals)

    def begin(self, facts: Mapping[str, object]) -> None:  # noqa: D102
        for journal in self._journals:
            journal.begin(facts)

    def step(self, step: Step) -> None:  # noqa: D102
        for journal in self._journals:
            journal.step(step)

    def evaluating(self, step: int, epoch: float) -> None:  # noqa: D102
        for journal in self._journals:
            journal.evaluating(step, epoch)

    def evaluated(self, evaluation: Evaluation) -> None:  # noqa: D102
        for journal in self._journals:
            journal.evaluated(evaluation)

    def end(self, status: str) -> None:  # noqa: D102
        with ExitStack() as stack:
            for journal in self._journals:
                stack.callback(journal.end, status)

    def __enter__(self) -> Self:
        """The journals themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell them of the end."""
        self.end("failed" if error else "completed")


def open_journals(tensorboard: Path | None, mllog: Path | None) -> Journals:
    """Those that are asked for.

    Args:
        tensorboard: a folder, in which each run gets its own.
        mllog: a file that does not exist.

    Raises:
        UserError: a library is not installed, or the target cannot be written.
    """
    journals: list[Journal] = []
    if tensorboard:
        from commbench.journals.tensorboard import TensorBoard

        journals.append(TensorBoard(tensorboard))
    if mllog:
        from commbench.journals.mllog import MLPerfLog

        journals.append(MLPerfLog(mllog))
    return Journals(journals)


def missing(option: str, package: str, extra: str) -> UserError:
    """That a journal's library is not installed."""
    return UserError(
        f"{option} needs the package {package}, which is not installed: "
        f"pip install 'commbench[{extra}]'"
    )
