"""Which transports GPU buffers can take here, why not the others, and the best of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from commbench.errors import UserError
from commbench.transport import GPU_TRANSPORTS

if TYPE_CHECKING:
    from commbench.arrays import Arrays
    from commbench.job import Job
    from commbench.transport import Transport
    from commbench.transport.device import Device
    from commbench.transport.mpi import MPITransport

_ASK_S = 30.0


def open_gpu_transport(
    name: str,
    job: Job,
    arrays: Arrays,
    device: Device,
    *,
    library_only: bool = False,
    rounds: bool = True,
) -> Transport:
    """Open a transport of GPU buffers by name over all ranks of the job; collective.

    ``auto`` takes `cuda-ipc` where all ranks are on one node, else `nccl`, else `cuda-ipc` within
    nodes, else `cuda-aware`, else `staged`: the first that can be had.

    Raises:
        UserError: on every rank; says which rank cannot use it, and why.
    """
    if name == "nccl" and not rounds:
        raise UserError(
            "--transport nccl moves messages in rounds only: for ps-async use cuda-ipc, cuda-aware "
            "or staged"
        )
    if name != "auto":
        why = obstacle(name, job, device)
        if why:
            raise UserError(f"--transport {name} cannot be used here: {why}; use auto or staged")
        return _open(name, job, arrays, device)
    for candidate in _preferred(job, library_only=library_only, rounds=rounds):
        if not obstacle(candidate, job, device):
            return _open(candidate, job, arrays, device)
    raise AssertionError("staged works with every MPI")


def obstacle(name: str, job: Job, device: Device) -> str:
    """Why the job cannot use a transport, of the lowest rank that cannot; collective.

    The same on every rank; empty if all can.
    """
    checks: dict[str, Callable[[], str]] = {
        "cuda-ipc": lambda: _ipc_obstacle(job, device),
        "nccl": lambda: _nccl_obstacle(job, device),
        "cuda-aware": _cuda_aware_obstacle,
        "staged": lambda: "",
    }
    for rank, why in enumerate(job.all_gather_text(checks[name]())):
        if why:
            return f"rank {rank}: {why}"
    return ""


def _preferred(job: Job, *, library_only: bool, rounds: bool) -> list[str]:
    order = [name for name in GPU_TRANSPORTS if rounds or name != "nccl"]
    nodes = job.nodes()
    if library_only:
        # Its all-reduce would be staged.
        order.remove("cuda-ipc")
    elif len(set(nodes)) == len(nodes) > 1:
        # No two ranks share a node.
        order.remove("cuda-ipc")
    elif len(set(nodes)) > 1:
        order.remove("cuda-ipc")
        order.insert(order.index("cuda-aware"), "cuda-ipc")
    return order


def _open(name: str, job: Job, arrays: Arrays, device: Device) -> Transport:
    if name == "nccl":
        from commbench.transport.nccl import CupyNccl, NcclTransport

        return NcclTransport(job, arrays, device, CupyNccl(job, arrays))
    if name == "cuda-ipc":
        from commbench.transport.cuda_ipc import CudaIpcTransport

        return CudaIpcTransport(job, arrays, device, far=_open_mpi(job, arrays, device))
    if name == "cuda-aware":
        from commbench.transport.cuda_aware import CudaAwareTransport

        return CudaAwareTransport(job, arrays, device)
    from commbench.transport.staged import StagedTransport

    return StagedTransport(job, arrays, device)


def _open_mpi(job: Job, arrays: Arrays, device: Device) -> MPITransport:
    """The best of those that go through MPI."""
    from commbench.transport.cuda_aware import CudaAwareTransport
    from commbench.transport.staged import StagedTransport

    if obstacle("cuda-aware", job, device):
        return StagedTransport(job, arrays, device)
    return CudaAwareTransport(job, arrays, device)


def _ipc_obstacle(job: Job, device: Device) -> str:
    from commbench.transport.cuda_ipc import why_not

    with job.watchdog.guard(f"rank {job.rank} waits for its node to try CUDA IPC"):
        return why_not(job, device)


def _nccl_obstacle(job: Job, device: Device) -> str:
    from commbench.transport.nccl import why_not

    gpus = job.all_gather_text(f"{job.host} {device.identity}")
    return why_not(gpus, job.rank)


def _cuda_aware_obstacle() -> str:
    from commbench.transport.cuda_aware import why_not

    return why_not()


def missing() -> dict[str, str]:
    """For each transport of GPU buffers what this installation lacks for it; "" for nothing.

    What depends on a job's ranks, whether they share a GPU for one, is found out when it starts.
    MPI is asked in a process of its own, which starts it for that.
    """
    from commbench.arrays import gpu_count
    from commbench.transport.nccl import library_missing

    if gpu_count() == 0:
        return dict.fromkeys(GPU_TRANSPORTS, "CuPy finds no CUDA device here")
    return {
        "cuda-ipc": "",
        "nccl": library_missing(),
        "cuda-aware": _ask_mpi(),
        "staged": "",
    }


def _ask_mpi() -> str:
    question = "from commbench.transport.cuda_aware import why_not; print(why_not())"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", question],
            capture_output=True,
            text=True,
            check=True,
            timeout=_ASK_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"MPI cannot be asked: {error}"
    return answer.stdout.strip()
