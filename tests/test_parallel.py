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
