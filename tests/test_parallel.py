"""Runs tests/parallel inside 1, 2, 3, 4 and 7 ranks."""

import sys
from pathlib import Path

import pytest

from mpirun import mpirun

FOLDER = Path(__file__).parent / "parallel"
TIMEOUT_S = 300
STUCK_S = 120


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_inside_ranks(ranks: int) -> None:
    # The ranks would write one cache; a test that is stuck shows where, on every rank.
    options = ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={STUCK_S}"]
    result = mpirun(ranks, [sys.executable, "-m", "pytest", *options, str(FOLDER)], TIMEOUT_S)
    assert " passed" in result.stdout, result.stdout


@pytest.mark.parametrize("in_python", [{0, 1, 2}, {1}], ids=["all ranks", "one of three"])
def test_exchanges_message_by_message_in_python(in_python: set[int]) -> None:
    # Ranks that play a program and ranks that do not speak the same way.
    switched = (
        "import os, sys\n"
        "from mpi4py import MPI\n"
        f"if MPI.COMM_WORLD.rank in {in_python}: os.environ['COMMBENCH_COMPILED'] = '0'\n"
        "import pytest\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    test = str(FOLDER / "test_exchange.py")
    options = ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={STUCK_S}"]
    chosen = [*options, "-k", "equals_the_librarys_sum or swap or millions", test]
    result = mpirun(3, [sys.executable, "-c", switched, *chosen], TIMEOUT_S)
    assert " passed" in result.stdout, result.stdout
