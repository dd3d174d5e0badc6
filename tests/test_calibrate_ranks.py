"""`mpirun -n 2 commbench calibrate`: a cluster's file, and none in place of another."""

import sys
from pathlib import Path

from commbench.network.cluster import load_cluster
from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 60


def test_two_ranks_measure_and_refuse_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    command = [COMMBENCH, "calibrate", "-o", str(path), "-n", "2", "-e", "4K"]
    mpirun(2, command, TIMEOUT_S)
    cluster = load_cluster(str(path))
    assert cluster.most_ranks == 2
    assert "inside_fit" in cluster.calibration
    result = mpirun(2, command, TIMEOUT_S, check=False)
    assert result.returncode != 0
    assert "the file exists" in result.stderr
