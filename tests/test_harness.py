"""The parallel harness itself: what fails or hangs on one rank ends the job and is told once."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpirun import MARK, mpirun, run, survivors

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60


def pytest_in_ranks(
    folder: Path, source: str, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Runs one test file inside three ranks, under the settings of tests/parallel."""
    shutil.copy(ROOT / "tests/parallel/conftest.py", folder)
    (folder / "test_inner.py").write_text(source)
    options = ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return mpirun(3, command, timeout_s, check=False)


def test_failure_on_one_rank_ends_the_job_with_its_traceback(tmp_path: Path) -> None:
    result = pytest_in_ranks(
        tmp_path,
        "from mpi4py import MPI\n"
        "def test_one_fails():\n"
        "    print('said before')\n"
        "    assert MPI.COMM_WORLD.rank != 1, 'rank one fails'\n"
        "    MPI.COMM_WORLD.barrier()\n",
    )
    told = result.stdout + result.stderr
    assert result.returncode != 0
    assert told.count("==== rank 1 of 3: ") == 1, told
    assert told.count("E       AssertionError: rank one fails") == 1, told
    assert "said before" in told


def test_failure_on_all_ranks_is_told_once(tmp_path: Path) -> None:
    result = pytest_in_ranks(tmp_path, "def test_all_fail():\n    raise ValueError('everywhere')\n")
    told = result.stdout + result.stderr
    assert result.returncode != 0
    assert told.count("E       ValueError: everywhere") == 1, told


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys\nif RANK == 2:\n    import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("if RANK == 2:\n    def test_extra():\n        pass\n", "test_extra"),
        (
            "import pytest\n@pytest.mark.skipif(RANK == 2, reason='x')\ndef test_b(): pass\n",
            "test_b",
        ),
    ],
    ids=["import", "test", "skip"],
)
def test_ranks_that_collect_different_tests(tmp_path: Path, source: str, reason: str) -> None:
    common = "import pytest\nfrom mpi4py import MPI\nRANK = MPI.COMM_WORLD.rank\n"
    barrier = "def test_a():\n    MPI.COMM_WORLD.barrier()\n"
    result = pytest_in_ranks(tmp_path, common + source + barrier)
    assert result.returncode != 0
    assert reason in result.stderr, result.stderr


def test_no_test_at_all_is_a_failure(tmp_path: Path) -> None:
    assert pytest_in_ranks(tmp_path, "").returncode != 0


def test_hanging_job_is_ended_with_its_output_and_leaves_nothing(tmp_path: Path) -> None:
    source = (
        "import os\n"
        "from mpi4py import MPI\n"
        "def test_waits_for_ever(capfd):\n"
        "    with capfd.disabled():\n"
        f"        print('mark:' + os.environ['{MARK}'])\n"
        "    MPI.COMM_WORLD.recv(source=MPI.ANY_SOURCE)\n"
    )
    with pytest.raises(AssertionError, match="still running after 10 s") as caught:
        pytest_in_ranks(tmp_path, source, timeout_s=10)
    marks = set(re.findall(r"mark:([0-9a-f]{32})", str(caught.value)))
    assert len(marks) == 1, caught.value
    assert not survivors(marks.pop())


def test_exit_status_and_output_of_a_failed_command() -> None:
    with pytest.raises(AssertionError, match=r"exit status 3(.|\n)*some words"):
        run([sys.executable, "-c", "print('some words'); raise SystemExit(3)"], TIMEOUT_S)
