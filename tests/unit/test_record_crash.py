"""A run killed at any instant leaves a file that opens."""

import json
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import xarray

from commbench.record import (
    summary,
)
from record_samples import README


def check_survivor(path: Path, stored: int) -> None:
    """The file opens everywhere with at least `stored` steps, and consistently."""
    with h5py.File(path) as file:
        assert file.attrs["status"] in ("running", "completed")
        loss = file["steps/loss"][:]
        seconds = file["timing/seconds"][:]
    np.testing.assert_array_equal(loss[:stored], np.arange(stored))
    np.testing.assert_array_equal(seconds[:stored, 0, 0], np.arange(stored))
    rest = loss[stored:]
    ahead = np.isfinite(rest).sum()
    assert np.isnan(rest[ahead:]).all()
    with xarray.open_dataset(path, engine="h5netcdf", group="timing") as timing:
        np.testing.assert_array_equal(timing.seconds, seconds)
    assert summary(path)["steps_recorded"] == stored + ahead


# Forks one child a trial. A child reports what it did and dies by SIGKILL: by its own hand at the
# n-th line of the package that it reaches for the first time, or by its parent's, a while after
# the n-th report.
KILLER = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from record_samples import create, training

package = os.sep + os.path.join("commbench", "record") + os.sep

def die_at(line):
    seen = set()
    def trace(frame, event, argument):
        name = frame.f_code.co_filename
        if package not in name:
            return None
        seen.add((name, frame.f_lineno))
        if len(seen) == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)

def live(folder, report, runs, steps):
    for number in range(runs):
        run = create(folder / f"{number}.h5", training(steps))
        report(number, "created", 0)
        for i in range(steps):
            run["steps/loss"][i] = i
            run["timing/seconds"][i] = i
            report(number, "step", i + 1)
        run.finish(top1=0.5)
        report(number, "finished", steps)

def trial(folder, *, line=None, reports=None, delay_s=0, runs, steps):
    folder.mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        def report(*words):
            os.write(writing, (json.dumps(words) + "\\n").encode())
        if line:
            die_at(line)
        live(folder, report, runs, steps)
        os._exit(0)
    os.close(writing)
    heard = []
    with os.fdopen(reading, "rb", buffering=0) as stream:
        for told in stream:
            heard.append(json.loads(told))
            if len(heard) == reports:
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return {"folder": str(folder), "heard": heard, "status": os.waitstatus_to_exitcode(status)}

root = Path(sys.argv[1])
for n, arguments in enumerate(json.loads(sys.argv[2])):
    result = trial(root / str(n), **arguments)
    print(json.dumps(result), flush=True)
    if result["status"] == 0:  # it came to its end before the line it should have died at
        break
"""


def killed(folder: Path, trials: list[dict[str, int]]) -> list[dict[str, object]]:
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder), json.dumps(trials)],
        capture_output=True,
        text=True,
        check=True,
        cwd=README.parents[1] / "tests",
        timeout=300,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def check_trial(trial: dict[str, object]) -> tuple[set[str], set[str]]:
    """Check all that a killed child left; return what it had told and its files' statuses."""
    heard = trial["heard"]
    assert isinstance(heard, list)
    stored: dict[int, int] = {}
    finished = set()
    for number, event, steps in heard:
        stored[number] = steps
        if event == "finished":
            finished.add(number)
    found = {int(path.stem): path for path in Path(str(trial["folder"])).glob("[0-9]*.h5")}
    assert set(stored) <= set(found)
    statuses = set()
    for number, path in found.items():
        check_survivor(path, stored.get(number, 0))
        statuses.add(str(summary(path)["status"]))
        if number in finished:
            assert summary(path)["status"] == "completed"
            assert summary(path)["top1"] == 0.5
    return {event for _, event, _ in heard}, statuses or {"absent"}


def test_killed_at_every_line_the_file_is_absent_or_whole(tmp_path: Path) -> None:
    trials = [{"line": line, "runs": 1, "steps": 2} for line in range(1, 500)]
    *results, last = killed(tmp_path, trials)
    assert last["status"] == 0, "the lines tried must cover creation, steps and finish"
    assert {trial["status"] for trial in results} == {-9}
    told = [check_trial(trial) for trial in results]
    # killed while creating, just created, and while finishing: unchanged, then replaced
    assert (set(), {"absent"}) in told
    assert (set(), {"running"}) in told
    assert ({"created", "step"}, {"running"}) in told
    assert ({"created", "step"}, {"completed"}) in told


def test_killed_at_any_moment_every_reported_number_is_there(tmp_path: Path) -> None:
    dice = random.Random(1)
    trials = [
        # A step takes microseconds, creating and finishing milliseconds: hit them all.
        {"reports": dice.randint(1, 99), "delay_s": delay_s, "runs": 1000, "steps": 40}
        for delay_s in (0, 0, 0, 0.003, 0.006, 0.009, 0.012, 0.015, 0.018, 0.021)
        for _ in range(3)
    ]
    results = killed(tmp_path, trials)
    assert len(results) == len(trials)
    for trial, arguments in zip(results, trials, strict=True):
        assert trial["status"] == -9
        assert len(trial["heard"]) >= arguments["reports"]
        check_trial(trial)
