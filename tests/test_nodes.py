"""`--group node`, where MPICH can be told to take one machine for several nodes."""

import json
import sys
from pathlib import Path

import h5py
import pytest

from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120
RANKS = 7
DEALT_OUT = {"MPIR_CVAR_NUM_CLIQUES": "2"}
BLOCKS = {**DEALT_OUT, "MPIR_CVAR_CLIQUES_BY_BLOCK": "1"}
ALONE = {"MPIR_CVAR_NOLOCAL": "1"}


CLOCKS = """
from commbench.clocks import clock_offset
from commbench.job import mpi_job

with mpi_job(60) as job:
    told = job.all_gather_text(str(clock_offset(job)))
    if job.rank == 0:
        print(*told)
"""


def test_nodes_compare_their_clocks() -> None:
    # Here they are one machine, so what they find is the error of the comparison.
    told = mpirun(4, [sys.executable, "-c", CLOCKS], TIMEOUT_S, env=DEALT_OUT).stdout
    offsets = [float(word) for word in told.split()]
    assert len(offsets) == 4
    assert all(abs(offset) < 0.1 for offset in offsets)


@pytest.mark.parametrize(
    ("placement", "group"),
    [({}, "7"), (BLOCKS, "4"), (DEALT_OUT, "0+2+4+6/1+3+5"), (ALONE, "1")],
    ids=["one node", "blocks", "dealt out", "a node each"],
)
def test_a_sweep_by_node(tmp_path: Path, placement: dict[str, str], group: str) -> None:
    output = tmp_path / "sweep.h5"
    specs = "hierarchical,hierarchical@inner=parameter-server@outer=double-tree"
    options = ["--exchange", specs, "--group", "node", "-b", "4K", "-e", "4K", "-n", "2", "-c"]
    command = [COMMBENCH, "sweep", *options, "--json", "-", "--output", str(output)]
    rows = json.loads(mpirun(RANKS, command, TIMEOUT_S, env=placement).stdout)["results"]
    assert [row["wrong"] for row in rows] == [0, 0]
    with h5py.File(output) as run:
        expected = group if run.attrs["mpi_library"].startswith("MPICH") else "7"
        names = run["sweep/exchange"].asstr()[:].tolist()
    # What is recorded can be verified anywhere.
    more = "@inner=parameter-server@outer=double-tree"
    assert names == [f"hierarchical@group={expected}", f"hierarchical@group={expected}{more}"]
    mpirun(1, [COMMBENCH, "verify", "--exchange", ",".join(names), "--ranks", "7"], TIMEOUT_S)


def test_training_by_node(tmp_path: Path) -> None:
    output = tmp_path / "train.h5"
    options = ["--data", "synthetic", "--image-size", "39", "--batch", "8", "--steps", "1"]
    command = [COMMBENCH, "train", *options, "--exchange", "hierarchical", "--group", "node"]
    mpirun(4, [*command, "--output", str(output)], TIMEOUT_S, env=DEALT_OUT)
    with h5py.File(output) as run:
        expected = "0+2/1+3" if run.attrs["mpi_library"].startswith("MPICH") else "4"
        assert run.attrs["exchange"] == f"hierarchical@group={expected}"
        assert set(run["exchange/algorithm"].asstr()) == {run.attrs["exchange"]}
        assert "--group node" in run.attrs["command_line"]
