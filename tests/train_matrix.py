"""Run inside the ranks by test_train_matrix.py: model x exchange x recipe in one MPI job.

Every pair of a model and an exchange, of a model and a recipe, and of an exchange and a recipe is
in one of the runs: a Latin square. Usage: train_matrix.py FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from commbench.cli import commands
from commbench.errors import UserError
from commbench.job import Job
from commbench.registry import topology_names
from commbench.workloads.data import frames, synthetic
from commbench.workloads.models import published_models
from commbench.workloads.recipes import recipe_names

SMALL = ["--data", "synthetic", "--width", "0.03", "--classes", "10", "--batch", "4"]


def runs() -> Iterator[tuple[str, str, str]]:
    """Model, exchange and recipe of each."""
    exchanges, recipes = topology_names(), recipe_names()
    # As many columns as the longer of the two, so that none is left out.
    for row, model in enumerate(published_models()):
        for column in range(max(len(exchanges), len(recipes))):
            exchange = exchanges[column % len(exchanges)]
            yield model, exchange, recipes[(row + column) % len(recipes)]


def leave(job: Job, message: str) -> None:
    """In the place of `Job.part`, which would end this job of many runs."""
    raise UserError(message)


def main() -> None:
    """Two steps of each, into FOLDER/NUMBER.h5; what is refused, to FOLDER/NUMBER.txt."""
    Job.part = leave  # type: ignore[method-assign, assignment]
    # Evaluations would take most of the time.
    for module in (frames, synthetic):
        module.TRAIN_SAMPLES, module.TEST_SAMPLES = 40, 8
    for number, (model, exchange, recipe) in enumerate(runs()):
        output = Path(sys.argv[1], f"{number}.h5")
        arguments = ["train", "--model", model, "--exchange", exchange, "--recipe", recipe, *SMALL]
        arguments += ["--steps", "2", "--progress", "none", "--output", str(output)]
        try:
            commands.main(arguments, standalone_mode=False)
        except UserError as error:
            output.with_suffix(".txt").write_text(str(error))


if __name__ == "__main__":
    main()
