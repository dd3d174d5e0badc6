"""The line through measurements, and the cluster's file that is made of it."""

from pathlib import Path

import numpy as np
import pytest

from commbench.calibrate import Calibration, Line, fit_line, swaps
from commbench.cli.calibrate import document
from commbench.matching import match
from commbench.network.cluster import load_cluster

SIZES = 64.0 * 4.0 ** np.arange(10)


def test_a_line_is_found_again() -> None:
    line = fit_line(SIZES, 3e-6 + SIZES / 2e9)
    assert line.latency_s == pytest.approx(3e-6, rel=1e-3)
    assert line.bandwidth == pytest.approx(2e9, rel=1e-3)
    assert np.abs(line.deviations).max() < 1e-3


def test_a_few_sizes_do_not_bend_it() -> None:
    seconds = 3e-6 + SIZES / 2e9
    seconds[[0, 4, 9]] *= [3, 2, 0.6]
    line = fit_line(SIZES, seconds)
    assert line.latency_s == pytest.approx(3e-6, rel=0.05)
    assert line.bandwidth == pytest.approx(2e9, rel=0.05)
    assert line.deviations[0] == pytest.approx(2, rel=0.1)


def test_noise_gives_no_negative_numbers() -> None:
    line = fit_line(SIZES[:4], np.array([4.0, 3.0, 2.0, 1.0]))
    assert line.latency_s >= 1.0
    assert line.bandwidth == SIZES[3] / 1.0


def test_ranks_swap_and_no_message_overtakes() -> None:
    schedules = [swaps(rank, 2) for rank in range(4)]
    assert [len(schedule.rounds) for schedule in schedules] == [8, 0, 8, 0]
    match(schedules)


def test_the_file_is_read_back(tmp_path: Path) -> None:
    near = Line(1.25e-6, 8e9, SIZES, 1.25e-6 + SIZES / 8e9)
    far = Line(2e-5, 1.25e9, SIZES, (2e-5 + SIZES / 1.25e9) * 1.5)
    facts = {"host": 'a "b" \\ c', "transport": "mpi", "date": "2026-01-01"}
    path = tmp_path / "found.toml"
    path.write_text(document(Calibration(near, far, 5e9, 4, 2), facts))
    cluster = load_cluster(str(path))
    assert cluster.ranks_per_node == 4
    assert (cluster.inside.latency_s, cluster.inside.bandwidth) == (1.25e-6, 8e9)
    assert (cluster.between.latency_s, cluster.between.bandwidth) == (2e-5, 1.25e9)
    assert cluster.reduce_rate == 5e9
    assert cluster.most_ranks is None
    assert cluster.calibration["host"] == 'a "b" \\ c'
    assert "50.0% in the median" in cluster.calibration["between_fit"]
    path.write_text(document(Calibration(near, None, 5e9, 4, 1), facts))
    assert load_cluster(str(path)).most_ranks == 4
