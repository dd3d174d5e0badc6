"""The run file: written, killed, read back."""

import errno
import json
import math
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

import commbench
from commbench.errors import UserError
from commbench.record import (
    Bucket,
    Group,
    RunFile,
    Variable,
    check_output,
    default_path,
    open_run,
    summary,
    sweep_groups,
    training_groups,
)
from commbench.record import runfile as runfile_module
from commbench.record.reader import progress, to_json

README = Path(commbench.__file__).parent.parent / "results" / "README.md"
PHASES = ["forward", "backward", "exchange"]
STEPS, RANKS, EVALUATIONS = 5, 3, 2


def training(steps: int = STEPS) -> list[Group]:
    buckets = [
        Bucket(4000, "ring", [4, 4, 4], [4, 4, 4], [5332, 5332, 5336], [5336, 5332, 5332]),
        Bucket(800, "native"),
    ]
    return training_groups(
        steps=steps, ranks=RANKS, phases=PHASES, evaluations=EVALUATIONS, buckets=buckets
    )


def sweep() -> list[Group]:
    return sweep_groups(
        sizes_bytes=[1024, 65536],
        exchanges=["ring", "tree"],
        iterations=4,
        ranks=RANKS,
        hottest_rank_bytes=[[2732, 4096], [174764, 262144]],
    )


def create(path: Path, groups: list[Group] | None = None, **more: object) -> RunFile:
    settings = {
        "kind": "train",
        "options": {
            "lr": 0.1,
            "batch": 64,
            "preset": None,
            "overlap": True,
            "folder": Path("data"),
        },
        "seed": 7,
        "hosts": ["a", "a", "b"],
        "devices": ["cpu"] * RANKS,
        "attributes": {"model": "nin", "parameters": 1000, "exchange": "ring", "ranks": RANKS},
        **more,
    }
    return RunFile.create(path, groups=groups or training(), **settings)


def fill_steps(run: RunFile, count: int) -> None:
    for i in range(count):
        run["steps/epoch"][i] = (i + 1) / 10
        run["steps/lr"][i] = 0.1
        run["steps/loss"][i] = 2.0 - i / 4
        run["steps/images_per_s"][i] = 100.0 + i
        run["timing/seconds"][i] = (i + 1) * np.arange(1, 10).reshape(RANKS, len(PHASES))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_round_trip_through_h5py_and_xarray(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    run = create(path)
    assert all(array.flags.aligned and np.isnan(array).all() for array in run._arrays.values())
    fill_steps(run, STEPS)
    run["eval/top1"][:] = 0.5, 0.75
    run.finish(top1=0.75, note=None, table={"a": [1, 2]})

    assert names(tmp_path) == ["run.h5"]
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
        np.testing.assert_array_equal(file["steps/loss"][:], 2.0 - np.arange(STEPS) / 4)
        assert list(file["timing/phase"].asstr()) == PHASES
        assert file["timing/seconds"].dims[2][0] == file["timing/phase"]
        assert file["exchange/algorithm"].asstr()[1] == "native"
    assert attributes["status"] == "completed"
    assert attributes["top1"] == 0.75
    assert attributes["option_lr"] == 0.1
    assert attributes["option_preset"] == attributes["note"] == ""
    assert attributes["option_overlap"]
    assert attributes["option_folder"] == "data"
    assert attributes["seed"] == 7
    assert list(attributes["hosts"]) == ["a", "a", "b"]
    assert json.loads(attributes["table"]) == {"a": [1, 2]}
    assert attributes["version_h5py"] == h5py.__version__
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert moment.fullmatch(attributes["start"])
    assert moment.fullmatch(attributes["end"])

    with xarray.open_dataset(path, engine="h5netcdf", group="timing") as timing:
        assert timing.seconds.dims == ("step", "rank", "phase")
        assert timing.seconds.dtype == np.float32
        assert timing.seconds.attrs == {"long_name": "time spent in the phase", "units": "s"}
        assert float(timing.seconds.sel(step=2, rank=1, phase="backward")) == 2 * 5
    with xarray.open_dataset(path, engine="h5netcdf", group="exchange") as exchange:
        np.testing.assert_array_equal(exchange.bytes_sent[0], [5332, 5332, 5336])
        assert np.isnan(exchange.messages_sent[1]).all()
    with xarray.open_dataset(path, engine="h5netcdf") as root:
        assert root.attrs["model"] == "nin"


@pytest.mark.parametrize(
    "groups",
    [training(), sweep(), training_groups(steps=0, ranks=1, phases=[], evaluations=0)],
    ids=["training", "sweep", "empty"],
)
def test_every_group_opens_in_xarray_with_units_and_scales(
    tmp_path: Path, groups: list[Group]
) -> None:
    path = tmp_path / "run.h5"
    with create(path, groups) as run:
        for array in run._arrays.values():
            array[...] = 1.5
    for group in groups:
        with xarray.open_dataset(path, engine="h5netcdf", group=group.name) as dataset:
            assert set(dataset.variables) == set(group.variables)
            for name, variable in group.variables.items():
                assert dataset[name].dims == variable.dims
                assert dataset[name].shape == group.shape(variable)
                assert dataset[name].attrs["units"] == variable.units
                assert dataset[name].attrs["long_name"] == variable.long_name
                if variable.data is None:
                    assert (dataset[name] == 1.5).all()


def test_what_is_stored_is_in_the_file_at_once(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5")
    fill_steps(run, 2)
    told = summary(run.path)
    assert told["status"] == "running"
    assert told["end"] == ""
    assert progress(told) == "running, or killed: 2 of 5 steps recorded"
    run.flush()
    run.finish()


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    create(path, seed=1).finish()
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists and a run never overwrites"):
        create(path)
    assert path.read_bytes() == before
    assert create(path, unique=True).path == tmp_path / "run-2.h5"
    assert create(path, unique=True).path == tmp_path / "run-3.h5"
    assert names(tmp_path) == ["run-2.h5", "run-3.h5", "run.h5"]


def test_a_name_taken_while_the_file_is_written_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    write = runfile_module._write

    def slow_write(*args: object) -> object:
        places = write(*args)
        path.write_text("another's")
        return places

    monkeypatch.setattr(runfile_module, "_write", slow_write)
    with pytest.raises(UserError, match="created meanwhile by another run"):
        create(path)
    assert path.read_text() == "another's"
    assert names(tmp_path) == ["run.h5"]


def test_finish_leaves_a_file_alone_that_took_its_name(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    run = create(path)
    path.rename(tmp_path / "moved.h5")
    with pytest.raises(UserError, match="cannot write the final status"):
        run.finish()
    run = create(path)
    path.rename(tmp_path / "moved-too.h5")
    path.write_text("another's")
    with pytest.raises(UserError, match="another file has taken its name"):
        run.finish()
    assert path.read_text() == "another's"
    assert names(tmp_path) == ["moved-too.h5", "moved.h5", "run.h5"]


def test_a_finished_run_takes_no_more_numbers(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5")
    run.finish()
    with pytest.raises(ValueError, match="read-only"):
        run["steps/loss"][0] = 1.0
    with pytest.raises(RuntimeError, match="finished twice"):
        run.finish()


def test_leaving_by_an_exception_fails_the_run(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5")
    fill_steps(run, 1)
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError("oh no")
    told = summary(run.path)
    assert told["status"] == progress(told) == "failed"
    assert told["error"] == "ZeroDivisionError: oh no"
    assert told["steps_recorded"] == 1


def test_an_error_in_finishing_does_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5")
    run.path.unlink()
    with pytest.raises(ZeroDivisionError) as caught, run:
        raise ZeroDivisionError
    assert "cannot write the final status" in caught.value.__notes__[0]


def test_a_full_disk_while_finishing_keeps_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = create(tmp_path / "run.h5")
    fill_steps(run, 3)
    monkeypatch.setattr(shutil, "copy", full)
    with pytest.raises(UserError, match="No space left on device; it stays"):
        run.finish()
    assert summary(run.path)["steps_recorded"] == 3
    assert names(tmp_path) == ["run.h5"]


def test_an_unknown_variable_lists_the_known_ones(tmp_path: Path) -> None:
    with (
        create(tmp_path / "run.h5") as run,
        pytest.raises(KeyError, match=r"there are steps/epoch"),
    ):
        run["steps/bytes"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"x": Variable((), "x")}, "belongs in an attribute"),
        ({"x": Variable(("n",), "x")}, "dimension n has no coordinate"),
        ({"n": Variable(("n",), "n", data=[1]), "x": Variable(("n",), "x", data=[1, 2])}, "shape"),
        ({"n": Variable(("n",), "n", data=[1]), "x": Variable(("n",), "x", dtype="int32")}, "NaN"),
    ],
)
def test_a_group_refuses_what_netcdf_could_not_say(
    variables: dict[str, Variable], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Group("g", variables)


def test_default_path_is_free_and_tame(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    first = default_path(folder, "train-nin-parameter-server@server=dedicated,a b/c-n4")
    assert first.parent == folder
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d{6}-train-nin-parameter-server-server-dedicated-a-b-c-n4\.h5",
        first.name,
    )
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        default_path(tmp_path / "file", "x")


def test_default_path_numbers_the_runs_of_one_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from commbench.record import paths

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Frozen":
            return cls(2026, 11, 21, 3, 45, 12, tzinfo=UTC)

    monkeypatch.setattr(paths, "datetime", Frozen)
    for expected in ("", "-2", "-3"):
        path = default_path(tmp_path, "sweep")
        assert path.name == f"2026-11-21T034512-sweep{expected}.h5"
        path.touch()


def test_output_is_refused_early_and_clearly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        check_output(tmp_path / "missing" / "run.h5")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="there is no folder"):
        check_output(tmp_path / "file" / "run.h5")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("file", "dangling", "."):
        with pytest.raises(UserError, match="never overwrites"):
            check_output(tmp_path / taken)
    check_output(tmp_path / "new.h5")


def test_an_unwritable_folder_is_told(tmp_path: Path) -> None:
    # /proc takes no files, not even root's; elsewhere access() is what tells an ordinary user.
    with pytest.raises(UserError, match=r"cannot create /proc/self/run\.h5"):
        create(Path("/proc/self/run.h5"))
    if os.geteuid() != 0:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(UserError, match="is not writable"):
            check_output(tmp_path / "run.h5")


def test_a_full_disk_is_told_before_the_run(tmp_path: Path) -> None:
    steps = 2 * shutil.disk_usage(tmp_path).free // (RANKS * len(PHASES) * 4)
    tiny = np.broadcast_to(np.int64(0), steps)
    group = Group(
        "timing",
        {
            "step": Variable(("step",), "step", data=tiny),
            "rank": Variable(("rank",), "rank", data=np.arange(RANKS * len(PHASES))),
            "seconds": Variable(("step", "rank"), "time", "s", dtype="float32"),
        },
    )
    with pytest.raises(UserError, match="MB are free"):
        create(tmp_path / "run.h5", [group])
    assert names(tmp_path) == []


def test_a_write_error_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource
from tests.unit.test_record import UserError, Path, create, training
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    create(Path({str(tmp_path / "run.h5")!r}), training(100_000))
except UserError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=README.parents[1],
    )
    assert re.fullmatch(r"cannot create \S+run\.h5: .*too large.*\n", result.stdout)
    assert names(tmp_path) == []


def test_summary_of_a_completed_run(tmp_path: Path) -> None:
    with create(tmp_path / "run.h5") as run:
        fill_steps(run, STEPS)
        run["eval/top1"][:] = 0.5, 0.75
        run["eval/top5"][:] = 0.9, 0.95
        run.finish(top1=0.8)
    told = summary(run.path)
    assert told["status"] == progress(told) == "completed"
    assert (told["steps"], told["steps_recorded"]) == (STEPS, STEPS)
    assert (told["loss_first"], told["loss_last"]) == (2.0, 1.0)
    assert told["images_per_s"] == 102.0
    assert told["epochs"] == 0.5
    # forward is 1, 4, 7 on the three ranks, times the step number 1 ... 5
    assert told["phases_s"]["forward"] == np.median(np.outer(range(1, 6), [1, 4, 7]))
    assert told["top1"] == 0.8
    assert told["top5"] == 0.95
    assert told["options"]["batch"] == 64
    assert told["versions"]["numpy"] == np.__version__
    assert (told["model"], told["parameters"], told["ranks"]) == ("nin", 1000, RANKS)


def test_summary_of_a_killed_run_takes_the_last_evaluation(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5")
    fill_steps(run, 2)
    run["steps/loss"][1] = math.nan  # diverged, and yet recorded
    run["eval/top1"][0] = 0.25
    told = summary(run.path)
    assert told["steps_recorded"] == 2
    assert math.isnan(told["loss_last"])
    assert told["top1"] == 0.25
    assert math.isnan(told["top5"])
    assert json.loads(to_json(told))["loss_last"] is None


def test_summary_of_a_run_that_recorded_nothing(tmp_path: Path) -> None:
    told = summary(create(tmp_path / "run.h5").path)
    assert told["steps_recorded"] == told["evaluations_recorded"] == 0
    assert "top1" not in told
    assert "loss_last" not in told
    assert json.loads(to_json(told))["phases_s"] == dict.fromkeys(PHASES)


def test_summary_of_a_killed_sweep(tmp_path: Path) -> None:
    run = create(tmp_path / "run.h5", sweep(), kind="sweep")
    run["sweep/seconds"][0, 1, :3] = [[1, 2, 3], [1, 2, 9], [5, 4, 3]]
    run["sweep/seconds"][0, 0, 0, :2] = 1.0  # not all ranks: no sample yet
    run["sweep/wrong"][0, 1] = 0
    told = summary(run.path)
    assert told["sweep"] == [
        {
            "exchange": "tree",
            "size_bytes": 1024,
            "iterations": 3,
            "median_s": 5.0,
            "hottest_rank_bytes": 4096.0,
            "wrong": 0.0,
        }
    ]
    assert progress(told) == "running, or killed: 3 of 16 samples recorded"


def test_files_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_run(tmp_path / name)

    refused("missing.h5", "no such file")
    refused(".", "is not a file")
    (tmp_path / "text.h5").write_text("no HDF5")
    refused("text.h5", "no HDF5 file, or is damaged")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    refused("other.h5", "not written by commbench")
    create(tmp_path / "run.h5").finish()
    whole = (tmp_path / "run.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    refused("half.h5", "is damaged")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    refused("run.h5", "install a newer commbench")


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
from tests.unit.test_record import create, training

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
        cwd=README.parents[1],
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


def readme_rows(groups: list[Group], path: Path) -> list[str]:
    rows = []
    with open_run(path) as file:
        for group in groups:
            for name, variable in group.variables.items():
                dtype = file[group.name][name].dtype
                kind = "string" if dtype.kind == "O" else dtype.name
                dims = " x ".join(variable.dims)
                rows.append(
                    f"| `{name}` | {dims} | {kind} | {variable.units} | {variable.long_name} |"
                )
    return rows


def test_the_schema_page_tells_every_variable_and_attribute(tmp_path: Path) -> None:
    page = README.read_text()
    documented = set(re.findall(r"^\| `\w+` \| .* \| .* \| .* \| .* \|$", page, re.MULTILINE))
    rows = set()
    for groups in (training(), sweep()):
        path = tmp_path / f"{groups[0].name}.h5"
        create(path, groups).finish(top1=0.5)
        rows |= set(readme_rows(groups, path))
        assert all(f"### /{group.name}, " in page for group in groups)
    assert rows == documented
    names_told = set(re.findall(r"`(\w+)`", page.split("## Attributes of the root")[1]))
    with open_run(path) as file:
        for name in file.attrs:
            family = re.sub(r"^(option|version|env)_.*", r"\1_NAME", name)
            assert family in names_told


def test_the_schema_pages_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path / "train.h5") as run:
        fill_steps(run, STEPS)
    with create(tmp_path / "sweep.h5", sweep()) as run:
        run["sweep/seconds"][:] = 0.25
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert np.shape(scope["forward"]) == (STEPS, RANKS)
    for dataset in ("timing", "sweep"):
        scope[dataset].close()  # type: ignore[attr-defined]
