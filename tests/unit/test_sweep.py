"""The sweep on one rank, in this process; tests/test_sweep_ranks.py runs it over several."""

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench.cli.sweep import Size
from commbench.errors import UserError
from commbench.inputs import blocks, fill, total
from commbench.sweep import step_sizes
from commbench.sweep_table import Row, name_width, table_footer, table_header, table_row
from commbench.turns import turn_order

COMMBENCH = str(Path(sys.executable).parent / "commbench")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4096", 4096), ("4K", 4096), ("1.5M", 1572864), ("2g", 2 << 30), ("8KiB", 8192)],
)
def test_sizes_are_1024_based(text: str, expected: int) -> None:
    assert Size().convert(text, None, None) == expected


def test_steps() -> None:
    assert step_sizes(4096, 32 << 20, 8, None) == [4096 * 8**k for k in range(5)]
    assert step_sizes(100, 400, None, 150) == [100, 250, 400]
    assert step_sizes(0, 4, 2, None) == [0, 1, 2, 4]
    assert step_sizes(7, 7, 2, None) == [7]
    with pytest.raises(UserError, match="--maxbytes 5 is less than --minbytes 6"):
        step_sizes(6, 5, 2, None)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("ranks", [1, 3, 128, 1000])
def test_inputs_differ_and_their_sums_are_exact(dtype: str, ranks: int) -> None:
    exact = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}[dtype]
    inputs = np.array([fill(3000, rank, ranks, dtype) for rank in range(ranks)])
    assert (inputs == inputs.round()).all()
    assert 0 < inputs.sum(axis=0).max() <= 1 << exact
    if ranks > 1:
        assert (inputs[0] != inputs[1]).any()
    assert len(set(inputs[0])) > 1


@pytest.mark.parametrize("candidates", [1, 2, 3, 5, 6])
def test_every_candidate_follows_every_other_equally_often(candidates: int) -> None:
    orders = [turn_order(turn, candidates) for turn in range(2 * candidates)]
    assert all(sorted(order) == list(range(candidates)) for order in orders)
    assert sorted(order[0] for order in orders) == sorted([*range(candidates)] * 2)
    followed = Counter(pair for order in orders for pair in pairwise(order))
    assert len(followed) == candidates * (candidates - 1)
    assert len(set(followed.values())) <= 1


def test_inputs_do_not_repeat_along_the_buffer() -> None:
    for dtype, ranks in (("float32", 4), ("bfloat16", 4), ("bfloat16", 200)):
        values = fill(8000, 0, ranks, dtype)
        lags = [lag for lag in range(1, 4001) if (values[:-lag] == values[lag:]).mean() > 0.6]
        assert lags == []


def test_inputs_and_their_sum_are_the_same_in_blocks() -> None:
    count = (1 << 21) + 5
    cuts = list(blocks(count))
    assert (cuts[0][0], cuts[-1][1]) == (0, count)
    assert all(left[1] == right[0] for left, right in pairwise(cuts))
    parts = [fill(stop - start, 1, 3, "float32", start) for start, stop in cuts]
    assert (np.concatenate(parts) == fill(count, 1, 3, "float32")).all()
    added = fill(1000, 0, 3, "float32", 77) + fill(1000, 2, 3, "float32", 77)
    assert (total(1000, [0, 2], 3, "float32", 77) == added).all()


def row(**changes: object) -> Row:
    times = {"min": 1.0, "median": 2.0, "p99": 3.0, "max": 4.0}
    values = {
        "exchange": "tree",
        "transport": "mpi",
        "size": 4096,
        "count": 1024,
        "dtype": "float32",
        "time_us": times,
        "alg_bw": 2.0,
        "bus_bw": 3.0,
        "link_bw": 4.0,
        "hottest_bytes": 8192.0,
        "bound_bytes": 6144.0,
        "wrong": 0,
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def test_the_table_tells_size_times_and_the_hottest_rank_beside_the_bound() -> None:
    cells = "4096 1024 float32 sum -1 tree 1.0 2.0 3.0 4.0 2.00 3.00 2.00 1.50 4.00 0"
    assert table_row(row()).split() == cells.split()
    unknown = row(exchange="native", hottest_bytes=math.nan, link_bw=math.nan, wrong=None)
    assert table_row(unknown).split()[-4:] == ["N/A", "1.50", "N/A", "N/A"]


def test_columns_line_up_whatever_the_names() -> None:
    names = ["tree", "native:32K:hierarchical@group=4@inner=tree@outer=ring:1M:ring@segments=4"]
    width = name_width(names)
    lines = [*table_header({}, width)][1:] + [
        table_row(row(exchange=name), width) for name in names
    ]
    assert len({len(line) for line in lines}) == 1
    assert len({line.index("1.0  ") for line in lines[2:]}) == 1
    assert lines[0].index("min") + len("min") == lines[2].index("1.0 ") + len("1.0")
    assert name_width(["tree"]) == 24


def test_the_footer_counts_wrong_values_and_leaves_the_floor_out_of_the_average() -> None:
    floor = row(exchange="none", alg_bw=math.nan, bus_bw=math.nan, wrong=None)
    good, bad = row(bus_bw=1.0), row(bus_bw=2.0, wrong=7)
    assert list(table_footer([floor, good])) == [
        "# Out of bounds values : 0 OK",
        "# Avg bus bandwidth    : 1.0000",
    ]
    assert list(table_footer([floor, good, bad])) == [
        "# Out of bounds values : 7 FAILED",
        "# Avg bus bandwidth    : 1.5000",
    ]
    assert "not checked" in next(table_footer([floor]))


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [COMMBENCH, "sweep", "-b", "8", "-e", "64", "-n", "3", "-w", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_files_hold_what_the_table_tells(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("sweep.h5", "sweep.json", "sweep.csv")]
    output, json_file, csv_file = map(str, paths)
    result = run("-c", "--output", output, "--json", json_file, "--csv", csv_file)
    assert result.returncode == 0, result.stderr
    document = json.loads(paths[1].read_text())
    assert set(document) == {"version", "start_time", "args", "env", "ranks", "results"}
    first = document["results"][0]
    assert set(first["time_us"]) == {"min", "median", "p99", "max"}
    assert {"exchange", "transport", "size", "count", "dtype", "alg_bw", "bus_bw", "wrong"} < set(
        first
    )
    with paths[2].open() as file:
        lines = list(csv.DictReader(file))
    table = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    assert len(table) == len(lines) == len(document["results"])
    with h5py.File(paths[0]) as file:
        samples = file["sweep/seconds"][:]
        names = file["sweep/exchange"].asstr()[:].tolist()
        assert file.attrs["status"] == "completed"
    assert np.isfinite(samples).all()
    for line, found in zip(lines, document["results"], strict=True):
        size = [8, 16, 32, 64].index(found["size"])
        slowest = samples[size, names.index(found["exchange"])].max(axis=1)
        assert float(line["time_us_median"]) == pytest.approx(1e6 * np.median(slowest))
        assert found["time_us"]["max"] == pytest.approx(1e6 * slowest.max())


def test_json_on_standard_output_is_alone_there(tmp_path: Path) -> None:
    result = run("--json", "-", "--output", str(tmp_path / "sweep.h5"), "--exchange", "tree")
    assert json.loads(result.stdout)["results"][0]["wrong"] is None
    assert "# Avg bus bandwidth" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-b", "4X"], "'4X' is not a size"),
        (["-e", "4"], "--maxbytes 4 is less than --minbytes 8"),
        (["-n", "0"], "0 is not in the range"),
        (["-d", "int8"], "no element type 'int8'"),
        (["--exchange", "star"], "no exchange 'star'"),
        (["--json", "/nowhere/sweep.json"], "no folder /nowhere"),
        (["--transport", "carrier-pigeon"], "carrier-pigeon"),
        (["-i", "0"], "--stepbytes 0 leads nowhere"),
        (["--json", "/tmp"], "it is a folder"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path, options: list[str], told: str
) -> None:
    result = run("--output", str(tmp_path / "sweep.h5"), *options)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
