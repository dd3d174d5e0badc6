"""How an MPI library is started so that every rank is on an emulated host of its own, over TCP."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from commbench.emulation.layout import Layout, host_name
from commbench.errors import UserError

NETWORK = "10.77.0.0/16"

# A rank's own part of the machine: the network of its host, and its name.
_ENTER = """#!/bin/sh
host=h${PMI_RANK}
exec nsenter --net=/run/netns/$host unshare --uts sh -c 'hostname "$0" && exec "$@"' $host "$@"
"""
# What Open MPI's launcher runs in place of ssh: AGENT HOST COMMAND...
_AGENT = """#!/bin/sh
host=$1
shift
exec nsenter --net=/run/netns/$host unshare --uts \\
    sh -c 'hostname "$0" && exec sh -c "$*"' $host "$@"
"""

_MPICH = {
    # Ranks of one machine, and yet no two of a node: without this they would share memory.
    "MPIR_CVAR_NOLOCAL": "1",
    "MPIR_CVAR_CH4_NETMOD": "ucx",
    "UCX_TLS": "tcp,self",
    "UCX_NET_DEVICES": "eth0",
    # The other netmod, for libraries built without UCX.
    "FI_PROVIDER": "tcp",
    "FI_TCP_IFACE": "eth0",
}
_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "tcp,self",
    "OMPI_MCA_btl_tcp_if_include": NETWORK,
    # Only sends: with puts a rank that sends and receives does one after the other.
    "OMPI_MCA_btl_tcp_flags": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_threads_pthreads_yield_strategy": "nanosleep",
    "OMPI_MCA_threads_pthreads_nanosleep_time": "300000",
    "OMPI_MCA_osc": "^ucx",
    "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
    "PRTE_MCA_prte_if_include": NETWORK,
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def find_mpirun() -> tuple[str, str]:
    """The launcher of this installation, and its library: "MPICH" or "Open MPI".

    Raises:
        UserError: there is none, or it is another library's.
    """
    own = Path(sys.executable).parent / "mpirun"
    found = str(own) if own.exists() else shutil.which("mpirun")
    if not found:
        raise UserError("there is no mpirun beside this Python or in PATH: install MPICH's wheel")
    told = subprocess.run(
        [found, "--version"], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    if "HYDRA" in told or "mpich" in told.lower():
        return found, "MPICH"
    if "Open MPI" in told or "PRRTE" in told or "prte" in told.lower():
        return found, "Open MPI"
    raise UserError(f"{found} is neither MPICH's nor Open MPI's: emulate knows only these two")


def command(
    layout: Layout, mpirun: str, library: str, folder: Path, program: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """What starts a program on every host, and the variables that it needs.

    Args:
        layout: the cluster.
        mpirun: of `find_mpirun`.
        library: of `find_mpirun`.
        folder: for the scripts that ranks are started by.
        program: the program with its arguments.
    """
    ranks = ["-n", str(layout.hosts)]
    if library == "MPICH":
        enter = _script(folder / "enter", _ENTER)
        return [mpirun, "-launcher", "fork", "-hosts", "localhost", *ranks, enter, *program], _MPICH
    agent = _script(folder / "agent", _AGENT)
    names = ",".join(f"{host_name(host)}:1" for host in range(layout.hosts))
    mapped = ["--host", names, "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    reach = ["--prtemca", "plm_ssh_agent", agent]
    return [mpirun, *reach, *ranks, *mapped, *program], _OPEN_MPI


def _script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)
