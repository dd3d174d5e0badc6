"""Run inside the ranks by test_train_recipes.py: trains many times in one MPI job.

Usage: train_recipes.py FOLDER, where FOLDER/jobs.json lists [file name, [TRAIN OPTION...]].
"""

import json
import sys
from pathlib import Path

from commbench.cli import commands


def main() -> None:
    """Each job into FOLDER/FILE NAME."""
    folder = Path(sys.argv[1])
    for name, options in json.loads((folder / "jobs.json").read_text()):
        arguments = ["train", "--output", str(folder / name), "--progress", "none", *options]
        commands.main(arguments, standalone_mode=False)


if __name__ == "__main__":
    main()
