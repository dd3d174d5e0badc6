"""A job that is killed leaves nothing behind: it had no chance to clean up."""

import sys
from pathlib import Path

from mpirun import mpirun

TIMEOUT_S = 60
# A gradient has gone round by every transport, then all ranks die at once.
KILLED = """
import os, signal
import numpy as np
from commbench.arrays import NumpyArrays, element_type
from commbench.exchange import Exchange
from commbench.job import mpi_job
from commbench.registry import parse_exchange
from commbench.transport import open_transport
with mpi_job(30) as job:
    for name in ("mpi", "shared-memory"):
        transport = open_transport(name, job, NumpyArrays(element_type("float32")))
        for spec in ("native", "ring"):
            buffer = transport.allocate(1 << 20)
            buffer[:] = 1
            schedule = parse_exchange(spec).schedule(job.rank, job.size)
            Exchange(schedule, buffer, transport).run()
            assert (buffer == job.size).all()
    lines = open("/proc/self/maps").read().splitlines()
    print("mapped", *{line.split()[5] for line in lines if "/dev/shm/" in line}, flush=True)
    job.barrier()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_shared_memory_keeps_its_name() -> None:
    result = mpirun(3, [sys.executable, "-c", KILLED], TIMEOUT_S, check=False)
    assert result.returncode != 0
    mapped = {name for line in result.stdout.splitlines() for name in line.split()[1:]}
    assert mapped, result.stdout + result.stderr
    assert [name for name in mapped if Path(name).exists()] == []
