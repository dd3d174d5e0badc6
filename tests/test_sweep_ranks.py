"""`mpirun -n P commbench sweep`: every exchange and element type, checked; and wrong sums found."""

import json
import sys
from pathlib import Path

import h5py
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
    if self._transport.rank == 1 and len(self._wire) > 2:
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
