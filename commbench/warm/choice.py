"""Whether a rank starts warm, from what a process knows before it has imported anything."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OPTION = "--warm-start"
# Fewer ranks import in seconds and in little memory, and have one process less to go wrong.
_MANY = 16
_VARIABLE = "COMMBENCH_TRAIN_WARM_START"
_LOCAL_SIZES = (
    "MPI_LOCALNRANKS",
    "PMI_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "PMIX_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)
# What libraries read as they are loaded, and so once for all ranks that share an interpreter.
_READ_ON_LOADING = (
    *("LD_", "PYTHON", "VIRTUAL_ENV", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_"),
    *("GLIBC_", "TORCH", "ATEN_", "DNNL_", "ONEDNN_", "HDF5_", "LMDB_", "CUDA_", "NCCL_"),
    *("NUMPY_", "NPY_", "LC_", "LANG"),
)


class CannotStartWarm(Exception):  # noqa: N818
    """Ranks cannot start warm here; the message says why."""


@dataclass(frozen=True)
class Wish:
    """What the command line asks for.

    Attributes:
        word: auto, on or off.
        device: the word after `--device`.
    """

    word: str
    device: str


def wish(arguments: Sequence[str], environ: Mapping[str, str]) -> Wish | None:
    """The wish of `commbench ARGUMENTS`; None for a command that does not start warm."""
    if not arguments or arguments[0] != "train" or not {"-h", "--help"}.isdisjoint(arguments):
        return None
    word = _last(arguments, OPTION) or environ.get(_VARIABLE) or "auto"
    device = _last(arguments, "--device") or environ.get("COMMBENCH_TRAIN_DEVICE") or "cpu"
    return Wish(word, device)


def starts_warm(asked: Wish, environ: Mapping[str, str]) -> bool:
    """Whether to start warm.

    `auto` does where a node has many ranks, and more than cores: then their imports wait for each
    other, and each has a copy of its own.

    Raises:
        CannotStartWarm: it was asked for, and cannot be.
    """
    if asked.word == "on":
        if reason := _obstacle(asked):
            raise CannotStartWarm(reason)
        return True
    if asked.word != "auto" or _obstacle(asked):
        return False
    return local_size(environ) > max(_MANY - 1, os.cpu_count() or 1)


def local_size(environ: Mapping[str, str]) -> int:
    """How many ranks the launcher started on this node; 1 where it does not tell."""
    for name in _LOCAL_SIZES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    tasks, node = environ.get("SLURM_STEP_TASKS_PER_NODE", ""), environ.get("SLURM_NODEID", "")
    if tasks and node.isdigit():
        return _slurm_tasks(tasks, int(node))
    return 1


def meeting_place(environ: Mapping[str, str]) -> str:
    """The name of the socket at which the ranks that may share an interpreter meet.

    They are those of one job on one node, of one user, of the same installation, with the same
    values of the variables that libraries read on loading. Its first character is NUL: Linux keeps
    such names in memory alone, and forgets them with their last socket.
    """
    read = sorted(
        (name, value) for name, value in environ.items() if name.startswith(_READ_ON_LOADING)
    )
    same = (sys.executable, sys.flags, __file__, read, job := _job(environ))
    digest = zlib.crc32(repr(same).encode(errors="surrogateescape"))
    # The end of a launcher's own name is what differs between its jobs.
    return f"\0commbench-{os.getuid()}-{job[-48:]}-{digest:08x}"


def _job(environ: Mapping[str, str]) -> str:
    """What only the ranks that one launcher started on this node have in common."""
    slurm = f"{environ.get('SLURM_JOB_ID', '')}.{environ.get('SLURM_STEP_ID', '')}"
    if namespace := environ.get("PMIX_NAMESPACE") or environ.get("PMI_JOBID"):
        return f"{slurm}-{namespace}"
    if environ.get("SLURM_STEP_ID"):
        return f"slurm-{slurm}"
    control = environ.get("HYDI_CONTROL_FD", "")
    if control.isdigit():
        try:
            return f"hydra-{os.fstat(int(control)).st_ino}"
        except OSError:
            pass
    return f"parent-{os.getppid()}"


def _obstacle(asked: Wish) -> str:
    """Why ranks cannot start warm here; "" where they can."""
    if not sys.platform.startswith("linux"):
        return f"{OPTION} on needs Linux, and this is {sys.platform}: use {OPTION} off"
    if asked.device != "cpu":
        return (
            f"{OPTION} on with --device {asked.device}: ranks that are forked start on CPUs only; "
            f"use {OPTION} off"
        )
    return ""


def _last(arguments: Sequence[str], option: str) -> str | None:
    """The value that an option was given last."""
    found = None
    for index, word in enumerate(arguments):
        if word == option and index + 1 < len(arguments):
            found = arguments[index + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _slurm_tasks(text: str, node: int) -> int:
    """The number for a node in Slurm's ``4(x2),3``: 4 for nodes 0 and 1, 3 for node 2."""
    for part in text.split(","):
        count, _, times = part.partition("(x")
        node -= int(times.rstrip(")") or 1)
        if node < 0:
            return int(count)
    return 1
