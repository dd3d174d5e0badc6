"""A rank in a fork of the server: it runs to its end, and ends as a process of its own would."""

from __future__ import annotations

import atexit
import ctypes
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

# glibc's names for what `mallopt` sets.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def run_to_end(run: Callable[[], object]) -> NoReturn:
    """Run and end the process, with everything that Python does at its end but freeing memory.

    To free what came with the fork, a rank would first get a copy of its own of it: a hundred ranks
    would need more memory to end than they did to train. So the C library's handlers that are
    registered from here on do run, MPICH's farewell to its launcher among them, and none of those
    that were there before.
    """
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)
    _return_what_is_freed(libc)
    status = 0
    try:
        run()
    except SystemExit as end:
        status = _status(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _finalize_mpi()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 120  # Python's own
    libc.fflush(None)
    libc.exit(status & 0xFF)
    raise AssertionError("a process has ended")


def _return_what_is_freed(libc: ctypes.CDLL) -> None:
    """Have `free` give memory back to the system at once, not keep it for the next step.

    Of a step of NiN a rank would keep some 20 MB of activations and gradients, while all but a few
    of a node's many ranks wait for a core.
    """
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 256 << 10)
        libc.mallopt(_TRIM_THRESHOLD, 128 << 10)
        libc.mallopt(_TOP_PAD, 0)


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    print(code, file=sys.stderr)
    return 1


def _finalize_mpi() -> None:
    """mpi4py does so when the interpreter frees its modules."""
    module = sys.modules.get("mpi4py.MPI")
    if module and module.Is_initialized() and not module.Is_finalized():
        module.Finalize()
