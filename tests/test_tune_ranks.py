"""`mpirun -n 2 commbench tune`, and what it found used by the other commands."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench.tune import decide
from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120
TRAIN = ["--data", "synthetic", "--image-size", "39", "--batch", "10", "--steps", "2"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    sizes = ["-b", "64", "-e", "64K", "-f", "32", "-n", "5", "-w", "1"]
    files = ["--tuning", str(folder / "tuning.json"), "--output", str(folder / "tune.h5")]
    result = mpirun(2, [COMMBENCH, "tune", *sizes, *files], TIMEOUT_S)
    assert "# tuned: " in result.stdout
    return folder


def entries(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "tuning.json").read_text())["entries"]
    return found


def test_the_answer_is_what_the_samples_say(tuned: Path) -> None:
    (entry,) = entries(tuned)
    with h5py.File(tuned / "tune.h5") as run:
        assert run.attrs["status"] == "completed"
        assert np.isfinite(run["sweep/seconds"][:]).all()
        names = run["sweep/exchange"].asstr()[:].tolist()
        answer = decide(run["sweep"])
    assert "native" in names
    assert "none" not in names
    assert entry["exchange"] == answer.exchange
    assert entry["sizes_bytes"] == [64, 2048, 65536]
    assert entry["setting"]["ranks"] == 2  # type: ignore[index]


def test_sweep_and_train_use_it(tuned: Path) -> None:
    # Whatever was the fastest here: a choice whose parts differ at the sizes below.
    document = json.loads((tuned / "tuning.json").read_text())
    document["entries"][0]["exchange"] = "tree:4K:ring"
    file = tuned / "edited.json"
    file.write_text(json.dumps(document))
    auto = ["--exchange", "auto", "--tuning", str(file), "--output"]
    sizes = ["-b", "4K", "-e", "8K", "-n", "2", "-w", "0", "-c"]
    mpirun(2, [COMMBENCH, "sweep", *sizes, *auto, str(tuned / "sweep.h5")], TIMEOUT_S)
    with h5py.File(tuned / "sweep.h5") as run:
        assert run["sweep/exchange"].asstr()[:].tolist() == ["tree:4K:ring"]
        assert run["sweep/algorithm"].asstr()[:].tolist() == [["tree"], ["ring"]]
        assert run.attrs["wrong"] == 0
    mpirun(2, [COMMBENCH, "train", *TRAIN, *auto, str(tuned / "train.h5")], TIMEOUT_S)
    with h5py.File(tuned / "train.h5") as run:
        assert run.attrs["exchange"] == "tree:4K:ring"
        assert set(run["exchange/algorithm"].asstr()) == {"ring"}
        assert "--exchange auto" in run.attrs["command_line"]


@pytest.mark.parametrize("change", [["--transport", "mpi"], ["-d", "float64"]])
def test_another_setting_was_not_tuned(tuned: Path, change: list[str]) -> None:
    output = tuned / "never.h5"
    files = ["--tuning", str(tuned / "tuning.json"), "--output", str(output)]
    command = [COMMBENCH, "sweep", "--exchange", "auto", *files, *change]
    result = mpirun(2, command, TIMEOUT_S, check=False)
    assert result.returncode == 2
    assert "run mpirun -n 2 commbench tune first" in result.stderr
    assert not output.exists()


def test_train_by_size_is_the_part_that_sums_the_bucket(tuned: Path) -> None:
    digests = []
    for exchange in ("ring:1M:tree", "tree"):
        output = tuned / f"{exchange.replace(':', '-')}.h5"
        options = ["--exchange", exchange, "--output", str(output)]
        mpirun(2, [COMMBENCH, "train", *TRAIN, *options], TIMEOUT_S)
        with h5py.File(output) as run:
            assert run["exchange/algorithm"].asstr()[0] == "tree"
            assert run.attrs["exchange"] == run.attrs["option_exchange"] == exchange
            digests.append(run.attrs["weights_sha256"])
    assert digests[0] == digests[1]
