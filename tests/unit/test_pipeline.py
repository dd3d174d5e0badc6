"""The stages of a pipeline, what is kept of them, and the roofline that is read from it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from commbench.cli import commands
from commbench.errors import UserError
from commbench.pipeline.measure import PipelineSettings, _enough, measure
from commbench.pipeline.roofline import Rate, Roofline, read_roofline
from commbench.workloads.data.textures import write_textures
from pictures import CLASSES, image_net

SMALL = (
    *("--model", "lstm-mnist", "--classes", "3", "--width", "0.1", "--image-size", "12"),
    *("--batch-size", "4,2", "--seconds", "0.01", "--threads", "1"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = image_net(tmp_path_factory.mktemp("pipeline") / "imagenet")
    broken = root / "train" / CLASSES[1] / f"{CLASSES[1]}_3.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["pipeline", *map(str, arguments)])


def packed(folder: Path, kind: str) -> Path:
    path = folder.parent / f"all.{kind}"
    if not path.exists():
        arguments = ["data", "pack", str(folder), str(path)]
        assert CliRunner().invoke(commands, arguments).exception is None
    return path


@pytest.mark.parametrize(
    ("kind", "augment_on", "loaders"),
    [("folder", "cpu", 2), ("lmdb", "cpu", 0), ("h5", "device", 1)],
)
def test_all_stages_are_timed_and_kept(
    folder: Path, tmp_path: Path, kind: str, augment_on: str, loaders: int
) -> None:
    data = folder if kind == "folder" else packed(folder, kind)
    path = tmp_path / "run.h5"
    options = ("--augment-on", augment_on, "--loaders", loaders)
    result = run("--data", data, "-o", path, *options, *SMALL)
    assert result.exception is None, result.output
    with h5py.File(path) as file:
        assert file.attrs["kind"] == "pipeline"
        assert file.attrs["status"] == "completed"
        assert file.attrs["option_loaders"] == loaders
        table = file["pipeline"]
        rates = json.loads(file.attrs["images_per_s"])
        stages = ["read", "decode", "augment", "input", "train 2", "train 4"]
        assert table["stage"].asstr()[:].tolist() == list(rates) == stages
        assert min(rates.values()) > 0
        rounds = np.isfinite(table["seconds"][:]).sum(axis=1)
        assert (rounds == rounds[0]).all()
        assert 3 <= rounds[0] <= 6
        assert (table["seconds"][:, : rounds[0]] > 0).all()
        assert table["samples"][:, 0].tolist() == [24, 24, 24, 24, 2, 4]
        read, decode, augment, _, two, four = table["bytes"][:, 0]
        assert read == decode == sum(p.stat().st_size for p in (folder / "train").rglob("*.JPEG"))
        assert augment > 24 * 3 * 12 * 12
        assert 2 * two == four == 4 * 3 * 12 * 12 * 4
    measured = read_roofline(path)
    assert [rate.batch for rate in measured.training] == [2, 4]
    for told in ("read ", "decode ", "augment ", "input ", "train, batch 4", "batch 2: bound by"):
        assert told in result.output
    figure = path.with_suffix(".png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert f"figure: {figure}" in result.output


def test_of_data_in_memory_nothing_is_read_or_decoded(tmp_path: Path) -> None:
    plot = tmp_path / "roofline.svg"
    result = run(
        *("--data", "fashion-mnist-subset", "-o", tmp_path / "run.h5", "--plot", plot, "--json"),
        *(word if word != "3" else "10" for word in SMALL),
    )
    assert result.exception is None, result.output
    told = json.loads(result.stdout)
    assert [rate["stage"] for rate in told["input"]] == ["input"]
    assert {rate["bound"] for rate in told["training"]} <= {"input", "training"}
    assert told["slowest_input_stage"] == "input"
    assert "images a second" in plot.read_text()
    lines = read_roofline(tmp_path / "run.h5").told()
    assert any("is in memory: nothing is read or decoded" in line for line in lines)


def test_what_cannot_be_measured_is_refused_in_a_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, told in (
        (("--data", "nowhere.lmdb"), "no such file"),
        (("--data", folder, "--plot", tmp_path / "x.pdf"), "a figure's name ends in"),
        (("--data", folder, "--model", "x"), "unknown model 'x'"),
        (("--data", folder, "--max-corrupt", "0"), "1 corrupt pictures"),
        (("--data", folder, "--model", "resnet50", "--batch-size", "1"), "samples or more"),
    ):
        result = run(*SMALL, *arguments, "-o", tmp_path / "run.h5")
        assert isinstance(result.exception, UserError)
        assert told in str(result.exception)
        assert not (tmp_path / "run.h5").exists()
    assert "give numbers of samples" in run("--batch-size", "2,x").output
    monkeypatch.setenv("PMI_SIZE", "2")
    assert "start it without mpirun" in str(run().exception)
    with pytest.raises(UserError, match="no such file"):
        read_roofline(tmp_path / "run.h5")


def test_a_measurement_ends_after_its_time_and_enough_rounds() -> None:
    assert not _enough(2, 100.0, 1.0)
    assert _enough(3, 2.0, 1.0)
    assert not _enough(5, 1.9, 1.0)
    assert _enough(6, 1.0, 1.0)
    assert not _enough(6, 0.9, 1.0)


def rate(stage: str, images_per_s: float, batch: int = 0) -> Rate:
    return Rate(stage, batch, images_per_s, 0.0, np.inf, 1.0)


def test_the_lower_of_input_and_training_is_the_bound() -> None:
    parts = [rate("read", 900.0), rate("decode", 200.0), rate("augment", 500.0), rate("input", 120)]
    training = [rate("train", 60.0, 8), rate("train", 240.0, 64)]
    facts = {"in_memory": False, "shares_cores": False, "data": "x"}
    measured = Roofline(facts, parts, training)
    assert [measured.bound(one) for one in training] == ["training", "input"]
    assert measured.slowest.stage == "decode"
    assert measured.told() == [
        "batch 8: bound by training; the input is 2 times as fast",
        "batch 64: bound by the input, most of all to decode; training is 2 times as fast",
    ]


def test_a_gpu_is_a_device_of_its_own(folder: Path, tmp_path: Path) -> None:
    settings = PipelineSettings(
        model="lstm-mnist", data=str(folder), classes=3, image_size=12, device="cuda",
        batches=(2,), output=tmp_path / "run.h5",
    )  # fmt: skip
    with pytest.raises(UserError, match="cuda"):
        measure(settings)


@pytest.mark.gpu
def test_all_stages_are_timed_on_a_gpu(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    result = run("--data", folder, "-o", path, "--device", "cuda", *SMALL)
    assert result.exception is None, result.output
    assert not read_roofline(path).facts["shares_cores"]


def test_textures_are_jpegs_of_imagenets_layout(tmp_path: Path) -> None:
    from commbench.workloads.data.files import open_pictures

    found = []
    for name in ("one", "two"):
        write_textures(tmp_path / name, train=6, val=2, classes=2)
        classes, sources = open_pictures(tmp_path / name)
        found.append([sources["train"].read(index) for index in range(6)])
    assert classes == ["n00000000", "n00000001"]
    assert sources["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found[0] == found[1]
    assert 60e3 < np.mean([len(data) for data in found[0]]) < 180e3
    with pytest.raises(UserError, match="cannot write"):
        write_textures(tmp_path / "one", train=1)
