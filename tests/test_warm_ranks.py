"""Training on ranks that are forked from a warm interpreter, and that share their weights."""

import os
import signal
import time
from pathlib import Path

import h5py
import pytest

from mpirun import end, mpirun
from test_train import COMMBENCH, SMALL, TIMEOUT_S, await_steps, ranks_of, start


def test_nothing_but_time_and_memory_is_another(tmp_path: Path) -> None:
    files = {}
    for word in ("on", "off"):
        output = tmp_path / f"{word}.h5"
        options = ["--warm-start", word, "--share-weights", word, "--exchange", "tree"]
        mpirun(3, [COMMBENCH, "train", *SMALL, "--output", str(output), *options], TIMEOUT_S)
        files[word] = h5py.File(output)
    on, off = files["on"], files["off"]
    assert on.attrs["status"] == "completed"
    assert (on.attrs["shared_weights"], off.attrs["shared_weights"]) == (True, False)
    assert on.attrs["weights_sha256"] == off.attrs["weights_sha256"]
    assert (on["steps/loss"][:] == off["steps/loss"][:]).all()
    assert (on["eval/top1"][:] == off["eval/top1"][:]).all()


def test_a_dedicated_server_leaves_the_step_to_a_worker(tmp_path: Path) -> None:
    digests = set()
    for word in ("on", "off"):
        output = tmp_path / f"{word}.h5"
        options = ["--exchange", "parameter-server", "--server", "dedicated"]
        shared = ["--share-weights", word, "--warm-start", "on", "--output", str(output)]
        mpirun(3, [COMMBENCH, "train", *SMALL, *options, *shared], TIMEOUT_S)
        digests.add(h5py.File(output).attrs["weights_sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--exchange", "shrub"], "no exchange 'shrub': choose from none, native"),
        (["--exchange", "none", "--share-weights", "on"], "a synchronous exchange"),
        (["--device", "cuda"], "--warm-start off"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], told: str) -> None:
    command = [COMMBENCH, "train", *SMALL, "--warm-start", "on", *options]
    result = mpirun(2, [*command, "--results", str(tmp_path)], TIMEOUT_S, check=False)
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1, result.stderr
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "run.h5"
    process, mark = start(output, "--warm-start", "on")
    try:
        await_steps(process, output, 2)
        # Three clients, their server, three ranks.
        assert len(ranks_of(mark)) == 7
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while ranks_of(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ranks_of(mark) == []
    finally:
        end(process, mark)
    assert process.returncode != 0
