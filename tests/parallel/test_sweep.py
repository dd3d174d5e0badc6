"""The sweep inside the ranks: every exchange and element type, and a corrupted element."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from commbench.arrays import ELEMENT_TYPES
from commbench.errors import UserError
from commbench.exchange import Exchange
from commbench.job import Job
from commbench.record import open_run
from commbench.registry import Choice, admitted, parse_exchange, parse_exchanges
from commbench.sweep import SweepSettings, sweep
from commbench.sweep_table import Row

SIZE = MPI.COMM_WORLD.size


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job(MPI.COMM_WORLD.Dup(), timeout_s=60)
    yield job
    job.close()


def exchanges() -> list[Choice]:
    chosen = admitted(parse_exchanges("all"), SIZE)[0]
    if SIZE > 1:
        chosen.append(parse_exchange("parameter-server@server=dedicated"))
    return chosen


def settings(folder: Path, dtype: str, *, specs: str | None = None) -> SweepSettings:
    itemsize = ELEMENT_TYPES[dtype].itemsize
    return SweepSettings(
        exchanges=parse_exchanges(specs) if specs else exchanges(),
        # Empty, fewer elements than ranks, one more than divides evenly, and not whole elements.
        sizes_bytes=[0, 1, 2 * itemsize, (10 * SIZE + 1) * itemsize, 5003],
        iterations=3,
        warmup=1,
        check=True,
        dtype=dtype,
        device="cpu",
        transport="mpi",
        timeout_s=60,
        output=folder / "sweep.h5",
        results=folder,
    )


@pytest.mark.parametrize("dtype", list(ELEMENT_TYPES))
@pytest.mark.parametrize("transport", ["mpi", "shared-memory"])
def test_every_exchange_sums_exactly(job: Job, dtype: str, transport: str, tmp_path: Path) -> None:
    chosen = replace(settings(tmp_path, dtype), transport=transport)
    shown: list[Row] = []
    rows = sweep(job, chosen, shown.append)
    if job.rank:
        assert rows is None
        assert shown == []
        return
    assert rows == shown
    names = [choice.spec for choice in exchanges()]
    itemsize = ELEMENT_TYPES[dtype].itemsize
    # The size of one byte holds no element, as the size 0 before it, and is measured once.
    counts = [0, 2, 10 * SIZE + 1, 5003 // itemsize]
    assert [(row.count, row.exchange) for row in rows] == [(c, n) for c in counts for n in names]
    for row in rows:
        assert row.size == row.count * itemsize
        assert row.wrong == (None if row.exchange == "none" else 0)
        assert row.time_us["min"] <= row.time_us["median"] <= row.time_us["p99"]
        if "dedicated" not in row.exchange:
            assert row.bound_bytes == pytest.approx(row.size * 2 * (SIZE - 1) / SIZE)
        if row.exchange == "ring" and row.count % SIZE == 0:
            assert row.hottest_bytes == row.bound_bytes
        assert math.isnan(row.hottest_bytes) == (row.exchange == "native")
    assert chosen.output is not None
    with open_run(chosen.output) as file:
        seconds = file["sweep/seconds"][:]
        bounds = file["sweep/bound_bytes"][:]
        assert file.attrs["status"] == "completed"
    assert seconds.shape == (len(counts), len(names), 3, SIZE)
    assert (seconds > 0).all()
    assert [row.bound_bytes for row in rows] == bounds.ravel().tolist()
    medians = 1e6 * np.median(seconds.max(axis=3), axis=2)
    assert [row.time_us["median"] for row in rows] == pytest.approx(medians.ravel().tolist())


def test_one_wrong_element_is_counted(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    correct = Exchange.run

    def corrupt(self: Exchange) -> None:
        correct(self)
        buffer = self._wire
        if job.rank == SIZE - 1 and len(buffer) > 1:
            buffer[1] += 1

    monkeypatch.setattr(Exchange, "run", corrupt)
    rows = sweep(job, settings(tmp_path, "float32", specs="none,ring"), lambda row: None)
    if rows is not None:
        wrong = [row.wrong for row in rows if row.exchange == "ring"]
        assert wrong == [0, 3, 3, 3]
        assert {row.wrong for row in rows if row.exchange == "none"} == {None}


def test_swapped_pieces_are_found(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Inputs that repeated along the buffer would hide a piece in another's place."""
    correct = Exchange.run

    def corrupt(self: Exchange) -> None:
        correct(self)
        half = len(self._wire) // 2
        if half > 100:
            self._wire[: 2 * half] = np.roll(self._wire[: 2 * half], half)

    monkeypatch.setattr(Exchange, "run", corrupt)
    chosen = replace(settings(tmp_path, "float32", specs="ring"), sizes_bytes=[2 * 1001 * 4])
    rows = sweep(job, chosen, lambda row: None)
    if rows is not None:
        assert rows[0].wrong is not None
        assert rows[0].wrong > 1000 * SIZE


def test_an_existing_file_is_refused_on_every_rank(job: Job, tmp_path: Path) -> None:
    chosen = settings(tmp_path, "float32", specs="tree")
    if job.rank == 0:
        assert chosen.output is not None
        chosen.output.write_text("mine")
    with pytest.raises(UserError, match="never overwrites"):
        sweep(job, chosen, lambda row: None)
    if job.rank == 0:
        assert chosen.output is not None
        assert chosen.output.read_text() == "mine"
