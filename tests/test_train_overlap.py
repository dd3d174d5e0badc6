"""Training with buckets that overlap with backward: the same weights as without."""

import sys
from pathlib import Path

import h5py
import pytest

from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
SMALL = ["--model", "nin", "--width", "0.1", "--steps", "3", "--batch", "12"]


def train(tmp_path: Path, name: str, ranks: int, *options: str) -> dict[str, object]:
    output = tmp_path / f"{name}.h5"
    command = [COMMBENCH, "train", *SMALL, *options, "--output", str(output)]
    told = mpirun(ranks, command, 120).stdout
    with h5py.File(output) as file:
        timing = file["timing"]
        assert (timing["waiting"][:] <= timing["seconds"][:, :, 3] + 1e-6).all()
        assert (timing["exchanging"][:] > 0).any()
        buckets = len(file["exchange/bytes"])
        return {**file.attrs, "told": told, "buckets": buckets}


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, ["--exchange", "ring"]),
        (3, ["--exchange", "parameter-server", "--server", "dedicated", "--accumulate", "2"]),
        (4, ["--exchange", "hybrid", "--wire", "float16"]),
        (2, ["--exchange", "tree", "--wire", "topk:0.1"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_overlap_changes_no_bit(tmp_path: Path, ranks: int, options: list[str]) -> None:
    shared = [*options, "--fusion-bytes", "32K"]
    beside = train(tmp_path, "beside", ranks, *shared)
    after = train(tmp_path, "after", ranks, *shared, "--no-overlap")
    assert beside["weights_sha256"] == after["weights_sha256"]
    assert beside["buckets"] == after["buckets"] > 2
    assert "headroom of a step: no exchange" in str(beside["told"])
    assert list(beside["headroom_rungs"])[-1] == "measured"  # type: ignore[call-overload]


def test_jias_two_buckets(tmp_path: Path) -> None:
    split = train(tmp_path, "split", 2, "--fusion-split", "4")
    assert split["buckets"] == 2
    assert "option_fusion_bytes" not in split or not split["option_fusion_bytes"]


def test_asynchronous_servers_take_gradients_whole() -> None:
    options = ["--exchange", "ps-async", "--fusion-bytes", "4M", "--steps", "1"]
    job = mpirun(2, [COMMBENCH, "train", *options], 60, check=False)
    assert job.returncode != 0
    assert "its servers take gradients whole" in job.stderr
