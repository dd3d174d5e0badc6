"""`mpirun -n P commbench train --wire`: it learns, records what is sent, and refuses in a line."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
MODEL = ["--model", "lstm-mnist", "--batch", "24", "--lr", "0.1", "--progress", "lines"]
PARAMETERS = 136_586
TIMEOUT_S = 120


def command(*options: str) -> list[str]:
    return [COMMBENCH, "train", *MODEL, *options]


@pytest.mark.parametrize(
    ("ranks", "wire", "options", "ratio"),
    [
        (2, "float16", ["--exchange", "ring"], 2),
        (3, "bfloat16", ["--exchange", "tree"], 2),
        (3, "topk:0.01", ["--exchange", "parameter-server", "--server", "dedicated"], 50),
        (4, "topk:0.01", ["--exchange", "halving-doubling"], 50),
        (2, "powersgd:2", ["--exchange", "native"], 49),
        (3, "powersgd:2", ["--exchange", "parameter-server", "--server", "dedicated"], 49),
        (4, "powersgd:2", ["--exchange", "tree:4K:ring"], 49),
    ],
)
def test_it_learns(tmp_path: Path, ranks: int, wire: str, options: list[str], ratio: float) -> None:
    output = tmp_path / "run.h5"
    args = command("--wire", wire, "--steps", "60", "--output", str(output), *options)
    told = mpirun(ranks, args, TIMEOUT_S)
    again = mpirun(1, [COMMBENCH, "info", "--json", str(output)], TIMEOUT_S)
    with h5py.File(output) as file:
        losses = file["steps/loss"][:]
        # Ten classes at random are 2.30. The run checks that all workers have the same weights.
        assert np.isfinite(losses).all()
        assert losses[-10:].mean() < 0.75 * losses[:3].mean()
        assert file.attrs["option_wire"] == wire
        assert file.attrs["gradient_bytes"] == 4 * PARAMETERS
        assert file.attrs["compression"] == pytest.approx(ratio, rel=0.02)
        handed_in = int(file.attrs["handed_in_bytes"])
        sizes = file["exchange/bytes"][:]
        slots = 4 // 2 if "dedicated" in options else 4
        assert sizes.sum() == handed_in * (slots if wire.startswith("topk") else 1)
        assert len(sizes) == (2 if wire.startswith("powersgd") else 1)
        sent = file["exchange/bytes_sent"][:]
        assert np.isnan(sent).all() == ("native" in options)
        assert json.loads(again.stdout)["compression"] == file.attrs["compression"]
        if wire.startswith("topk") and "dedicated" not in options:
            assert (file["exchange/hottest_rank_bytes"][:] == 3 * handed_in).all()
            assert (file["exchange/bound_bytes"][:] == 3 * handed_in).all()
    assert f"wire {wire}: a worker hands in" in told.stdout


def test_float32_says_nothing_and_is_the_default(tmp_path: Path) -> None:
    output = tmp_path / "run.h5"
    told = mpirun(2, command("--steps", "2", "--output", str(output)), TIMEOUT_S)
    assert "run file" in told.stdout
    assert "hands in" not in told.stdout
    with h5py.File(output) as file:
        assert (file.attrs["option_wire"], file.attrs["compression"]) == ("float32", 1)


@pytest.mark.parametrize(
    ("wire", "exchange", "why"),
    [
        ("float8", "ring", "choose float32, float16, bfloat16, topk:F"),
        ("topk:0.1", "native", "take the sums apart"),
        ("topk:0.1", "native:1G:ring", "take the sums apart"),
        ("topk:0.1", "none", "exchanges nothing that could be gathered"),
        ("powersgd:2", "ps-async", "only exchanges on a schedule are compressed"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, wire: str, exchange: str, why: str) -> None:
    output = tmp_path / "run.h5"
    args = command("--wire", wire, "--exchange", exchange, "--output", str(output))
    result = mpirun(2, args, TIMEOUT_S, check=False)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if "commbench: error:" in line]
    assert len(lines) == 1
    assert why in lines[0]
    assert "Traceback" not in result.stderr
    assert not output.exists()
