"""Makes pytest run inside MPI: rank 0 reports, and the first failure on any rank ends the job.

A rank that fails leaves its peers waiting in a collective call for ever. So it prints its own
report at once and aborts all of them, from the hook that learns of the failure first.
"""

import array
import contextlib
import fcntl
import os
import sys
import termios
import time
from pathlib import Path
from tempfile import gettempdir
from typing import NoReturn

import pytest
from mpi4py import MPI

from mpirun import shared_memory

WORLD = MPI.COMM_WORLD
RANK = WORLD.rank
SIZE = WORLD.size
# The harness's own messages must not meet those of the tests.
HARNESS = WORLD.Dup()
# pytest clears away old folders as it ends; ranks would clear each other's.
OWN = Path(gettempdir(), f"rank-{RANK}")
OWN.mkdir(exist_ok=True)
os.environ["PYTEST_DEBUG_TEMPROOT"] = str(OWN)
FAILED = Path(gettempdir(), HARNESS.bcast(f"commbench-failed-{os.getpid()}-{time.time_ns()}"))


def wait_until_read(pipe: int) -> None:
    """MPICH's launcher throws away what it has not read when it hears of an abort."""
    unread = array.array("i", [1])
    deadline = time.monotonic() + 5
    with contextlib.suppress(OSError):  # it is not a pipe
        while unread[0] and time.monotonic() < deadline:
            time.sleep(0.001)
            fcntl.ioctl(pipe, termios.FIONREAD, unread)


def abort(title: str, text: str) -> NoReturn:
    """Ends the whole job, with this rank's story if it is the first to fail.

    When all ranks fail alike, one traceback is worth more than a mixture of seven.
    """
    try:
        FAILED.touch(exist_ok=False)
    except FileExistsError:
        time.sleep(5)  # the first is printing; its abort ends this process
    else:
        message = f"\n==== rank {RANK} of {SIZE}: {title} ====\n{text.rstrip()}\n"
        sys.stdout.flush()
        sys.stderr.write(message)  # at one go, and not mixed with another rank's words
        sys.stderr.flush()
        wait_until_read(sys.stderr.fileno())
        for path in shared_memory(os.getpid()):
            path.unlink(missing_ok=True)
    WORLD.Abort(1)
    raise AssertionError("MPI_Abort returned")


@pytest.hookimpl(trylast=True)  # after the terminal plugin has set up its reporter
def pytest_configure(config: pytest.Config) -> None:
    if RANK > 0:
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_report_header() -> str:
    return f"mpi: {SIZE} ranks, {MPI.Get_library_version().splitlines()[0]}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        sections = (f"---- {name} ----\n{content}" for name, content in report.sections)
        abort(f"{report.nodeid} ({report.when})", "\n".join([report.longreprtext, *sections]))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        abort(f"collecting {report.nodeid}", report.longreprtext)


def pytest_internalerror(excrepr: object) -> None:
    abort("pytest itself failed", str(excrepr))


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    abort("interrupted", str(excinfo.getrepr(style="short")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ranks that run different tests would wait for each other for ever."""
    tests = [
        (item.nodeid, str([mark.args for mark in item.iter_markers() if "skip" in mark.name]))
        for item in session.items
    ]
    for rank, others in enumerate(HARNESS.allgather(tests)):
        if others != tests:
            differ = sorted({test for test, _ in set(tests) ^ set(others)}) or ["the order"]
            abort("collected or skips other tests than its peers", f"rank {rank}: {differ}")
