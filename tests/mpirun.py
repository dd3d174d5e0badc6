"""Runs a command on several ranks, under the mpirun of the running virtual environment."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

MARK = "COMMBENCH_TEST_JOB"
"""Environment variable that every process of one job carries, so that all of them can be found."""

# Open MPI refuses to run as root or on fewer cores than ranks, binds ranks to cores (two jobs then
# share one), spins while it waits, and its one-sided component over UCX cannot share a window
# without a fast network. MPICH ignores these. One thread a rank leaves torch its share of a core.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",  # Open MPI gives ranks a terminal of their own
    "PYTHONUNBUFFERED": "1",  # a job that is killed has still said what it had to say
}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a shell command that may call mpirun, commbench or python by name."""
    binaries = str(Path(sys.executable).parent)
    path = os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])
    return {**os.environ, **ENVIRONMENT, "PATH": path, **(extra or {})}


def mpirun(
    ranks: int,
    args: Sequence[str],
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs ``mpirun -n ranks args...`` and waits for it.

    Args:
        ranks: number of processes.
        args: the command, found in the virtual environment first.
        timeout_s: the whole job is killed, and the test fails, after this many seconds.
        env: variables to add to the environment of every rank.
        check: whether a non-zero exit fails the test too.

    Raises:
        AssertionError: the job ran out of time or, with ``check``, failed; with all it printed.
    """
    __tracebackhide__ = True
    command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *args]
    return run(command, timeout_s, env, check)


def run(
    command: Sequence[str],
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs any command as `mpirun` does: with its time limit, and leaving no process behind."""
    __tracebackhide__ = True
    mark = uuid.uuid4().hex
    # Files and not pipes: a pipe is read to its end only when the last stray process has let go.
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment({"TMPDIR": scratch, **(env or {}), MARK: mark}),
            start_new_session=True,
        )
        try:
            returncode = process.wait(timeout_s)
            verdict = f"exit status {returncode}"
        except subprocess.TimeoutExpired:
            returncode = None
            verdict = f"still running after {timeout_s:g} s"
        finally:
            end(process, mark)
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read(), err.read()
    if returncode is None or (check and returncode != 0):
        told = f"$ {' '.join(command)}\n{verdict}\n-- stdout --\n{stdout}\n-- stderr --\n{stderr}"
        raise AssertionError(told)
    return subprocess.CompletedProcess(command, returncode, stdout, stderr)


def end(process: subprocess.Popen[str], mark: str) -> None:
    """Ends what is left of a job: politely first, so that it frees what it holds."""
    memory = {path for pid in survivors(mark) for path in shared_memory(pid)}
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    deadline = time.monotonic() + 5
    while (left := survivors(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    process.wait()
    if process.stdout:
        process.stdout.close()
    for path in memory:
        path.unlink(missing_ok=True)


def survivors(mark: str) -> list[int]:
    """The processes that carry ``mark``: launchers give ranks groups and sessions of their own."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # it has ended meanwhile, or belongs to another user
                continue
    return found


def shared_memory(pid: int) -> set[Path]:
    """The files in /dev/shm that a process has mapped; MPICH leaves them when its ranks die."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {Path(line.split()[5]) for line in lines if " /dev/shm/" in line}
