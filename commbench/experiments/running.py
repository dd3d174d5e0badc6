"""Trains what an experiment still lacks, several runs side by side."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType

import numpy as np

from commbench.errors import UserError
from commbench.experiments import Experiment, Results, Run, Variant
from commbench.launcher import is_launched
from commbench.record.paths import make_folder
from commbench.record.reader import attributes, open_run, summary

_FACTS = ("staleness_updates_mean", "staleness_updates_largest", "skipped_steps", "base_lr")


@dataclass(frozen=True)
class _Task:
    """One run: its file, and the command that makes it."""

    variant: Variant
    seed: int
    path: Path
    command: list[str]


def complete(
    experiment: Experiment, folder: Path, *, quick: bool, say: Callable[[str], None]
) -> Results:
    """Train what has no finished file in the folder yet, then read all files.

    A run that was interrupted is begun again; one that diverged is finished. The first seed of
    every variant comes first.

    Args:
        experiment: what to train.
        folder: of the run files; made where it is missing.
        quick: told in the results.
        say: is handed a line for each run.

    Raises:
        UserError: called under mpirun, a file that was made with other options, or a run that
            failed.
    """
    if is_launched():
        raise UserError(
            f"reproduce {experiment.name} starts its own trainings: run it without mpirun"
        )
    make_folder(folder)
    tasks = [
        _task(experiment, variant, seed, folder)
        for seed in experiment.seeds
        for variant in experiment.variants
    ]
    missing = [task for task in tasks if not _is_finished(task)]
    side_by_side = max(1, len(os.sched_getaffinity(0)) // experiment.ranks)
    if missing:
        _train(missing, experiment.chance, side_by_side, say)
    order = {variant.name: place for place, variant in enumerate(experiment.variants)}
    runs = sorted(
        (read(task.path, task.variant.name, task.seed, experiment.chance) for task in tasks),
        key=lambda run: (order[run.variant], run.seed),
    )
    return Results(experiment.name, quick, tuple(runs))


def _task(experiment: Experiment, variant: Variant, seed: int, folder: Path) -> _Task:
    path = folder / f"{variant.name}-seed{seed}.h5"
    command = [sys.executable, "-m", "commbench", "train", *variant.arguments()]
    command += ["--seed", str(seed), "--threads", "1", "--progress", "none", "--output", str(path)]
    if experiment.ranks > 1:
        mpirun = shutil.which("mpirun", path=os.fspath(Path(sys.executable).parent))
        mpirun = mpirun or shutil.which("mpirun")
        if mpirun is None:
            raise UserError("there is no mpirun: install commbench with the extra mpich or openmpi")
        command = [mpirun, "-n", str(experiment.ranks), *command]
    return _Task(variant, seed, path, command)


def _is_finished(task: _Task) -> bool:
    """Whether the task's file is there; what an interrupted run left is removed.

    Raises:
        UserError: it was made with other options.
    """
    if not task.path.exists():
        return False
    with open_run(task.path) as file:
        root = attributes(file)
    if root["status"] != "completed" and not _diverged(root):
        task.path.unlink()
        return False
    # The words after the program's own name, which depends on how it was started.
    made, wanted = (
        words[words.index("train") :] for words in (shlex.split(root["command_line"]), task.command)
    )
    if made != wanted:
        different = [word for word in made if word not in wanted]
        raise UserError(
            f"{task.path} was made with other options ({' '.join(different) or 'fewer'}): move it "
            "away, or give another --folder"
        )
    return True


def _diverged(root: dict[str, object]) -> bool:
    return root["status"] == "failed" and "diverged" in str(root.get("error", ""))


def _train(
    tasks: list[_Task], chance: float, side_by_side: int, say: Callable[[str], None]
) -> None:
    """Run them; the first that fails, or an interrupt, ends the others."""
    start = monotonic()
    running: set[subprocess.Popen[str]] = set()
    lock = threading.Lock()
    done = 0
    stopping = False

    def work(task: _Task) -> None:
        nonlocal done
        with lock:
            if stopping:
                return
            process = subprocess.Popen(
                task.command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                # One thread a rank; Open MPI's mpirun, as root and beyond the cores, wants telling.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            running.add(process)
        _, errors = process.communicate()
        with lock:
            running.discard(process)
            if stopping:
                return
            done += 1
        if process.returncode and not (task.path.exists() and _is_finished(task)):
            # Open MPI puts its errors between rules.
            told = [line for line in errors.splitlines() if line.strip(" -")]
            last = told[-1] if told else f"exit status {process.returncode}"
            raise UserError(f"{shlex.join(task.command)} failed: {last}")
        run = read(task.path, task.variant.name, task.seed, chance)
        left = (monotonic() - start) / done * (len(tasks) - done) / 60
        what = "diverged" if run.diverged else f"top-1 {run.score:.1f} %"
        say(
            f"[{done}/{len(tasks)}] {run.variant}, seed {run.seed}: {what} after {run.train_s:.0f} "
            f"s of training; {left:.0f} min left"
        )

    with _ended_by_sigterm(), ThreadPoolExecutor(side_by_side) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in futures:
                future.result()
        finally:
            with lock:
                stopping = True
                for process in running:
                    process.terminate()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM leave the block as an exception does; else what was started would go on."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read(path: Path, variant: str, seed: int, chance: float) -> Run:
    """What a run file holds of a training.

    Raises:
        UserError: as `open_run`.
    """
    told = summary(path)
    with open_run(path) as file:
        root = attributes(file)
        table = {name: file["eval"][name][:] for name in ("step", "epoch", "top1", "loss")}
        loss = file["steps/loss"][:]
        rates = file["steps/images_per_s"][:]
        steps_s = file["steps/batch"][:] / rates
    done = np.isfinite(table["top1"])
    ends = [int(step) for step in table["step"][done]]
    begins = [0, *ends][: len(ends)]
    means = [loss[first:last].mean() for first, last in zip(begins, ends, strict=True)]
    rates = rates[np.isfinite(rates)]
    return Run(
        variant=variant,
        seed=seed,
        command=str(root["command_line"]),
        diverged=_diverged(root),
        chance=chance,
        epochs=table["epoch"][done],
        top1=table["top1"][done],
        test_loss=table["loss"][done],
        train_loss=np.array(means),
        # A run that diverged was not there at the end to tell.
        train_s=float(root.get("train_s", np.nansum(steps_s))),
        images_per_s=float(np.median(rates)) if len(rates) else np.nan,
        facts={name: float(told[name]) for name in _FACTS if name in told},
    )
