"""`commbench train --exchange ps-async` as a user runs it."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import end, mpirun
from test_train import COMMBENCH, SMALL, TIMEOUT_S, await_steps, ranks_of, start


def trained(ranks: int, output: Path, *options: str) -> tuple[h5py.File, str]:
    """The run file, and what was printed."""
    command = [COMMBENCH, "train", *SMALL, "--output", str(output), *options]
    printed = mpirun(ranks, command, timeout_s=TIMEOUT_S).stdout
    return h5py.File(output), printed


@pytest.mark.parametrize(
    ("ranks", "synchronous", "asynchronous"),
    [
        (3, ["parameter-server", "--server", "dedicated"], []),
        (5, ["sharded-server", "--servers", "2"], ["--servers", "2", "--transport", "mpi"]),
        # A worker by itself is never stale.
        (2, ["parameter-server", "--server", "dedicated"], ["--staleness", "inf"]),
    ],
)
def test_without_staleness_it_gives_the_bits_of_the_synchronous_server(
    tmp_path: Path, ranks: int, synchronous: list[str], asynchronous: list[str]
) -> None:
    whole = ["--exchange", *synchronous, "--fusion-bytes", "all"]
    expected, _ = trained(ranks, tmp_path / "synchronous.h5", *whole)
    options = ["--exchange", "ps-async", "--staleness", "0", *asynchronous]
    file, printed = trained(ranks, tmp_path / "asynchronous.h5", *options)
    assert file.attrs["weights_sha256"] == expected.attrs["weights_sha256"]
    assert (file["steps/loss"][:] == expected["steps/loss"][:]).all()
    assert (file["eval/loss"][:] == expected["eval/loss"][:]).all()
    assert file["staleness/updates"].shape[-1] == 1
    assert "staleness in updates: mean 0.00, at most 0 (0: 100%)" in printed
    moved = [name for name in file["exchange"] if name.endswith(("sent", "received"))]
    assert all((file["exchange"][name][:] == expected["exchange"][name][:]).all() for name in moved)


@pytest.mark.parametrize(
    ("ranks", "staleness", "servers"), [(3, "inf", "1"), (4, "2", "2"), (4, "1", "1")]
)
def test_every_gradients_staleness_is_recorded(
    tmp_path: Path, ranks: int, staleness: str, servers: str
) -> None:
    options = ["--steps", "6", "--evaluate-every", "0.002", "--servers", servers]
    path = tmp_path / "run.h5"
    file, printed = trained(
        ranks, path, "--exchange", "ps-async", "--staleness", staleness, *options
    )
    workers = ranks - int(servers)
    assert file.attrs["workers"] == workers
    assert file.attrs["exchange"] == f"ps-async@servers={servers}@staleness={staleness}"
    assert file["exchange/algorithm"].asstr()[0] == file.attrs["exchange"]
    assert np.isfinite(file["steps/loss"][:]).all()
    assert np.isfinite(file["timing/seconds"][:]).all()
    table = file["staleness"]
    assert table["server"][:].tolist() == list(range(int(servers)))
    assert table["worker"][:].tolist() == list(range(int(servers), ranks))
    for name in ("updates", "clocks"):
        counts = table[name][:]
        assert (counts.sum(axis=2) == 6).all()
        assert (counts @ table["staleness"][:] == table[f"{name}_sum"][:]).all()
        largest = [[np.flatnonzero(one).max() for one in row] for row in counts]
        assert (largest == table[f"{name}_largest"][:]).all()
    assert table["clocks_largest"][:].max() <= float(staleness)
    assert "staleness in updates: mean " in printed
    info = subprocess.run(
        [COMMBENCH, "info", str(path), "--json"], capture_output=True, text=True, check=True
    )
    told = json.loads(info.stdout)
    assert told["staleness_clocks_largest"] == table["clocks_largest"][:].max()
    assert told["staleness_updates_mean"] == pytest.approx(
        table["updates_sum"][:].sum() / (6 * workers * int(servers))
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--exchange", "ring", "--staleness", "2"], "exchange ring has no option staleness"),
        (["--exchange", "ps-async", "--staleness", "some"], "'some' is not a number of steps"),
        (["--exchange", "ps-async", "--servers", "2"], "leaves no worker"),
        (["--exchange", "ps-async", "--server", "colocated"], "servers are dedicated"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], told: str) -> None:
    command = [COMMBENCH, "train", *SMALL, "--output", str(tmp_path / "run.h5"), *options]
    result = mpirun(2, command, timeout_s=TIMEOUT_S, check=False)
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["sweep", "tune", "verify"])
def test_only_training_runs_it(tmp_path: Path, command: str) -> None:
    options = ["--ranks", "4"] if command == "verify" else ["--results", str(tmp_path)]
    if command == "tune":
        options += ["--tuning", str(tmp_path / "tuning.json")]
    result = mpirun(
        1 if command == "verify" else 2,
        [COMMBENCH, command, "--exchange", "ps-async", *options],
        timeout_s=TIMEOUT_S,
        check=False,
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1
    assert "ps-async" in lines[0]
    assert "train" in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stopped", [0, -1], ids=["server", "worker"])
def test_a_rank_that_stops_answering_ends_the_job(tmp_path: Path, stopped: int) -> None:
    output = tmp_path / "run.h5"
    process, mark = start(output, "--timeout", "4", "--exchange", "ps-async", "--staleness", "3")
    try:
        await_steps(process, output, 2)
        pid = ranks_of(mark)[stopped]
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while len(ranks_of(mark)) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(ranks_of(mark)) <= 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        text = process.communicate(timeout=30)[0]
    finally:
        end(process, mark)
    assert process.returncode != 0
    told = [line for line in text.splitlines() if line.startswith("commbench: error: rank ")]
    assert len(told) == 1, text
    assert "rank " in told[0].split("waits for")[1]
    assert "--timeout" in told[0]
    assert "Traceback" not in text
