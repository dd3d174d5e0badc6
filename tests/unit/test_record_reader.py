"""Reading run files back, and the page that documents them."""

import json
import math
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench.errors import UserError
from commbench.record import (
    Group,
    open_run,
    summary,
)
from commbench.record.reader import progress, to_json
from commbench.report import read_report
from record_samples import (
    PHASES,
    RANKS,
    README,
    STEPS,
    create,
    emulation,
    fill_steps,
    pipeline,
    simulation,
    sweep,
    training,
)


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


def test_summary_tells_the_hottest_rank_of_each_bucket(tmp_path: Path) -> None:
    ring, native = summary(create(tmp_path / "run.h5").path)["buckets"]
    assert (ring["algorithm"], ring["bytes"], ring["messages"]) == ("ring", 4000, 12)
    assert (ring["hottest_rank"], ring["hottest_rank_bytes"]) == (0, 5336)
    assert ring["percent_of_bound"] == pytest.approx(100 * 5336 / 5333)
    assert math.isnan(native["hottest_rank"])
    assert math.isnan(native["percent_of_bound"])


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


def test_summary_of_an_asynchronous_run(tmp_path: Path) -> None:
    with create(tmp_path / "run.h5") as run:
        told = summary(run.path)
        assert math.isnan(told["staleness_updates_mean"])
        fill_steps(run, STEPS)
        run["staleness/updates"][0] = [[3, 1, 0, 0], [1, 0, 0, 3]]
        run["staleness/updates_sum"][0] = [1, 23]
        run["staleness/updates_largest"][0] = [1, 11]
    told = summary(run.path)
    assert (told["staleness_updates_mean"], told["staleness_updates_largest"]) == (3, 11)
    assert math.isnan(told["staleness_clocks_largest"])
    assert f"{run.path.name}: gradients were 3.00 updates stale on average, 11 at most." in (
        read_report([run.path]).notes
    )


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
    for groups in (training(), sweep(), pipeline(), emulation(), simulation()):
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
