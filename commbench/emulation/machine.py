"""Namespaces of a process's own, and of all it starts: they end with it, whatever ends it.

The emulated cluster lives in new PID, mount, network, IPC and UTS namespaces. Their first process
dies when the command dies (Linux's parent-death signal), and with the first process of a PID
namespace the kernel kills all others in it. Nothing then holds the namespaces any more, so the
kernel frees links, names, mounts and shared memory. Nothing outside could even see them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from commbench.errors import UserError

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
_PR_SET_PDEATHSIG = 1
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_WITHOUT = "mpirun commbench sweep --transport emulated --link RATE,LATENCY needs no privileges"
_TRIAL = (
    "ip link add v0 type veth peer name v1 && "
    "tc qdisc add dev v0 root tbf rate 1mbit burst 16kb limit 1mb"
)
_UNSHARE = ("unshare", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount-proc")
_UNSHARED = (*_UNSHARE, "--propagation", "private", "--kill-child=SIGKILL")
_ENDS_WITHIN_S = 10.0


def why_not() -> str:
    """Why this process cannot emulate a cluster here; "" where it can."""
    if not sys.platform.startswith("linux"):
        return f"this is {sys.platform}, and network namespaces are Linux's"
    missing = [name for name in _TOOLS if not shutil.which(name)]
    if missing:
        packages = sorted({_TOOLS[name] for name in missing})
        return f"there is no {', '.join(missing)} here (packages {', '.join(packages)})"
    capabilities = _capabilities()
    if not capabilities >> _CAP_NET_ADMIN & 1 or not capabilities >> _CAP_SYS_ADMIN & 1:
        return "this process lacks CAP_NET_ADMIN or CAP_SYS_ADMIN (root has them)"
    trial = subprocess.run(
        [*_UNSHARED, "sh", "-c", _TRIAL], capture_output=True, text=True, check=False, timeout=60
    )
    if trial.returncode:
        told = " ".join(trial.stderr.split()) or f"exit status {trial.returncode}"
        return f"namespaces with shaped links cannot be made here ({told})"
    return ""


def require() -> None:
    """Refuse where clusters cannot be emulated.

    Raises:
        UserError: says why, and which way needs no privileges.
    """
    reason = why_not()
    if reason:
        raise UserError(f"commbench emulate cannot run: {reason}; {_WITHOUT}")


def run_inside(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command as the first process of new namespaces; its exit status.

    Whatever it started is gone when this returns or raises, and when this process is killed.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it has died already
            os._exit(1)

    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        # The command line has no threads that could hold a lock here.
        process = subprocess.Popen(
            [*_UNSHARED, *command],
            env=dict(environ),
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()  # and so, through --kill-child, all that is inside
                process.wait(_ENDS_WITHIN_S)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
