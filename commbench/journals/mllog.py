"""The lines of MLPerf Training, by its own package ``mlperf-logging``.

Source: MLCommons, "MLPerf Training Rules", the log's keys and their order; the package's compliance
checker accepts a run of ResNet-50 as one of the open division. A block is what lies between two
evaluations.

What a submission would have to tell and a run of ours does not have is said as it is: no
organisation, status "research", and caches that were not cleared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commbench.errors import UserError
from commbench.journals import Evaluation, Journal, missing
from commbench.record.paths import check_output

# As MLPerf names the workloads that it has in common with us.
_BENCHMARKS = {"resnet50": "resnet"}


class MLPerfLog(Journal):
    """Writes one file, line by line as the run goes."""

    def __init__(self, path: Path) -> None:
        """Take note of the time: from here to `begin`, which opens the file, the run prepares.

        Raises:
            UserError: no such library, or the file exists or has no folder.
        """
        try:
            from mlperf_logging.mllog import constants, mllog
        except ImportError as error:
            raise missing("--mllog", "mlperf-logging", "mlperf") from error
        check_output(path)
        self._path = path
        self._mllog = mllog
        self._keys = constants
        self._started_ms = int(1e3 * time.time())
        self._log: Any = None

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Say what is trained, and begin."""
        try:
            handler = logging.FileHandler(self._path, mode="x")
        except OSError as error:
            raise UserError(f"--mllog {self._path}: {error.strerror}") from error
        # Not the package's own logger, which writes to standard output.
        logger = logging.Logger("commbench", logging.INFO)
        logger.addHandler(handler)
        self._handler = handler
        self._log = self._mllog.MLLogger(logger)
        keys = self._keys
        self._log.start(keys.INIT_START, time_ms=self._started_ms)
        self._log.event(keys.CACHE_CLEAR, value=False)
        model = str(facts["model"]).partition("@")[0]
        told = {
            keys.SUBMISSION_BENCHMARK: _BENCHMARKS.get(model, model),
            keys.SUBMISSION_DIVISION: keys.OPEN,
            keys.SUBMISSION_ORG: "none, a run of commbench",
            keys.SUBMISSION_PLATFORM: f"{facts['ranks']} ranks, {len(set(facts['hosts']))} hosts",
            keys.SUBMISSION_STATUS: keys.RESEARCH,
            keys.SEED: facts["seed"],
            keys.GLOBAL_BATCH_SIZE: facts["global_batch"],
            keys.GRADIENT_ACCUMULATION_STEPS: facts["options"]["accumulate"],
            keys.TRAIN_SAMPLES: facts["train_images"],
            keys.EVAL_SAMPLES: facts["test_images"],
            keys.OPT_NAME: facts["optimizer"],
            keys.OPT_BASE_LR: facts["base_lr"],
            keys.OPT_WEIGHT_DECAY: facts["weight_decay"],
        }
        for key, value in told.items():
            self._log.event(key, value=value)
        self._log.end(keys.INIT_STOP)
        self._log.start(keys.RUN_START)
        self._log.start(keys.BLOCK_START, metadata=_place(0, 0.0))

    def evaluating(self, step: int, epoch: float) -> None:
        """End the block, and begin to test."""
        self._log.end(self._keys.BLOCK_STOP, metadata=_place(step, epoch))
        self._log.start(self._keys.EVAL_START, metadata=_place(step, epoch))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Tell accuracy and speed; begin the next block, if one follows."""
        place = _place(evaluation.step, evaluation.epoch)
        self._log.event(self._keys.EVAL_ACCURACY, value=evaluation.top1, metadata=place)
        self._log.end(self._keys.EVAL_STOP, metadata=place)
        # The rules' name for the speed, which the package has no constant for.
        self._log.event(
            "tracked_stats", value={"throughput": evaluation.images_per_s}, metadata=place
        )
        if not evaluation.last:
            self._log.start(self._keys.BLOCK_START, metadata=place)

    def end(self, status: str) -> None:
        """Tell how it ended, and close the file."""
        if self._log is None:
            return
        told = self._keys.SUCCESS if status == "completed" else self._keys.ABORTED
        self._log.end(self._keys.RUN_STOP, metadata={self._keys.STATUS: told})
        self._handler.close()


def _place(step: int, epoch: float) -> dict[str, object]:
    """Where in the run: steps done and passes over the data."""
    return {"step_num": step, "epoch_num": epoch}
