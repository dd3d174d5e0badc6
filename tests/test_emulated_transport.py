"""`--transport emulated --link`: what slow links make of a sweep and a training, by mpirun."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120
NBYTES, RATE_BYTES_PER_S, LATENCY_S = 256 << 10, 50e6 / 8, 2e-3

# Rank 1 takes what rank 0 sends first only after rank 2 has had what rank 0 sends next.
CROSSED = """
from commbench.arrays import NumpyArrays, element_type
from commbench.exchange import Exchange
from commbench.job import mpi_job
from commbench.schedule import WHOLE, Recv, Round, Schedule, Send
from commbench.transport import open_transport
with mpi_job(60) as job:
    transport = open_transport("mpi", job, NumpyArrays(element_type("float32")))
    buffer = transport.allocate(3 << 20)
    buffer[:] = 1 + job.rank
    plans = [
        [Round((Send(WHOLE, 1), Send(WHOLE, 2)))],
        [Round((Recv(WHOLE, 2),)), Round((Recv(WHOLE, 0),))],
        [Round((Recv(WHOLE, 0),)), Round((Send(WHOLE, 1),))],
    ]
    Exchange(Schedule(tuple(plans[job.rank])), buffer, transport, timeout_s=60).run()
    assert (buffer == [1, 2 + (3 + 1) + 1, 3 + 1][job.rank]).all()
"""


def test_sends_in_turn_do_not_wait_for_each_other_for_ever() -> None:
    in_turn = {"COMMBENCH_SEND_IN_TURN_S": "0.05", "COMMBENCH_LONGEST_SLEEP_S": "0.001"}
    mpirun(3, [sys.executable, "-c", CROSSED], TIMEOUT_S, env=in_turn)


def test_no_exchange_is_faster_than_its_links(tmp_path: Path) -> None:
    output, ranks = tmp_path / "sweep.h5", 4
    link = ["--transport", "emulated", "--link", "50mbit,2ms"]
    sizes = ["-b", str(NBYTES), "-e", str(NBYTES), "-n", "3", "-w", "1", "-c", "--json", "-"]
    specs = ["--exchange", "none,parameter-server,tree,ring"]
    command = [COMMBENCH, "sweep", *specs, *link, *sizes, "--output", str(output)]
    rows = json.loads(mpirun(ranks, command, TIMEOUT_S).stdout)["results"]
    assert [row["wrong"] for row in rows[1:]] == [0, 0, 0]
    assert {row["transport"] for row in rows} == {"emulated(shared-memory)"}
    buffer_s = NBYTES / RATE_BYTES_PER_S
    theory_s = [
        6 * buffer_s + 2 * LATENCY_S,
        4 * buffer_s + 4 * LATENCY_S,
        1.5 * buffer_s + 6 * LATENCY_S,
    ]
    with h5py.File(output) as file:
        assert file.attrs["transport"] == "emulated(shared-memory)"
        assert file.attrs["option_transport"] == "emulated@50mbit,2ms"
        seconds = np.max(file["sweep/seconds"][0], axis=2)
    # Ranks leave the barrier before an exchange one after the other; else this would be exact.
    assert (seconds[1:] > 0.9 * np.array(theory_s)[:, None]).all()


def test_a_training_waits_for_its_links(tmp_path: Path) -> None:
    output = tmp_path / "train.h5"
    data = ["--data", "synthetic", "--image-size", "39", "--width", "0.25", "--batch", "4"]
    link = ["--transport", "emulated", "--link", "200mbit,100us", "--no-overlap"]
    command = [COMMBENCH, "train", *data, *link, "--exchange", "ring", "--steps", "2"]
    mpirun(2, [*command, "--output", str(output)], TIMEOUT_S)
    with h5py.File(output) as file:
        assert file.attrs["transport"] == "emulated(shared-memory)"
        phases = list(file["timing/phase"].asstr())
        exchange = file["timing/seconds"][:, :, phases.index("exchange")]
        # A ring of two ranks: each sends the gradient once, and receives it once.
        assert (exchange.max(axis=1) > 0.9 * file.attrs["gradient_bytes"] / (200e6 / 8)).all()


def test_the_librarys_own_all_reduce_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "sweep.h5"
    options = ["--exchange", "tree,native", "--transport", "emulated", "--link", "1gbit"]
    command = [COMMBENCH, "sweep", "-b", "4K", "-e", "4K", *options, "--output", str(output)]
    result = mpirun(2, command, TIMEOUT_S, check=False)
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if "commbench: error:" in line]
    assert len(told) == 1
    assert "leave out native" in told[0]
    assert not output.exists()
