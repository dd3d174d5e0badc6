"""`mpirun -n P commbench sweep`: every exchange and element type, checked; and wrong sums found."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120

# A rank whose sums are off by one element, as a broken transport would make them.
CORRUPT = """
import sys
from commbench import exchange
from commbench.cli import main
run = exchange.Exchange.run
def corrupt(self):
    run(self)
    if self._rank == 1 and len(self._wire) > 2:
        self._wire[2] += 1
exchange.Exchange.run = corrupt
sys.argv = ["commbench", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("transport", ["mpi", "shared-memory"])
def test_every_exchange_and_element_type(tmp_path: Path, ranks: int, transport: str) -> None:
    for dtype in ("float32", "bfloat16"):
        output = tmp_path / f"{dtype}.h5"
        options = ["-b", "0", "-e", "9000", "-i", "3000", "-n", "2", "-w", "1", "-c", "-d", dtype]
        command = [COMMBENCH, "sweep", *options, "--transport", transport, "--json", "-"]
        result = mpirun(ranks, [*command, "--output", str(output)], TIMEOUT_S)
        rows = json.loads(result.stdout)["results"]
        assert {row["size"] for row in rows} == {0, 3000, 6000, 9000}
        assert all(row["wrong"] == 0 for row in rows if row["exchange"] != "none")
        libraries = [row["transport"] for row in rows if row["exchange"] == "native"]
        assert set(libraries) == {"mpi"}
        assert all(row["transport"] == transport for row in rows if row["exchange"] != "native")
        with h5py.File(output) as file:
            assert file["sweep/seconds"].shape == (4, len(rows) // 4, 2, ranks)


def test_a_dedicated_server_is_not_asked_for_the_sum(tmp_path: Path) -> None:
    options = ["-b", "4K", "-e", "4K", "-n", "2", "-c", "--json", "-", "--server", "dedicated"]
    command = [COMMBENCH, "sweep", "--exchange", "parameter-server,tree", *options]
    result = mpirun(3, [*command, "--output", str(tmp_path / "sweep.h5")], TIMEOUT_S)
    rows = json.loads(result.stdout)["results"]
    assert [row["exchange"] for row in rows] == ["parameter-server@server=dedicated", "tree"]
    assert [row["wrong"] for row in rows] == [0, 0]


# Of 4 workers, or of 3 and a server.
@pytest.mark.parametrize("options", [[], ["--server", "dedicated"]])
@pytest.mark.parametrize("wire", ["float16", "topk:0.01", "powersgd:1000"])
def test_gradients_in_another_form(tmp_path: Path, options: list[str], wire: str) -> None:
    output, count = tmp_path / "sweep.h5", 2500
    sizes = ["-b", str(4 * count), "-e", str(4 * count), "-n", "2", "-w", "1", "--wire", wire]
    command = [COMMBENCH, "sweep", "--exchange", "parameter-server", *sizes, *options]
    result = mpirun(4, [*command, "--json", "-", "--output", str(output)], TIMEOUT_S)
    (row,) = json.loads(result.stdout)["results"]
    workers = range(len(options) // 2, 4)
    own = [np.random.default_rng(one).normal(size=count).astype(np.float32) for one in workers]
    exact = np.sum(own, axis=0, dtype=np.float64)
    found = exact
    if wire.startswith("topk"):
        kept = [np.where(abs(one) >= np.sort(abs(one))[-25], one, 0) for one in own]
        found = np.sum(kept, axis=0)
    elif wire == "float16":
        found = np.sum([one.astype(np.float16) for one in own], axis=0, dtype=np.float64)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    # Sums are rounded too, and matrices of full rank travel whole.
    assert row["error"] == pytest.approx(error, rel=0.5 if wire == "float16" else 1e-5, abs=1e-7)
    moved = {"float16": 2 * count, "topk:0.01": 8 * 25 * len(workers), "powersgd:1000": 4 * count}
    busiest = 3 * moved[wire]
    if wire.startswith("topk"):
        # The server brings every worker what it lacks, and has a slot itself or not.
        busiest = 3 * 200 * (len(workers) - 1)
    assert row["hottest_bytes"] == busiest
    assert (row["wire"], row["wrong"]) == (wire, None)
    with h5py.File(output) as file:
        assert file["sweep/error"][0, 0] == row["error"]
        assert file.attrs["option_wire"] == wire


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--wire", "float16", "--check"], "leave out --datatype and --check"),
        (["--wire", "topk:0.1", "-d", "half"], "leave out --datatype and --check"),
        (["--wire", "topk:0.1", "--exchange", "tree,native"], "take the sums apart"),
    ],
)
def test_what_cannot_be_swept_is_refused(tmp_path: Path, options: list[str], why: str) -> None:
    output = tmp_path / "sweep.h5"
    command = [COMMBENCH, "sweep", "-e", "4K", *options, "--output", str(output)]
    result = mpirun(2, command, TIMEOUT_S, check=False)
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if "commbench: error:" in line]
    assert why in errors[0]
    assert "Traceback" not in result.stderr
    assert not output.exists()


def test_wrong_sums_are_counted_and_fail_the_job(tmp_path: Path) -> None:
    options = ["--exchange", "tree,none", "-b", "64", "-e", "64", "-n", "3", "-w", "0", "-c"]
    output = tmp_path / "sweep.h5"
    command = [sys.executable, "-c", CORRUPT, "sweep", *options, "--output", str(output)]
    result = mpirun(2, command, TIMEOUT_S, check=False)
    assert result.returncode == 1
    assert "# Out of bounds values : 3 FAILED" in result.stdout
    with h5py.File(output) as file:
        assert file["sweep/wrong"][0, 0] == 3
        assert file.attrs["status"] == "completed"
