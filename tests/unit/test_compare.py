"""`commbench compare` on run files whose numbers are known."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner

from commbench.cli.compare import command
from commbench.compare.differences import NEUTRAL
from commbench.errors import UserError
from run_samples import sweep_file, training_file

SPEEDS = {"none": 0.1, "native": 1.0, "tree": 2.0, "ring": 0.5}


def compare(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(compare(*arguments, "--json"))
    return document


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as error:
        compare(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def set_root(path: Path, **attributes: object) -> Path:
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes)
    return path


def test_exchanges_of_one_sweep_are_paired(tmp_path: Path) -> None:
    path = sweep_file(tmp_path / "a.h5", SPEEDS)
    [one] = told(path)["comparisons"]
    cells = {(cell["second_exchange"], cell["size"]): cell for cell in one["sweep"]}
    assert {cell["first_exchange"] for cell in one["sweep"]} == {"native"}
    assert set(cells) == {(name, size) for name in ("tree", "ring") for size in (4096, 1 << 20)}
    for name, ratio in (("tree", 2.0), ("ring", 0.5)):
        cell = cells[name, 4096]
        assert cell["paired"]
        assert cell["ratio"]["value"] == pytest.approx(ratio, rel=0.01)
        # The drift of a factor of four, which both share, is not in it.
        assert cell["ratio"]["high"] - cell["ratio"]["low"] < 0.02 * ratio
        assert cell["ranks"] == [4, 4]
    text = compare(path, "--against", "tree")
    assert "paired: both in the same turn" in text
    assert "2.00 (" not in text
    assert "faster" in text


def test_sweeps_of_two_files_are_not_paired(tmp_path: Path) -> None:
    first = sweep_file(tmp_path / "a.h5", SPEEDS)
    second = sweep_file(tmp_path / "b.h5", {n: 2 * s for n, s in SPEEDS.items()}, seed=1)
    [one] = told(first, second)["comparisons"]
    assert {cell["second_exchange"] for cell in one["sweep"]} == set(SPEEDS)
    for cell in one["sweep"]:
        assert not cell["paired"]
        assert cell["first_exchange"] == cell["second_exchange"]
        assert cell["ratio"]["low"] < 2 < cell["ratio"]["high"]
        assert cell["ratio"]["high"] - cell["ratio"]["low"] > 0.3
    assert "not paired, so bootstrapped" in compare(first, second)


def test_two_sweeps_of_one_exchange_each(tmp_path: Path) -> None:
    first = sweep_file(tmp_path / "a.h5", {"tree": 1.0})
    second = sweep_file(tmp_path / "b.h5", {"parameter-server": 3.0})
    [one] = told(first, second)["comparisons"]
    assert [cell["first_exchange"] for cell in one["sweep"]] == ["tree"] * 2
    assert one["sweep"][0]["ratio"]["value"] == pytest.approx(3, rel=0.1)
    several = sweep_file(tmp_path / "c.h5", {"parameter-server": 3.0, "ring": 1.0})
    assert "no exchange and size in common" in refused(first, several)
    assert "from 4096 to 1048576 bytes" in refused(first, several)


def test_trainings(tmp_path: Path) -> None:
    tree = training_file(tmp_path / "tree.h5", "tree", exchange_s=0.01, top1=(0.5, 0.7))
    server = training_file(tmp_path / "ps.h5", "ring", exchange_s=0.07, top1=(0.6, 0.75))
    [one] = told(tree, server)["comparisons"]
    training = one["training"]
    found = {quantity["name"]: quantity for quantity in training["quantities"]}
    assert found["step"]["ratio"]["value"] == pytest.approx(2)
    assert found["step"]["ratio"]["low"] > 1.9
    assert found["images per second"]["ratio"]["value"] == pytest.approx(0.5)
    assert found["exchange"]["ratio"]["value"] == pytest.approx(7)
    assert found["forward"]["first"]["value"] == pytest.approx(0.016, rel=0.05)
    # The first step, thirty times as long, is in none of them.
    assert (training["first_steps"], found["step"]["first"]["high"] < 0.07) == (39, True)
    accuracy = training["accuracy"]
    assert accuracy["points"]["value"] == pytest.approx(5)
    assert accuracy["points"]["low"] == pytest.approx(2.24, abs=0.02)
    assert accuracy["points_at"] == pytest.approx([10, 5])
    # Both came to 0.7: the first at its end, the second two thirds of the way between its two.
    assert accuracy["reached"] == pytest.approx(0.7)
    assert accuracy["first_reached_s"] == pytest.approx(1.2)
    assert accuracy["second_reached_s"] == pytest.approx(1.2 * (1 + 2 / 3))
    text = compare(tree, server)
    assert "2.00 (" in text
    assert "slower" in text
    assert "final top-1 of the other: +5.00 points (+2.2" in text
    assert "one run of each" in text


def test_the_baseline_is_the_first_or_the_one_named(tmp_path: Path) -> None:
    files = [training_file(tmp_path / f"{name}.h5", name) for name in ("tree", "ring", "torus")]
    document = told(*files)
    assert document["baseline"] == str(files[0])
    assert [one["file"] for one in document["comparisons"]] == [str(path) for path in files[1:]]
    document = told(*files, "--baseline", files[1])
    assert document["baseline"] == str(files[1])
    assert [one["file"] for one in document["comparisons"]] == [str(files[0]), str(files[2])]
    assert told(files[0], "--baseline", files[2])["baseline"] == str(files[2])


def test_runs_that_differ_in_more_than_the_exchange_need_force(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    second = training_file(tmp_path / "b.h5", "ring", lr=0.02, image_size=64)
    error = refused(first, second)
    assert "lr: 0.01 and 0.02; image_size: 48 and 64" in error
    assert "--force" in error
    text = compare(first, second, "--force")
    assert "not the exchange alone" in text
    [one] = told(first, second, "--force")["comparisons"]
    assert [(d["name"], d["first"], d["second"], d["refused"]) for d in one["differences"]] == [
        ("lr", "0.01", "0.02", True),
        ("image_size", "48", "64", True),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ranks": 8}, "ranks: 4 and 8"),
        ({"global_batch": 64}, "global_batch: 32 and 64"),
        ({"model": "vgg19"}, "model: nin and vgg19"),
    ],
)
def test_another_task_needs_force(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    assert reason in refused(first, training_file(tmp_path / "b.h5", "tree", **changes))


def test_times_of_another_machine_or_library_need_force(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    for name, value in (
        ("mpi_library", "Open MPI 5.0.8"),
        ("cpu_model", "another"),
        ("cpu_count", 2),
        ("hosts", ["a", "a", "b", "b"]),
        ("devices", ["cuda:0"] * 4),
    ):
        second = set_root(training_file(tmp_path / f"{name}.h5", "ring"), **{name: value})
        assert name.replace("hosts", "ranks of each host: 4 and 2+2") in refused(first, second)
        compare(first, second, "--force")


def test_what_may_matter_is_told_and_not_refused(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    second = set_root(
        training_file(tmp_path / "b.h5", "ring"),
        host="another",
        version_numpy="0.1",
        git_revision="abc",
        env_UCX_TLS="tcp",
        env_SLURM_JOB_ID="7",
    )
    [one] = told(first, second)["comparisons"]
    names = {d["name"] for d in one["differences"]}
    assert {"host", "numpy", "git_revision", "UCX_TLS"} <= names
    assert "SLURM_JOB_ID" not in names
    assert not any(d["refused"] for d in one["differences"])
    assert "may matter" in compare(first, second)


def test_where_results_go_and_an_option_that_is_not_set_are_no_difference(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    second = training_file(tmp_path / "b.h5", "ring")
    for path in (first, second):
        set_root(path, option_output=str(path), option_progress=path.name)
    set_root(second, option_new="")
    assert told(first, second)["comparisons"][0]["differences"] == []
    set_root(second, option_new="on")
    assert "new: not set and on" in refused(first, second)


def test_options_that_are_no_difference_exist() -> None:
    from commbench.course import Settings
    from commbench.sweep import SweepSettings

    for kind, settings in (("train", Settings), ("sweep", SweepSettings)):
        assert NEUTRAL[kind] <= {field.name for field in dataclasses.fields(settings)}


def test_a_run_that_was_killed_is_told(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    second = set_root(training_file(tmp_path / "b.h5", "ring"), status="running")
    assert "running, or killed: 40 of 40 steps recorded" in compare(first, second)


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    train = training_file(tmp_path / "train.h5", "tree")
    sweep = sweep_file(tmp_path / "sweep.h5", SPEEDS)
    alone = sweep_file(tmp_path / "alone.h5", {"tree": 1.0})
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    collected = set_root(
        training_file(tmp_path / "c.h5", "tree"), kind="experiment", experiment="x"
    )
    for arguments, text in (
        ([tmp_path / "none.h5"], "no such file"),
        ([train, tmp_path / "text.h5"], "no HDF5 file"),
        ([train, tmp_path / "other.h5"], "not written by commbench"),
        ([train], "nothing to compare it with"),
        ([train, sweep], "give runs of one kind"),
        ([train, train], "named twice"),
        ([train, collected], "`commbench reproduce x"),
        ([train, set_root(sweep_file(tmp_path / "k.h5", SPEEDS), kind="odd")], "kind 'odd'"),
        ([sweep, "--against", "torus"], "--against takes none, native, tree, ring"),
        ([sweep, alone, "--against", "tree"], "names an exchange of one sweep"),
        ([train, "--against", "tree"], "names an exchange of one sweep"),
        ([alone], "no exchange but tree"),
    ):
        assert text in refused(*arguments)


def test_a_training_without_a_step_is_refused(tmp_path: Path) -> None:
    first = training_file(tmp_path / "a.h5", "tree")
    second = training_file(tmp_path / "b.h5", "ring")
    with h5py.File(second, "r+") as file:
        file["steps/images_per_s"][:] = float("nan")
    assert "no step was recorded" in refused(first, second)
