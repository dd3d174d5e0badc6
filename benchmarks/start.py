"""Time and memory that many ranks on one node need to start, cold and warm in turn.

    python -m benchmarks.start --ranks 8,32 --turns 3 -- --exchange tree

runs `mpirun -n P commbench train --steps 5 ...` of the running environment, and prints for each the
seconds from mpirun to the first training step, to its end and to the end of the job, the processor
seconds of all processes until the first step, and the peak of their memory: the sum of proportional
set sizes, in which a page that several have is counted once. Memory is read twenty times slower
than it is looked at, for reading it takes a processor's time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

_MARK = "COMMBENCH_BENCHMARK_JOB"
_LIMIT_S = 900.0


@dataclass
class Start:
    """What one run took; NaN where it did not come to it."""

    first_step_s: float = np.nan
    first_step_done_s: float = np.nan
    end_s: float = np.nan
    processor_s: float = np.nan
    peak_gib: float = 0.0
    status: int = -1


def measure(ranks: int, word: str, options: list[str]) -> Start:
    """Run once, cold or warm."""
    mark = uuid.uuid4().hex
    binaries = Path(sys.executable).parent
    found = Start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        command = [str(binaries / "mpirun"), "-n", str(ranks), str(binaries / "commbench"), "train"]
        command += ["--steps", "5", "--progress", "none", "--output", str(path), *options]
        environ = {**os.environ, _MARK: mark, "COMMBENCH_TRAIN_WARM_START": word}
        began = time.monotonic()
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
        look_again = 0.0
        while process.poll() is None:
            now = time.monotonic() - began
            if now > _LIMIT_S:
                process.terminate()
            if np.isnan(found.first_step_s) and path.exists():
                found.first_step_s, found.processor_s = now, processor_seconds(mark)
            elif np.isnan(found.first_step_done_s) and path.exists() and done(path):
                found.first_step_done_s = now
            if now > look_again:
                found.peak_gib = max(found.peak_gib, memory_gib(mark))
                look_again = now + 20 * (time.monotonic() - began - now)
            time.sleep(0.05)
        found.end_s = time.monotonic() - began
        found.status = process.returncode
    return found


def done(path: Path) -> bool:
    """Whether the run file has the first step of rank 0."""
    with h5py.File(path) as file:
        return bool(np.isfinite(file["steps/images_per_s"][0]))


def processes(mark: str) -> list[Path]:
    """The folders in /proc of a run's processes."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes():
                    found.append(entry)
            except OSError:
                continue
    return found


def processor_seconds(mark: str) -> float:
    """What they have used so far, with their children that have ended."""
    ticks = 0
    for entry in processes(mark):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_gib(mark: str) -> float:
    """The sum of their proportional set sizes."""
    kib = 0
    for entry in processes(mark):
        try:
            lines = (entry / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 2**20


def main() -> None:
    """Measure and print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="8,32")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--start", default="off,on", help="which of off and on, in this order")
    parser.add_argument("options", nargs="*", help="of commbench train, after --")
    given = parser.parse_args()
    print("ranks  warm  first step s  its end s  job s  processor s  peak GiB  status", flush=True)
    for _ in range(given.turns):
        for ranks in map(int, given.ranks.split(",")):
            for word in given.start.split(","):
                one = measure(ranks, word, given.options)
                print(
                    f"{ranks:5d}  {word:>4}  {one.first_step_s:12.1f}  {one.first_step_done_s:9.1f}"
                    f"  {one.end_s:5.1f}  {one.processor_s:11.1f}  {one.peak_gib:8.2f}"
                    f"  {one.status:6d}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
