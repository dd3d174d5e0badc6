"""`make bench` measures everybody, checks their sums and writes its tables; only shorter."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.candidates import NAMES, OURS
from benchmarks.estimate import Estimate, estimate
from benchmarks.results import Verdict, read
from benchmarks.table import BEGIN, END, insert, tables
from commbench.errors import UserError
from mpirun import run

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    short = {"QUICK": "1", "PYTHONPATH": str(ROOT)}
    library = f"library={Path(sys.executable).parent}"
    run(["sh", str(ROOT / "benchmarks" / "measure.sh"), str(folder), library], TIMEOUT_S, short)
    return folder


def test_every_candidate_is_measured_and_sums_right(results: Path) -> None:
    with h5py.File(results / "exchanges-library-n2.h5") as file:
        assert file.attrs["status"] == "completed"
        assert file.attrs["wrong"] == 0
        assert file["sweep/exchange"].asstr()[:].tolist() == NAMES
        assert set(file["sweep/best"].asstr()[:]) <= set(OURS)
        # At least six rounds; auto only up to 64 KiB.
        measured = np.isfinite(file["sweep/seconds"][:]).all(axis=3).sum(axis=2)
        assert (measured[0] >= 6).all()
        assert measured[:, NAMES.index("auto")].astype(bool).tolist() == [True, False, False]
        assert (file["copy/rate"][:] > 0).all()


def test_many_ranks_sum_right_and_their_memory_is_known(results: Path) -> None:
    with h5py.File(results / "scale-library-n16.h5") as file:
        assert file.attrs["wrong"] == 0
        assert file["scale/seconds"].shape == (4, 3)
        assert 0 < file.attrs["start_mpi_s"] < file.attrs["start_s"]
        assert (file["scale/proportional_bytes"][:] > 30e6).all()


def test_costs_of_our_own(results: Path) -> None:
    with h5py.File(results / "overhead.h5") as file:
        bare, trainer, recording = file["steps/seconds"][:]
        assert (bare > 0).all()
        assert (recording < trainer).all()
        assert (file["updates/seconds"][:] > 0).all()


def test_pictures_are_those_of_pillow(results: Path) -> None:
    with h5py.File(results / "input-c2.h5") as file:
        # Two of 255, over the smallest deviation of a colour.
        assert file.attrs["apart"] < 2.5 / 57
        assert (file["input/seconds"][:] > 0).all()
    (row,) = [one for one in tables(results).splitlines() if "| 2 | ours, threads |" in one]
    assert row.count("|") == 8


def test_training_agrees_with_ddp(results: Path) -> None:
    with h5py.File(results / "training-library-n2.h5") as file:
        assert (file["training/apart"][:] < 1e-6).all()
        assert file["training/seconds"].shape == (1, 4, 2, 2)
        assert (file["training/seconds"][:] > 0).all()
    (row,) = [line for line in tables(results).splitlines() if "| nin, 48 px, 16 a rank |" in line]
    assert row.count("|") == 10


def test_the_tables_show_what_is_in_the_files(results: Path) -> None:
    text = tables(results)
    job = read(results / "exchanges-library-n2.h5")
    assert job.sizes == [4 << 10, 256 << 10, 4 << 20]
    ratio = np.nanmedian(job.seconds(4 << 20, "Allreduce") / job.seconds(4 << 20, "best"))
    (row, _) = [line for line in text.splitlines() if line.startswith("| 4M |")]
    assert f" {ratio:.2f} [" in row
    auto = 1e6 * np.nanmedian(job.seconds(4 << 10, "auto") - job.seconds(4 << 10, "Allreduce"))
    assert any("| 2 | 4K |" in row and f" {auto:.1f} [" in row for row in text.splitlines())
    assert "| 16 | shared-memory, " in text


def test_tables_go_between_the_marks_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    insert(document, "new")
    assert document.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(UserError, match="must have one line"):
        insert(document, "new")
    assert document.read_text() == "no marks"


def test_the_document_has_the_marks() -> None:
    text = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    assert text.index(BEGIN) < text.index(END)


def test_estimates_tell_the_median_and_leave_out_what_was_not_measured() -> None:
    samples = np.array([np.nan, *range(1, 100)], float)
    found = estimate(samples)
    assert found.median == 50
    assert 35 < found.low < 45
    assert 55 < found.high < 65
    assert estimate(np.arange(3.0)).high == np.inf  # three samples show nothing
    assert np.isnan(estimate(np.array([np.nan])).median)


@pytest.mark.parametrize(
    ("low", "median", "high", "at_least", "word"),
    [
        (3.1, 3.5, 4.0, True, "met"),
        (2.9, 3.5, 4.0, True, "met, unclear"),
        (2.5, 2.9, 4.0, True, "**not met**, unclear"),
        (2.0, 2.5, 2.9, True, "**not met**"),
        (2.0, 2.5, 2.9, False, "met"),
        (2.5, 2.9, 4.0, False, "met, unclear"),
        (3.1, 3.5, 4.0, False, "**not met**"),
    ],
)
def test_a_target_is_met_by_the_whole_interval(
    low: float, median: float, high: float, at_least: bool, word: str
) -> None:
    # The verdict asks nothing of the job it is about.
    verdict = Verdict("three", None, 4096, Estimate(median, low, high), 3.0, at_least)  # type: ignore[arg-type]
    assert verdict.word == word
