"""`commbench emulate`: hosts in network namespaces; visibly skipped where they cannot be made."""

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

from commbench.emulation import measured
from commbench.emulation.machine import why_not
from commbench.errors import UserError
from mpirun import MARK, environment, run, survivors

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120
REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"cannot emulate a cluster: {REASON}")


def outside() -> tuple[list[str], list[str]]:
    """What a run could leave behind: named namespaces, network devices.

    Shared memory not, for hosts have a /dev/shm of their own; this one is everybody's.
    """
    names = Path("/run/netns")
    return (
        sorted(os.listdir(names)) if names.exists() else [],
        sorted(os.listdir("/sys/class/net")),
    )


def test_exchanges_over_four_hosts(tmp_path: Path) -> None:
    output, nbytes = tmp_path / "run.h5", 256 << 10
    before = outside()
    options = ["--hosts", "4", "--rate", "50mbit", "--bytes", str(nbytes), "--ranks", "2,4"]
    command = [COMMBENCH, "emulate", *options, "-n", "2", "--output", str(output)]
    result = run(command, TIMEOUT_S)
    assert outside() == before
    lines = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) == 6
    assert "# check: 4 network namespaces for 4 ranks" in result.stdout
    with h5py.File(output) as file:
        assert file.attrs["kind"] == "emulate"
        assert file.attrs["status"] == "completed"
        assert file.attrs["wrong"] == 0
        assert len(set(file.attrs["network_namespaces"])) == 4
        assert list(file.attrs["hosts"]) == ["h0", "h1", "h2", "h3"]
        table = file["emulation"]
        assert list(table["exchange"].asstr()) == ["parameter-server", "tree", "ring"]
        seconds = np.max(table["seconds"][:, 1], axis=2)
        # No faster than the links: what they send for nothing after a pause is an eighth of a
        # message at most. The slower bound would be one of this machine's.
        assert (seconds > 0.75 * table["theory_s"][:, 1][:, None]).all()
        assert np.isnan(table["seconds"][:, 0, :, 2:]).all()
        # Every byte of the schedule went through the shaped links, and little besides.
        wire = table["carried_bytes"][:] / np.where(
            table["received_bytes"][:] > 0, table["received_bytes"][:], np.nan
        )
        assert np.nanmin(wire) > 1.0
        assert np.nanmax(wire) < 1.3
    told = run([COMMBENCH, "info", "--json", str(output)], TIMEOUT_S).stdout
    assert len(json.loads(told)["emulation"]) == 6


def test_a_command_on_hosts_in_racks(tmp_path: Path) -> None:
    output = tmp_path / "sweep.h5"
    cluster = ["--hosts", "4", "--rate", "200mbit", "--racks", "2", "--oversubscription", "2"]
    sweep = ["sweep", "--exchange", "ring", "-b", "64K", "-e", "64K", "-n", "2", "-c"]
    command = [COMMBENCH, "emulate", *cluster, "--", *sweep, "--output", str(output)]
    result = run(command, TIMEOUT_S)
    assert "# Out of bounds values : 0 OK" in result.stdout
    with h5py.File(output) as file:
        assert list(file.attrs["hosts"]) == ["h0", "h1", "h2", "h3"]
        assert file.attrs["transport"] == "mpi"
        assert "4 hosts at 200mbit in 2 racks" in file.attrs["env_COMMBENCH_EMULATED"]


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = (2, "100mbit", ["tree"], 64 << 10, tmp_path)
    first = measured.measured(*cluster, iterations=1)
    assert list(first) == [("tree", 2)]
    assert first["tree", 2].seconds > 0.5 * first["tree", 2].theory_s > 0
    monkeypatch.setattr(measured, "start", lambda *_: pytest.fail("measured again"))
    assert measured.measured(*cluster) == first
    monkeypatch.setattr(measured, "start", lambda *_: 3)
    with pytest.raises(UserError, match="ended with status 3"):
        measured.measured(2, "100mbit", ["tree", "ring"], 64 << 10, tmp_path)


def test_errors_of_the_command_come_through(tmp_path: Path) -> None:
    command = [COMMBENCH, "emulate", "--hosts", "2", "--", "sweep", "--exchange", "nonsense"]
    result = run(command, TIMEOUT_S, check=False)
    assert result.returncode != 0
    assert result.stderr.count("commbench: error:") == 1
    assert "nonsense" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_command_that_is_killed(tmp_path: Path, number: int) -> None:
    before, output = outside(), tmp_path / "run.h5"
    # At this speed an exchange takes minutes.
    options = ["--hosts", "2", "--rate", "100kbit", "--bytes", "1M", "--output", str(output)]
    mark = f"emulate-{os.getpid()}-{number}"
    process = subprocess.Popen(
        [COMMBENCH, "emulate", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment({MARK: mark}),
        start_new_session=True,
    )
    try:
        waited = time.monotonic() + TIMEOUT_S
        while len(survivors(mark)) < 6 and time.monotonic() < waited:
            time.sleep(0.05)
        assert len(survivors(mark)) >= 6, "the ranks have not been started"
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) != 0
        waited = time.monotonic() + TIMEOUT_S
        while survivors(mark) and time.monotonic() < waited:
            time.sleep(0.05)
        assert survivors(mark) == []
        assert outside() == before
    finally:
        process.kill()
        process.wait()
