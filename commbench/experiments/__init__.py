"""Experiments: one training in several variants, each with several seeds, and what came out.

An `Experiment` says what to train, `running` trains what is missing, `collected` keeps the results
of all runs in one small file. A reproduction draws and judges `Results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: its name in files and tables, such as "legw-1024".
        options: of `commbench train`, without the dashes; True stands for a flag.
    """

    name: str
    options: Mapping[str, object]

    def arguments(self) -> list[str]:
        """As written on a command line."""
        words = []
        for name, value in self.options.items():
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
        return words


@dataclass(frozen=True)
class Experiment:
    """What to train.

    Attributes:
        name: of the reproduction.
        variants: every one with every seed.
        seeds: of the initial weights, the order of samples and dropout.
        ranks: of each run; as many runs go side by side as there are cores for.
        chance: top-1 of guessing, which a run that diverged scores.
    """

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    ranks: int = 1
    chance: float = 0.1


@dataclass(frozen=True, eq=False)
class Run:
    """What one training came to.

    Attributes:
        variant: by name.
        seed: of the run.
        command: its command line.
        diverged: whether it ended early because the loss was no longer a number.
        chance: top-1 of guessing.
        epochs: done at each evaluation, ``(evaluations,)``.
        top1: at each, from 0 to 1.
        test_loss: at each.
        train_loss: mean over the steps since the evaluation before.
        train_s: seconds of training, evaluations apart.
        images_per_s: median over steps.
        facts: other numbers of the run file, such as "staleness_updates_mean".
    """

    variant: str
    seed: int
    command: str
    diverged: bool
    chance: float
    epochs: NDArray[np.float64]
    top1: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    train_s: float
    images_per_s: float
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Top-1 at the end in percent; that of guessing for a run that diverged."""
        return 100 * (self.chance if self.diverged else float(self.top1[-1]))


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of an experiment.

    Attributes:
        name: of the reproduction.
        quick: whether it was the shortened one.
        runs: variants in their order, the seeds of each together.
    """

    name: str
    quick: bool
    runs: tuple[Run, ...]

    @property
    def variants(self) -> list[str]:
        """The variants' names, in order."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def of(self, variant: str) -> list[Run]:
        """The runs of a variant, by seed.

        Raises:
            KeyError: there are none.
        """
        found = [run for run in self.runs if run.variant == variant]
        if not found:
            raise KeyError(variant)
        return found

    def scores(self, variant: str) -> NDArray[np.float64]:
        """Top-1 at the end of each run of a variant in percent, ``(seeds,)``."""
        return np.array([run.score for run in self.of(variant)])

    def clock_minutes(self) -> float:
        """Time of all trainings, each on its cores, in minutes; evaluations apart."""
        return sum(run.train_s for run in self.runs) / 60


@dataclass(frozen=True)
class Finding:
    """An effect of a paper, and whether it shows here.

    Attributes:
        claim: of the paper, in words.
        measured: what it was judged by.
        shows: whether it does.
        expected: whether it should at this scale; one that should not is told and not judged.
        why: it should not, or what else there is to know.
    """

    claim: str
    measured: str
    shows: bool
    expected: bool = True
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is as expected, or nothing was."""
        return self.shows or not self.expected


def spread(values: Sequence[float] | NDArray[np.float64]) -> str:
    """``71.9 (71.2 to 73.0)``: mean and range over the seeds."""
    numbers = np.asarray(values, np.float64)
    return f"{numbers.mean():.1f} ({numbers.min():.1f} to {numbers.max():.1f})"


def against(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    """``71.9 (71.2 to 73.0) against 60.6 (59.9 to 61.0) %``: two variants' scores."""
    return f"{spread(first)} against {spread(second)} %"


def beats(better: NDArray[np.float64], worse: NDArray[np.float64], margin: float) -> bool:
    """Whether one variant's score is surely higher: with every seed, and by `margin` in the mean.

    Three seeds of each are in that order by chance once in twenty times.
    """
    return bool(better.min() > worse.max() and better.mean() - worse.mean() >= margin)


def holds(score: NDArray[np.float64], reference: NDArray[np.float64], margin: float) -> bool:
    """Whether a variant's mean score is no more than `margin` below the reference's."""
    return bool(score.mean() >= reference.mean() - margin)
