"""Settings of every test: a Hypothesis that repeats itself, tests that say why they skip."""

import os
import warnings

import hypothesis
import pytest

from chromium import why_no_browser

# Files in tests/parallel run inside the ranks; test_parallel.py starts them under mpirun. MPICH and
# Open MPI tell a process its rank by these.
inside_mpirun = "PMI_RANK" in os.environ or "PMIX_RANK" in os.environ
collect_ignore = [] if inside_mpirun else ["parallel"]

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


def why_no_gpu() -> str | None:
    """Why the tests marked ``gpu`` cannot run here; None if they can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns about a CUDA that it cannot find
        try:
            import cupy

            return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
        except Exception as error:
            return f"no usable CuPy: {type(error).__name__}: {error}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, needs, why in (
        ("gpu", "a GPU", why_no_gpu),
        ("browser", "a browser", why_no_browser),
    ):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := why()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"needs {needs}: {reason}"))
