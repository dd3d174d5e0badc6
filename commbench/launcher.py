"""What a process owes its launcher: its rank before MPI starts, and a clean end when it fails."""

import fcntl
import os
import struct
import sys
import termios
import time
from pathlib import Path

_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_READ_WITHIN_S = 2.0


def is_launched() -> bool:
    """Whether a launcher such as mpirun started this process."""
    return any(os.environ.get(name, "").isdigit() for name in _RANK_VARIABLES)


def launched_rank() -> int:
    """This process's rank in its job; 0 when it was started without a launcher."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def launched_size() -> int:
    """How many processes the launcher started; 1 where it does not tell."""
    for name in _SIZE_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


def writes_to_terminal() -> bool:
    """Whether what this process writes is shown on a terminal.

    Open MPI gives every rank a terminal of its own, even where mpirun's output goes to a file.
    """
    if not sys.stdout.isatty():
        return False
    if "OMPI_COMM_WORLD_RANK" not in os.environ:
        return True
    try:
        launchers = os.readlink(f"/proc/{os.getppid()}/fd/1")
    except OSError:
        return False
    return launchers.startswith(("/dev/pts/", "/dev/tty"))


def say_last_words(text: str) -> None:
    """Write to standard error and wait until the launcher has read it.

    A launcher that learns of an abort drops what still lies in the pipe.
    """
    sys.stdout.flush()
    # In one piece, so that ranks do not speak in between each other's words.
    sys.stderr.write(f"{text.rstrip()}\n")
    sys.stderr.flush()
    deadline = time.monotonic() + _READ_WITHIN_S
    try:
        while time.monotonic() < deadline:
            unread = fcntl.ioctl(sys.stderr.fileno(), termios.FIONREAD, b"\0" * 4)
            if struct.unpack("i", unread)[0] == 0:
                return
            time.sleep(0.001)
    except OSError:  # not a pipe: nobody has to read it
        return


def unlink_shared_memory(prefix: str = "") -> None:
    """Remove the names, those with this prefix, of the shared memory this process has mapped.

    MPI removes them in MPI_Finalize only, so each aborted job would leave some MB in /dev/shm. The
    memory itself lives on until its last process ends.
    """
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # no Linux
        return
    for path in {line.split()[5] for line in lines if f" /dev/shm/{prefix}" in line}:
        Path(path).unlink(missing_ok=True)
