"""Run inside the ranks by test_train_models.py: trains one model after another in one MPI job.

Usage: train_models.py FOLDER [TRAIN OPTION...] -- MODEL...
"""

import sys
from pathlib import Path

from commbench.cli import commands


def main() -> None:
    """Two steps of each model, into FOLDER/MODEL.h5."""
    folder, *rest = sys.argv[1:]
    split = rest.index("--")
    for model in rest[split + 1 :]:
        output = str(Path(folder, f"{model}.h5"))
        arguments = ["train", "--model", model, "--output", output, "--progress", "none"]
        commands.main([*arguments, *rest[:split]], standalone_mode=False)


if __name__ == "__main__":
    main()
