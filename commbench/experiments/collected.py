"""The results of all runs of an experiment in one small file, from which its figure is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commbench.errors import UserError
from commbench.experiments import Results, Run
from commbench.record import RunFile
from commbench.record.layout import Group, Variable
from commbench.record.reader import attributes, open_run

_KIND = "experiment"
_CURVES = {
    "epochs": "epochs done",
    "top1": "top-1 accuracy on the test set",
    "test_loss": "mean loss on the test set",
    "train_loss": "mean loss of the training steps since the evaluation before",
}
_NUMBERS = {
    "chance": ("top-1 accuracy of guessing", "1"),
    "train_s": ("time of training, evaluations apart", "s"),
    "images_per_s": ("median training rate", "s-1"),
}


def write(results: Results, path: Path) -> None:
    """Put the results into a file, in place of an earlier one of the same experiment.

    Raises:
        UserError: the file there is none of this experiment, or cannot be written.
    """
    if path.exists():
        read(path, results.name)
        path.unlink()
    runs = results.runs
    file = RunFile.create(
        path,
        kind=_KIND,
        options={"quick": results.quick},
        seed=runs[0].seed,
        hosts=[],
        devices=[],
        groups=[_runs(runs), _curves(runs), _facts(runs)],
        attributes={"experiment": results.name},
    )
    file.finish()


def read(path: Path, name: str) -> Results:
    """Read what `write` wrote.

    Raises:
        UserError: the file is unreadable, or of something else than the experiment `name`.
    """
    with open_run(path) as file:
        root = attributes(file)
        if root.get("kind") != _KIND or root.get("experiment") != name:
            what = root.get("experiment", root.get("kind"))
            raise UserError(f"{path} holds a run of {what}: give one of reproduce {name}")
        curves = {key: file["curves"][key][:] for key in _CURVES}
        numbers = {key: file["runs"][key][:] for key in _NUMBERS}
        texts = {key: file["runs"][key].asstr()[:] for key in ("variant", "command")}
        seeds, diverged = file["runs/seed"][:], file["runs/diverged"][:]
        names, table = file["facts/fact"].asstr()[:], file["facts/value"][:]
    runs = []
    for row, seed in enumerate(seeds):
        done = np.isfinite(curves["epochs"][row])
        runs.append(
            Run(
                variant=str(texts["variant"][row]),
                seed=int(seed),
                command=str(texts["command"][row]),
                diverged=bool(diverged[row]),
                chance=float(numbers["chance"][row]),
                **{key: values[row][done] for key, values in curves.items()},
                train_s=float(numbers["train_s"][row]),
                images_per_s=float(numbers["images_per_s"][row]),
                facts={
                    str(fact): float(value)
                    for fact, value in zip(names, table[row], strict=True)
                    if np.isfinite(value)
                },
            )
        )
    return Results(name, bool(root["options"]["quick"]), tuple(runs))


def _runs(runs: tuple[Run, ...]) -> Group:
    def column(long_name: str, values: list[Any], units: str = "1") -> Variable:
        return Variable(("run",), long_name, units, np.array(values))

    columns = {
        "run": column("run", list(range(len(runs)))),
        "variant": column("variant of the training", [run.variant for run in runs]),
        "seed": column("seed", [run.seed for run in runs]),
        "command": column("command line", [run.command for run in runs]),
        "diverged": column("1 if the loss ended as no number", [int(r.diverged) for r in runs]),
    }
    for name, (long_name, units) in _NUMBERS.items():
        columns[name] = column(long_name, [getattr(run, name) for run in runs], units)
    return Group("runs", columns)


def _curves(runs: tuple[Run, ...]) -> Group:
    longest = max(len(run.epochs) for run in runs)
    # A run that diverged has no evaluations from there on.
    group = {
        "run": Variable(("run",), "run", data=np.arange(len(runs))),
        "evaluation": Variable(("evaluation",), "evaluation", data=np.arange(longest)),
    }
    for name, long_name in _CURVES.items():
        rows: NDArray[np.float64] = np.full((len(runs), longest), np.nan)
        for row, run in zip(rows, runs, strict=True):
            values = getattr(run, name)
            row[: len(values)] = values
        group[name] = Variable(("run", "evaluation"), long_name, data=rows)
    return Group("curves", group)


def _facts(runs: tuple[Run, ...]) -> Group:
    names = sorted({name for run in runs for name in run.facts})
    values = [[run.facts.get(name, np.nan) for name in names] for run in runs]
    return Group(
        "facts",
        {
            "run": Variable(("run",), "run", data=np.arange(len(runs))),
            "fact": Variable(("fact",), "what the value is, by its name in a run file", data=names),
            "value": Variable(
                ("run", "fact"), "value", data=np.array(values).reshape(len(runs), len(names))
            ),
        },
    )
