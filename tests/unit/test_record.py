"""The run file: written, killed, read back."""

import errno
import json
import os
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

from commbench.errors import UserError
from commbench.record import (
    Group,
    Variable,
    check_output,
    default_path,
    summary,
    training_groups,
)
from commbench.record import runfile as runfile_module
from commbench.record.reader import progress
from record_samples import (
    PHASES,
    RANKS,
    README,
    STEPS,
    create,
    fill_steps,
    names,
    sweep,
    training,
)


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
from pathlib import Path
from commbench.errors import UserError
from record_samples import create, training
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
        cwd=README.parents[1] / "tests",
    )
    assert re.fullmatch(r"cannot create \S+run\.h5: .*too large.*\n", result.stdout)
    assert names(tmp_path) == []
