import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from commbench.cli.report import command
from commbench.errors import UserError
from commbench.figures.style import bytes_text, colour
from commbench.record import RunFile, sweep_groups, training_groups
from commbench.report import draw, load, nearest_size

PHASES = ["input", "forward", "backward", "exchange", "update"]
MILLISECONDS = [1, 10, 20, 5, 3]


def sweep(path: Path, ranks: int, sizes: tuple[int, ...] = (4096, 1 << 20)) -> Path:
    """A sweep whose slowest rank takes ranks * (1 + exchange) ms at every size."""
    exchanges = ["none", "tree", "parameter-server"]
    groups = sweep_groups(sizes_bytes=sizes, exchanges=exchanges, iterations=3, ranks=ranks)
    attributes = {"ranks": ranks}
    with RunFile.create(
        path,
        kind="sweep",
        options={},
        seed=0,
        hosts=["a"] * ranks,
        devices=["cpu"] * ranks,
        groups=groups,
        attributes=attributes,
    ) as file:
        fastest = np.linspace(0.5, 1.0, ranks)
        scale = 1e-3 * ranks * (1 + np.arange(3))
        file["sweep/seconds"][:] = scale[:, None, None] * fastest
    return path


def training(path: Path, exchange: str, **attributes: object) -> Path:
    """A training of four steps on three ranks, of which rank 0 only serves."""
    conditions = {"model": "nin", "parameters": 7, "global_batch": 8, "data": "toy", "base_lr": 0.1}
    with RunFile.create(
        path,
        kind="train",
        options={},
        seed=1,
        hosts=["a"] * 3,
        devices=["cpu"] * 3,
        groups=training_groups(steps=4, ranks=3, phases=PHASES, evaluations=2),
        attributes={**conditions, "exchange": exchange, "ranks": 3, **attributes},
    ) as file:
        file["timing/seconds"][:] = 1e-3 * np.array(MILLISECONDS)
        file["timing/seconds"][:, 0] = 0
        file["eval/time_s"][:] = [1.5, np.nan]
        file["eval/top1"][:] = [0.625, np.nan]
    return path


def test_the_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    files = [sweep(tmp_path / "s4.h5", 4), training(tmp_path / "t.h5", "tree")]
    result = CliRunner().invoke(command, [*map(str, files), "--json"], catch_exceptions=False)
    told = json.loads(result.output)
    rows = {(row["exchange"], row["size_bytes"]): row["median_s"] for row in told["sweeps"]}
    assert rows["tree", 4096] == pytest.approx(8e-3)
    assert rows["parameter-server", 1 << 20] == pytest.approx(12e-3)
    (run,) = told["trainings"]
    assert (run["top1"], run["time_s"]) == ([0.625], [1.5])
    expected = dict(zip(PHASES, np.array(MILLISECONDS) / 1e3, strict=True))
    assert run["phase_s"] == pytest.approx(expected)
    assert told["remarks"] == []


def test_the_tables_name_every_run(tmp_path: Path) -> None:
    files = [sweep(tmp_path / "s.h5", 2), training(tmp_path / "t.h5", "parameter-server")]
    result = CliRunner().invoke(command, [*map(str, files)], catch_exceptions=False)
    assert "62.50%" in result.output
    assert "1 MiB" in result.output
    assert "4.000" in result.output  # tree on two ranks, in ms


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_is_drawn(tmp_path: Path, suffix: str) -> None:
    files = [sweep(tmp_path / f"s{ranks}.h5", ranks) for ranks in (8, 2, 4)]
    files += [training(tmp_path / f"{name}.h5", name) for name in ("tree", "parameter-server")]
    sweeps, trainings = load(files)
    assert [one.ranks for one in sweeps] == [2, 4, 8]
    output = tmp_path / f"figure.{suffix}"
    draw(sweeps, trainings, output, title="Parameter server against tree")
    assert output.stat().st_size > 20_000
    if suffix == "svg":
        # matplotlib draws text as shapes and names them in comments.
        text = output.read_text()
        assert "<!-- Accuracy over time -->" in text
        assert "<!-- ranks p -->" in text


def test_runs_that_differ_in_more_than_the_exchange_are_pointed_out(tmp_path: Path) -> None:
    files = [
        training(tmp_path / "a.h5", "tree"),
        training(tmp_path / "b.h5", "ring", global_batch=16),
    ]
    output = tmp_path / "figure.png"
    result = CliRunner().invoke(
        command, [*map(str, files), "--output", str(output)], catch_exceptions=False
    )
    assert "Beware: runs differ in global_batch: 16, 8" in result.output
    assert output.exists()


def test_a_run_that_was_killed_at_once_is_drawn_as_far_as_it_got(tmp_path: Path) -> None:
    path = training(tmp_path / "t.h5", "tree")
    with h5py.File(path, "r+") as file:
        file["timing/seconds"][:] = np.nan
        file["eval/top1"][:] = np.nan
    sweeps, trainings = load([path])
    draw(sweeps, trainings, tmp_path / "figure.png")
    assert trainings[0].top1 == []
    assert np.isnan(trainings[0].phase_s["exchange"])


def test_the_size_for_the_time_over_ranks(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one.h5", 2, (1000, 4096, 1 << 20))
    other = sweep(tmp_path / "other.h5", 4, (4096, 1 << 20))
    third = sweep(tmp_path / "third.h5", 8, (5,))
    sweeps, _ = load([one, other])
    assert nearest_size(sweeps, None) == 1 << 20
    assert nearest_size(sweeps, 1000) == 4096
    with pytest.raises(UserError, match="no buffer size in common"):
        nearest_size(load([one, third])[0], None)


@pytest.mark.parametrize(("name", "told"), [("f.txt", "must end in"), ("no/f.png", "no folder")])
def test_impossible_outputs_are_told(tmp_path: Path, name: str, told: str) -> None:
    sweeps, trainings = load([sweep(tmp_path / "s.h5", 2)])
    with pytest.raises(UserError, match=told):
        draw(sweeps, trainings, tmp_path / name)


def test_one_colour_an_exchange() -> None:
    names = [
        "none",
        "native",
        "tree",
        "ring",
        "parameter-server",
        "parameter-server@server=dedicated",
    ]
    assert len({colour(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (4096, "4 KiB"), (16 << 20, "16 MiB"), (30_380_704, "30.4 MB"), (1500, "1.5 kB")],
)
def test_sizes_as_people_say_them(size: int, text: str) -> None:
    assert bytes_text(size) == text
