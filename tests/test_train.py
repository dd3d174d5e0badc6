"""The main job as a user runs it: `mpirun -n P commbench train`."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import end, environment, mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
# Small images and an awkward batch, so that shares differ between the ranks.
SMALL = ["--data", "synthetic", "--image-size", "39", "--batch", "10", "--steps", "4"]
TIMEOUT_S = 120


def train(ranks: int, output: Path, *options: str) -> h5py.File:
    mpirun(
        ranks, [COMMBENCH, "train", *SMALL, "--output", str(output), *options], timeout_s=TIMEOUT_S
    )
    return h5py.File(output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def alone(folder: Path) -> h5py.File:
    return train(1, folder / "alone.h5")


def losses(file: h5py.File) -> np.ndarray:
    return file["steps/loss"][:]


@pytest.mark.parametrize(
    ("ranks", "exchange"),
    [(2, "ring"), (4, "tree"), (4, "parameter-server"), (3, "native")],
)
def test_the_number_of_ranks_changes_the_loss_by_rounding_only(
    folder: Path, alone: h5py.File, ranks: int, exchange: str
) -> None:
    file = train(ranks, folder / f"{exchange}-{ranks}.h5", "--exchange", exchange)
    assert np.isfinite(losses(alone)).all()
    np.testing.assert_allclose(losses(file), losses(alone), rtol=2e-5)
    assert file.attrs["status"] == "completed"
    assert (file.attrs["ranks"], file.attrs["exchange"]) == (ranks, exchange)
    assert np.isfinite(file["timing/seconds"][:]).all()
    moved = file["exchange"]
    known = exchange != "native"
    assert np.isfinite(moved["bytes_sent"][:]).all() == known
    assert np.isfinite(moved["hottest_rank_bytes"][:]).all() == known
    least = 2 * (ranks - 1) / ranks * moved["bytes"][:]
    np.testing.assert_allclose(moved["bound_bytes"][:], least)


def test_the_same_seed_gives_the_same_bits_whatever_is_logged(folder: Path) -> None:
    logged = ["--tensorboard", str(folder / "events"), "--mllog", str(folder / "mlperf.log")]
    again = [
        train(2, folder / f"again-{turn}.h5", "--exchange", "tree", "--seed", "3", *options)
        for turn, options in ((1, []), (2, logged))
    ]
    assert len(list((folder / "events/again-2").iterdir())) == 1
    lines = (folder / "mlperf.log").read_text().splitlines()
    assert '"key": "run_stop"' in lines[-1]
    assert '"status": "success"' in lines[-1]
    other = train(2, folder / "other.h5", "--exchange", "tree", "--seed", "4")
    digests = [file.attrs["weights_sha256"] for file in (*again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert (losses(again[0]) == losses(again[1])).all()


def test_a_dedicated_server_has_no_data_and_changes_nothing_else(
    folder: Path, alone: h5py.File
) -> None:
    options = ("--exchange", "parameter-server", "--server", "dedicated")
    file = train(3, folder / "dedicated.h5", *options)
    np.testing.assert_allclose(losses(file), losses(alone), rtol=2e-5)
    assert file.attrs["workers"] == 2
    phases = file["timing/phase"].asstr()[:].tolist()
    server = file["timing/seconds"][:, 0]
    assert (server[:, phases.index("forward")] == 0).all()
    assert (server[:, phases.index("exchange")] > 0).all()


def test_without_exchange_ranks_drift_apart_and_the_run_goes_on(folder: Path) -> None:
    file = train(2, folder / "none.h5", "--exchange", "none")
    assert file["exchange/bytes_sent"][:].sum() == 0
    assert np.isfinite(losses(file)).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--exchange", "shrub"], "no exchange 'shrub': choose from none, native"),
        (["--image-size", "38"], "39"),
        (["--batch", "1"], "2 or more"),
        (["--data", "mnist"], "unknown data 'mnist': choose from"),
        (["--data", "fashion-mnist", "--data-folder", "/nowhere"], "/nowhere"),
        (["--recipe", "goyal"], "unknown recipe 'goyal': choose from akiba"),
        (["--model", "nix"], "unknown model 'nix': choose from alexnet"),
        (["--data", "fashion-mnist-subset", "--classes", "9"], "9"),
        (["--device", "cuda"], "no CUDA device"),
        (["--output", "/nowhere/run.h5"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], told: str) -> None:
    if "--device" in options and os.path.exists("/dev/nvidia0"):
        pytest.skip("there is a GPU")
    output = [] if "--output" in options else ["--output", str(tmp_path / "run.h5")]
    result = mpirun(
        2, [COMMBENCH, "train", *SMALL, *output, *options], timeout_s=TIMEOUT_S, check=False
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_run_is_told(tmp_path: Path) -> None:
    output = tmp_path / "run.h5"
    command = [COMMBENCH, "train", *SMALL, "--lr", "1e30", "--output", str(output)]
    result = mpirun(2, command, timeout_s=TIMEOUT_S, check=False)
    assert result.returncode == 2
    assert "diverged" in result.stderr
    assert "lower --lr (it was 1e+30)" in result.stderr
    with h5py.File(output) as file:
        assert file.attrs["status"] == "failed"


def test_an_earlier_run_is_never_overwritten(folder: Path, alone: h5py.File) -> None:
    path = Path(alone.filename)
    before = hashlib.sha256(path.read_bytes()).digest()
    command = [COMMBENCH, "train", *SMALL, "--output", str(path)]
    result = mpirun(2, command, timeout_s=TIMEOUT_S, check=False)
    assert result.returncode == 2
    assert str(path) in result.stderr
    assert hashlib.sha256(path.read_bytes()).digest() == before


def start(output: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start a long run on three ranks; returns it with the mark its processes carry."""
    mark = f"COMMBENCH_TEST_{os.getpid()}_{output.stem}"
    launch = [str(Path(sys.executable).parent / "mpirun"), "-n", "3"]
    command = [COMMBENCH, "train", *SMALL[:-2], "--steps", "100000", "--progress", "none"]
    process = subprocess.Popen(
        [*launch, *command, "--output", str(output), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment({"COMMBENCH_TEST_MARK": mark}),
        start_new_session=True,
        text=True,
    )
    return process, mark


def ranks_of(mark: str) -> list[int]:
    """The processes of a run that are Python: the ranks themselves, not their launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mine = f"COMMBENCH_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mine and b"train" in words and b"python" in words[0]:
                found.append(int(entry.name))
    return sorted(found)


def recorded(output: Path) -> int:
    """Steps whose loss is in the file: those for which all ranks have reported."""
    if not output.exists():
        return 0
    with h5py.File(output) as file:
        return int(np.isfinite(losses(file)).sum())


def await_steps(process: subprocess.Popen[str], output: Path, steps: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while recorded(output) < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.1)


def test_killed_at_any_moment_the_file_opens_with_all_but_the_last_seconds(tmp_path: Path) -> None:
    output = tmp_path / "run.h5"
    process, mark = start(output)
    try:
        await_steps(process, output, 5)
        for pid in ranks_of(mark):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
    finally:
        end(process, mark)
    with h5py.File(output) as file:
        done = int(np.isfinite(file["steps/images_per_s"][:]).sum())
        told = int(np.isfinite(losses(file)).sum())
        missing_s = (10 / file["steps/images_per_s"][told:done]).sum()
        assert file.attrs["status"] == "running"
    assert told >= 5
    assert missing_s < 5
    import xarray

    with xarray.open_dataset(output, engine="h5netcdf", group="steps") as steps:
        assert int(steps.loss.notnull().sum()) == told
    info = subprocess.run(
        [COMMBENCH, "info", str(output), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(info.stdout)["steps_recorded"] >= told


def test_a_rank_that_stops_answering_ends_the_job(tmp_path: Path) -> None:
    output = tmp_path / "run.h5"
    process, mark = start(output, "--timeout", "4", "--exchange", "ring")
    try:
        await_steps(process, output, 2)
        pid = ranks_of(mark)[-1]
        os.kill(pid, signal.SIGSTOP)
        # Its peers give up after the time limit; launchers may wait for the stopped one itself.
        deadline = time.monotonic() + 30
        while len(ranks_of(mark)) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(ranks_of(mark)) <= 1
        with contextlib.suppress(ProcessLookupError):  # other launchers kill it themselves
            os.kill(pid, signal.SIGKILL)
        text = process.communicate(timeout=30)[0]
    finally:
        end(process, mark)
    assert process.returncode != 0
    told = [line for line in text.splitlines() if line.startswith("commbench: error: rank ")]
    assert len(told) == 1, text
    assert "round " in told[0]
    assert "rank " in told[0].split("waits for")[1]
    assert "--timeout" in told[0]
    assert "Traceback" not in text
