"""Ranks that measure a cluster, and others that are held against one."""

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


def test_what_is_predicted_stands_below_what_was_measured(tmp_path: Path) -> None:
    common = ["--results", str(tmp_path), "--cluster", "ethernet-10g"]
    options = ["--exchange", "ring,tree", "-b", "4K", "-e", "4K", "-n", "2", "-w", "1"]
    told = mpirun(2, [COMMBENCH, "sweep", *options, *common], TIMEOUT_S).stdout
    assert "# predicted on ethernet-10g" in told
    assert told.splitlines()[-1].split()[:2] == ["4096", "tree"]
    options = ["--classes", "10", "--width", "0.1", "--batch", "4", "--steps", "2"]
    told = mpirun(2, [COMMBENCH, "train", *options, *common], TIMEOUT_S).stdout
    assert "predicted on ethernet-10g: forward, backward and exchange in" in told
    result = mpirun(2, [COMMBENCH, "sweep", "--cluster", "x"], TIMEOUT_S, check=False)
    assert result.returncode != 0
    assert "unknown cluster 'x'" in result.stderr
