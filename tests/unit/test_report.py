"""`commbench report` on run files whose numbers are known."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from commbench.cli.report import command
from commbench.errors import UserError
from commbench.figures.ranks import theory
from commbench.figures.sheet import compose, default_title, panels
from commbench.figures.style import bytes_text, looks, seconds_text
from commbench.record import RunFile, sweep_groups, training_groups
from commbench.report import read_report

PHASES = ["input", "forward", "backward", "exchange", "update"]
EXCHANGES = ["none", "parameter-server", "tree"]
PNG = b"\x89PNG\r\n\x1a\n"


def sweep(
    path: Path,
    ranks: int,
    *,
    sizes: tuple[int, ...] = (4096, 65536),
    transport: str = "mpi",
    scale: float = 1.0,
    done: bool = True,
) -> np.ndarray:
    """A sweep whose slowest rank is always the last; returns (sizes, exchanges, iterations) s."""
    run = RunFile.create(
        path,
        kind="sweep",
        options={},
        seed=0,
        hosts=["a"] * ranks,
        devices=["cpu"] * ranks,
        attributes={"ranks": ranks, "transport": transport, "dtype": "float32"},
        groups=sweep_groups(
            sizes_bytes=sizes,
            exchanges=EXCHANGES,
            iterations=5,
            ranks=ranks,
            hottest_rank_bytes=[[0, size * (ranks - 1), 2 * size] for size in sizes],
        ),
    )
    cells = np.arange(1, 1 + len(sizes) * len(EXCHANGES) * 5, dtype=float)
    slowest = scale * 1e-4 * cells.reshape(len(sizes), len(EXCHANGES), 5)
    run["sweep/seconds"][:] = slowest[..., None] * np.linspace(0.5, 1.0, ranks)
    run["sweep/wrong"][:] = [np.nan, 0, 0]
    if done:
        run.finish()
    return slowest


def training(
    path: Path, exchange: str, ranks: int = 2, wire: str = "float32", **changes: object
) -> None:
    run = RunFile.create(
        path,
        kind="train",
        options={"image_size": 48, "lr": 0.01, "wire": wire},
        seed=1,
        hosts=["a"] * ranks,
        devices=["cpu"] * ranks,
        attributes={
            "model": "nin",
            "data": "synthetic",
            "global_batch": 32,
            "exchange": exchange,
            "ranks": ranks,
            **changes,
        },
        groups=training_groups(steps=4, ranks=ranks, phases=PHASES, evaluations=2),
    )
    run["timing/seconds"][:] = np.array([0.01, 0.03, 0.04, 0.1, 0.02])
    if "dedicated" in exchange:
        run["timing/seconds"][:, 0] = [0, 0, 0, 0.2, 0]
    for index, (time_s, top1) in enumerate([(10.0, 0.5), (20.0, 0.75)]):
        for name in ("step", "epoch", "top5", "loss"):
            run[f"eval/{name}"][index] = 1.0
        run["eval/time_s"][index], run["eval/top1"][index] = time_s, top1
    run.finish()


def report(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == code
    return result.stdout


def test_json_has_the_files_own_numbers(tmp_path: Path) -> None:
    slowest = sweep(tmp_path / "sweep.h5", 4)
    training(tmp_path / "train.h5", "tree")
    told = json.loads(report(tmp_path / "sweep.h5", tmp_path / "train.h5", "--json"))
    cells = {(row["exchange"], row["size"]): row for row in told["sweeps"]}
    for i, size in enumerate((4096, 65536)):
        for j, exchange in enumerate(EXCHANGES):
            row, own = cells[exchange, size], 1e6 * slowest[i, j]
            assert (row["ranks"], row["iterations"]) == (4, 5)
            expected = {
                "min": own.min(),
                "median": np.median(own),
                "p99": np.percentile(own, 99),
                "max": own.max(),
            }
            assert row["time_us"] == pytest.approx(expected)
    assert cells["none", 4096]["wrong"] is None
    assert cells["tree", 65536]["hottest_bytes"] == 131072
    [run] = told["trainings"]
    assert run["evaluations"]["time_s"] == [10, 20]
    assert run["evaluations"]["top1"] == [0.5, 0.75]
    assert run["phase_s"] == pytest.approx(
        dict(zip(PHASES, [0.01, 0.03, 0.04, 0.1, 0.02], strict=True))
    )
    assert run["phase_share"]["exchange"] == pytest.approx(0.5)
    assert run["step_s"] == pytest.approx(0.2)
    assert told["figure"] is None


def test_the_form_of_gradients_is_part_of_a_runs_name(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.h5" for number in range(2)]
    for path, wire in zip(files, ("float32", "topk:0.01"), strict=True):
        training(path, "tree", wire=wire)
    told = json.loads(report(*files, "--json"))
    assert [run["label"] for run in told["trainings"]] == [
        "tree, 2 ranks",
        "tree topk:0.01, 2 ranks",
    ]


def test_a_figure_of_everything(tmp_path: Path) -> None:
    files = [tmp_path / f"sweep-{ranks}.h5" for ranks in (2, 4, 8)]
    for path, ranks in zip(files, (2, 4, 8), strict=True):
        sweep(path, ranks)
    for exchange in ("tree", "parameter-server"):
        files.append(tmp_path / f"{exchange}.h5")
        training(files[-1], exchange)
    png, svg = tmp_path / "all.png", tmp_path / "all.svg"
    text = report(*files, "--output", png, "--title", "A title")
    assert "tree, 2 ranks" in text
    assert f"figure: {png}" in text
    image = png.read_bytes()
    assert image.startswith(PNG)
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    assert (width, height) > (1800, 1200)
    assert 50_000 < len(image) < 2_000_000
    report(*files, "--output", svg, "--title", "A title")
    assert "A title" in svg.read_text()
    before = svg.read_bytes()
    report(*files, "--output", svg, "--title", "A title")
    assert svg.read_bytes() == before


def test_legends_and_labels_lie_inside_the_figure_and_apart(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("two.h5", "four.h5", "tree.h5", "dedicated.h5")]
    sweep(files[0], 2)
    sweep(files[1], 4)
    training(files[2], "tree")
    training(files[3], "parameter-server@server=dedicated", ranks=3)
    figure = compose(read_report(files), None, None)
    figure.canvas.draw()
    page = figure.bbox
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert not legend.overlaps(axes.bbox)
        outer = axes.get_tightbbox()
        assert page.x0 <= outer.x0 < outer.x1 <= page.x1
        assert page.y0 <= outer.y0 < outer.y1 <= page.y1
        for other in figure.axes:
            assert other is axes or not outer.overlaps(other.get_tightbbox())


def test_only_panels_with_numbers_are_drawn(tmp_path: Path) -> None:
    sweep(tmp_path / "four.h5", 4)
    sweep(tmp_path / "two.h5", 2)
    training(tmp_path / "train.h5", "ring")
    four, two, train = (tmp_path / name for name in ("four.h5", "two.h5", "train.h5"))
    assert list(panels(read_report([four]), None)) == ["sizes"]
    assert list(panels(read_report([train]), None)) == ["accuracy", "phases"]
    assert list(panels(read_report([four, two]), None)) == ["sizes", "ranks"]
    assert {one.ranks for one in read_report([four, two]).most_ranks()} == {4}


def test_over_ranks_takes_the_nearest_size_that_all_have(tmp_path: Path) -> None:
    sweep(tmp_path / "a.h5", 2, sizes=(4096, 8192, 65536))
    sweep(tmp_path / "b.h5", 4, sizes=(4096, 8192))
    sweep(tmp_path / "c.h5", 8, sizes=(100, 200))
    shared = read_report([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert {one.size for one in shared.over_ranks(None)} == {8192}
    assert {one.size for one in shared.over_ranks(5000)} == {4096}
    assert [one.ranks for one in shared.over_ranks(60000)] == [2, 2, 2, 4, 4, 4]
    nothing = read_report([tmp_path / "a.h5", tmp_path / "c.h5"])
    assert nothing.over_ranks(None) == []
    assert list(panels(nothing, None)) == ["sizes"]


def test_equal_sweeps_are_pooled_and_others_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5")]
    first = sweep(paths[0], 2)
    second = sweep(paths[1], 2, scale=3.0)
    sweep(paths[2], 2, transport="shared-memory")
    pooled = read_report(paths[:2])
    assert len(pooled.timings) == 6
    both = np.concatenate([first[0, 2], second[0, 2]])
    [tree] = [one for one in pooled.timings if (one.exchange, one.size) == ("tree", 4096)]
    assert tree.time_us()["median"] == pytest.approx(1e6 * np.median(both))
    mixed = read_report(paths)
    assert len(mixed.timings) == 12
    assert any("differ in transport" in note for note in mixed.notes)
    assert not any("differ" in note for note in pooled.notes)


def test_runs_that_are_hard_to_compare_are_told_and_drawn(tmp_path: Path) -> None:
    training(tmp_path / "a.h5", "tree")
    training(tmp_path / "b.h5", "ring", global_batch=64)
    training(tmp_path / "c.h5", "ring")
    files = [tmp_path / "a.h5", tmp_path / "b.h5"]
    notes = read_report(files).notes
    assert any("global batch: 32, 64" in note for note in notes)
    assert not any("model" in note for note in notes)
    assert "global batch: 32, 64" in report(*files, "--output", tmp_path / "figure.png")
    alike = read_report([tmp_path / "b.h5", tmp_path / "c.h5"])
    assert [run.label for run in alike.trainings] == ["ring, 2 ranks (b)", "ring, 2 ranks (c)"]


def test_a_dedicated_server_is_left_out_of_a_workers_step(tmp_path: Path) -> None:
    training(tmp_path / "run.h5", "parameter-server@server=dedicated", ranks=3)
    [run] = read_report([tmp_path / "run.h5"]).trainings
    assert run.phase_s["exchange"] == pytest.approx(0.1)
    assert run.phase_s["forward"] == pytest.approx(0.03)


def test_a_killed_run_is_read_as_far_as_it_went(tmp_path: Path) -> None:
    sweep(tmp_path / "run.h5", 2, done=False)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["sweep/seconds"][1:] = np.nan
        file["sweep/seconds"][0, 2, 3:] = np.nan
    found = read_report([tmp_path / "run.h5"])
    assert {one.size for one in found.timings} == {4096}
    assert {one.exchange: len(one.slowest_s) for one in found.timings}["tree"] == 3
    assert any("killed: 13 of 30 samples" in note for note in found.notes)
    report(tmp_path / "run.h5", "--output", tmp_path / "figure.png")


def test_more_ranks_than_cores_is_told(tmp_path: Path) -> None:
    sweep(tmp_path / "run.h5", 4)
    for cores, told in ((2, True), (4, False)):
        with h5py.File(tmp_path / "run.h5", "r+") as file:
            file.attrs["cpu_count"] = cores
        notes = read_report([tmp_path / "run.h5"]).notes
        assert any("More ranks than cores (4 on 2)" in note for note in notes) == told


def test_bad_input_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "run.h5", 2)
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "folder.png").mkdir()
    run, before = tmp_path / "run.h5", sorted(tmp_path.iterdir())
    for arguments, told in (
        ([tmp_path / "none.h5"], "no such file"),
        ([tmp_path / "text.h5"], "no HDF5"),
        ([run, run], "named twice"),
        ([run, "--output", tmp_path / "figure.jpg"], "ends in .png, .svg or .html"),
        ([run, "--output", run], "ends in .png, .svg or .html"),
        ([run, "--output", tmp_path / "nowhere/a.png"], "there is no folder"),
        ([run, "--output", tmp_path / "folder.png"], "is a folder"),
    ):
        with pytest.raises(UserError, match=told):
            report(*arguments)
    assert sorted(tmp_path.iterdir()) == before
    assert report(run, "--size", "4X", code=2) == ""


def test_an_exchange_looks_the_same_in_every_figure() -> None:
    few, many = looks(["ring", "tree"]), looks(["none", "native", "tree", "ring", "butterfly"])
    assert few["ring"] == many["ring"]
    assert len({look.colour for look in many.values()}) == 5
    both = looks(["parameter-server", "parameter-server@server=dedicated"])
    colocated, dedicated = both.values()
    assert colocated.colour == dedicated.colour
    assert colocated.marker != dedicated.marker


def test_theory_is_scaled_at_the_fewest_ranks() -> None:
    assert theory("parameter-server", [2, 4, 8], 10.0) == [10, 20, 40]
    assert theory("tree", [2, 4, 8], 10.0) == pytest.approx([10, 20, 30])


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (4096, "4 KiB"), (3 << 19, "1.5 MiB"), (1 << 30, "1 GiB")]
)
def test_sizes_as_text(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_times_as_text() -> None:
    assert [seconds_text(time) for time in (2, 2500, 3e6)] == ["2 µs", "2.5 ms", "3 s"]


def test_the_title_says_what_was_trained(tmp_path: Path) -> None:
    training(tmp_path / "a.h5", "tree")
    sweep(tmp_path / "b.h5", 2)
    found = read_report([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert default_title(found) == "nin on synthetic: tree"
    assert default_title(read_report([tmp_path / "b.h5"])) == "Exchanges: parameter-server, tree"
