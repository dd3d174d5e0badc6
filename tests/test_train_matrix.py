"""`commbench train` takes every model x exchange x recipe, or says why two do not go together."""

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import mpirun
from train_matrix import runs

SCRIPT = Path(__file__).parent / "train_matrix.py"
TIMEOUT_S = 900
# Its servers have parts of gradients only.
REFUSED = r"recipe (lars|legw-resnet50|jia|legw-lstm-ptb)\S* in \S+ needs .* a server of ps-async"


@pytest.mark.slow
def test_every_pair_trains_or_is_refused_with_the_reason(tmp_path: Path) -> None:
    mpirun(2, [sys.executable, str(SCRIPT), str(tmp_path)], TIMEOUT_S)
    refused: list[tuple[str, str, str]] = []
    for number, (model, exchange, recipe) in enumerate(runs()):
        file, reason = tmp_path / f"{number}.h5", tmp_path / f"{number}.txt"
        if reason.exists():
            assert re.match(REFUSED, reason.read_text()), reason.read_text()
            assert not file.exists()
            refused.append((model, exchange, recipe))
            continue
        with h5py.File(file) as run:
            assert run.attrs["status"] == "completed"
            told = (run.attrs["model"], run.attrs["exchange"].split("@")[0], run.attrs["recipe"])
            assert told == (model, exchange, recipe)
            assert np.isfinite(run["steps/loss"][:]).all(), (model, exchange, recipe)
            assert run.attrs["top1"] >= 0
    assert {exchange for _, exchange, _ in refused} == {"ps-async"}
    for pair in ((0, 1), (0, 2), (1, 2)):
        every = {(run[pair[0]], run[pair[1]]) for run in runs()}
        assert len(every) == len({one for one, _ in every}) * len({other for _, other in every})
