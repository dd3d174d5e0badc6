"""The run file of `benchmarks.overhead`, as Markdown's rows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.estimate import estimate
from benchmarks.overhead import BARE, FOREACH, OURS, RECORDING
from commbench.record import open_run

STEPS_HEADER = ["a step of NiN", "ms", "more than the bare loop (ms)", "of the step (%)"]
UPDATES_HEADER = ["update of", "by", "ms", "over torch's foreach SGD"]


def step_rows(path: Path) -> list[list[str]]:
    """One row for the bare loop, the trainer, and what recording takes of it.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        names = file["steps/candidate"].asstr()[:]
        took = dict(zip(names, 1e3 * file["steps/seconds"][:], strict=True))
    more = estimate(took[OURS] - took[BARE]).text(1)
    share = estimate(100 * took[RECORDING] / took[OURS]).text(2)
    return [
        [BARE, estimate(took[BARE]).text(1), "", ""],
        [OURS, estimate(took[OURS]).text(1), more, ""],
        [RECORDING, estimate(took[RECORDING]).text(2), "", share],
    ]


def update_rows(path: Path) -> list[list[str]]:
    """One row for each model and optimizer.

    Raises:
        UserError: it is no run file.
    """
    with open_run(path) as file:
        models = file["updates/model"].asstr()[:]
        names = list(file["updates/candidate"].asstr()[:])
        seconds = file["updates/seconds"][:]
    rows = []
    for model, of_model in zip(models, seconds, strict=True):
        reference = of_model[names.index(FOREACH)]
        for name, took in zip(names, of_model, strict=True):
            ratio = estimate(took / reference).text() if name != FOREACH else ""
            rows.append([str(model), str(name), estimate(1e3 * took).text(1), ratio])
    return rows
