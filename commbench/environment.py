"""What a result depends on besides its options: versions, libraries, machine, environment."""

import os
import platform
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import commbench

_PACKAGES = ("numpy", "mpi4py", "torch", "h5py", "ml_dtypes", "mpich", "openmpi", "impi-rt")
_CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x")  # one library under several names
_PREFIXES = (
    *("MPIR_", "MPICH_", "OMPI_MCA_", "PRTE_MCA_", "PMIX_MCA_", "I_MPI_"),
    *("UCX_", "FI_", "NCCL_", "SLURM_JOB_"),
    *("COMMBENCH_EMULATED", "COMMBENCH_LONGEST_SLEEP_S", "COMMBENCH_SEND_IN_TURN_S"),
    "COMMBENCH_COMPILED",
)
_NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def versions() -> dict[str, str]:
    """Versions of commbench, Python and the packages beneath, those installed; imports none."""
    found = {"commbench": commbench.__version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *_CUPY):
        try:
            found["cupy" if package in _CUPY else package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def mpi_library() -> str:
    """Name and version of the MPI library, such as "MPICH 5.0.2".

    Imports mpi4py.MPI, which starts MPI unless `mpi4py.rc.initialize` was set to False before.

    Raises:
        ImportError, RuntimeError: mpi4py finds no MPI library.
    """
    from mpi4py import MPI

    name, numbers = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, numbers))}"


def git_revision() -> str | None:
    """The commit commbench runs from, with "-dirty" if changed since; None outside a checkout."""
    root = Path(commbench.__file__).parent.parent
    if not (root / ".git").exists():  # an installed package may lie inside someone else's checkout
        return None
    try:
        result = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--exclude=*",
            ],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def cpu_model() -> str:
    """The processor's name; where the kernel does not tell it, the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """The number of hardware threads this process may use."""
    return len(os.sched_getaffinity(0))


def compiled() -> str:
    """Whether exchanges on the CPU are compiled: "yes", or "no" and why."""
    from commbench.transport.compiled import SWITCH, library

    if os.environ.get(SWITCH) == "0":
        return f"no: {SWITCH}=0"
    return "yes" if library() else "no: there was no C compiler when commbench was installed"


def devices() -> list[str]:
    """The CUDA devices' names as CuPy sees them; empty without CuPy, driver or device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns about a CUDA that it cannot find
        try:
            from cupy.cuda import runtime

            count = runtime.getDeviceCount()
            return [runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
        except (ImportError, RuntimeError):  # CUDARuntimeError is a RuntimeError
            return []


def variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that steer MPI, its networks, NCCL and the thread counts."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(_PREFIXES) or name in _NAMES
    }


def facts() -> dict[str, str | int]:
    """All of the above that a run file stores as root attributes, in this process's words.

    The MPI library is "" unless this process has already loaded one: a record starts no MPI.
    """
    return {
        "host": host(),
        "cpu_model": cpu_model(),
        "cpu_count": cpu_count(),
        "git_revision": git_revision() or "",
        "compiled": compiled(),
        "mpi_library": mpi_library() if "mpi4py.MPI" in sys.modules else "",
        **{f"version_{name}": text for name, text in versions().items() if name != "commbench"},
        **{f"env_{name}": value for name, value in variables().items()},
    }
