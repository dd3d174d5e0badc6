"""Where a rank's words go."""

import os
import subprocess
import sys

import pytest

from commbench.launcher import writes_to_terminal


class Terminal:
    def isatty(self) -> bool:
        return True


def test_a_rank_under_open_mpi_asks_for_its_launchers_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK", raising=False)
    assert writes_to_terminal()
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    near, far = os.openpty()
    for output, shown in ((subprocess.PIPE, False), (far, True)):
        command = [sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as launcher:
            monkeypatch.setattr(os, "getppid", lambda pid=launcher.pid: pid)
            assert writes_to_terminal() == shown
            launcher.communicate(b"\n")
    os.close(near)
    os.close(far)


def test_a_pipe_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not writes_to_terminal()
