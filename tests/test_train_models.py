"""Every model trained by `mpirun -n P commbench train`, narrow and for two steps."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench.workloads.models import published_models
from mpirun import mpirun

SCRIPT = Path(__file__).parent / "train_models.py"
COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 240
SMALL = ["--data", "synthetic", "--width", "0.0625", "--classes", "10", "--batch", "10"]
NORMALISED = [m for m in published_models() if m.startswith(("alexnet-bn", "resnet50"))]


def train_all(folder: Path, ranks: int, *options: str) -> dict[str, h5py.File]:
    folder.mkdir()
    models = published_models()
    command = [sys.executable, str(SCRIPT), str(folder), *SMALL, "--steps", "2", *options]
    mpirun(ranks, [*command, "--", *models], timeout_s=TIMEOUT_S)
    return {model: h5py.File(folder / f"{model}.h5") for model in models}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, h5py.File]:
    return train_all(folder / "alone", 1)


@pytest.fixture(scope="module")
def pair(folder: Path) -> dict[str, h5py.File]:
    return train_all(folder / "pair", 2, "--exchange", "ring")


@pytest.mark.slow
def test_every_model_trains_on_two_ranks_as_on_one(
    alone: dict[str, h5py.File], pair: dict[str, h5py.File]
) -> None:
    for model, file in pair.items():
        assert file.attrs["status"] == "completed"
        assert file.attrs["model"] == model
        for name in ("steps/loss", "eval/loss", "eval/top1"):
            assert np.isfinite(file[name][:]).all(), (model, name)
        if model not in NORMALISED:
            for name in ("steps/loss", "eval/loss"):
                np.testing.assert_allclose(
                    file[name][:], alone[model][name][:], rtol=2e-5, err_msg=f"{model} {name}"
                )


@pytest.mark.slow
def test_a_server_without_data_changes_nothing_and_runs_repeat_themselves(
    folder: Path, pair: dict[str, h5py.File]
) -> None:
    """Of BatchNorm too: the workers' shares, and so their statistics, are those of two ranks."""
    options = ("--exchange", "parameter-server", "--server", "dedicated")
    served = train_all(folder / "served", 3, *options)
    for model, file in pair.items():
        for name in ("steps/loss", "eval/loss"):
            np.testing.assert_allclose(
                served[model][name][:], file[name][:], rtol=2e-5, err_msg=f"{model} {name}"
            )
    again = train_all(folder / "again", 2, "--exchange", "ring")
    for model, file in pair.items():
        assert again[model].attrs["weights_sha256"] == file.attrs["weights_sha256"], model
        assert again[model]["eval/loss"][:] == file["eval/loss"][:], model


@pytest.mark.slow
def test_the_run_file_tells_how_a_model_was_adapted(pair: dict[str, h5py.File]) -> None:
    told = {model: file.attrs["adapted"] for model, file in pair.items()}
    assert told["nin"] == (
        "image size 48 instead of 224, 10 classes instead of 1000, width x0.0625"
    )
    assert told["lstm-mnist"] == "width x0.0625"
    assert told["lstm-ptb@size=large"] == "10 classes instead of 10000, width x0.0625"
    sizes = {model: file.attrs["option_image_size"] for model, file in pair.items()}
    assert (sizes["nin"], sizes["lstm-mnist"], sizes["speech-mlp"]) == (48, 28, "")
    assert pair["alexnet@groups=2"].attrs["option_width"] == 0.0625
    assert pair["speech-mlp"].attrs["option_data"] == "synthetic"


def test_each_epoch_reads_the_text_from_its_start_with_a_state_of_zero(tmp_path: Path) -> None:
    # 2380 streams of 42 words: two windows an epoch. The weights hardly move.
    output = tmp_path / "run.h5"
    options = ["--batch", "2380", "--steps", "4", "--lr", "1e-12", "--output", str(output)]
    model = ["--model", "lstm-ptb", "--classes", "50", "--width", "0.0625"]
    mpirun(1, [COMMBENCH, "train", *model, *options], timeout_s=TIMEOUT_S)
    with h5py.File(output) as file:
        first, second, third, fourth = file["steps/loss"][:]
    assert first == pytest.approx(third, rel=1e-6)
    assert second == pytest.approx(fourth, rel=1e-6)
    assert first != pytest.approx(second, rel=1e-6)
    assert first == pytest.approx(np.log(50), rel=0.01)  # a mean over words, not their sum


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "alexnet@groups=3"], "groups=3 is not one of 1, 2"),
        (["--model", "lstm-ptb", "--image-size", "28"], "drop --image-size"),
        (["--model", "lstm-ptb", "--data", "fashion-mnist-subset"], "use --data synthetic"),
        (["--model", "lstm-ptb", "--batch", "5000"], "enough for 4761 windows of 20"),
        (["--model", "resnet50", "--batch", "3"], "use 4 or more"),
        (["--model", "speech-mlp", "--data-folder", "/tmp"], "drop --data-folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], told: str) -> None:
    output = ["--output", str(tmp_path / "run.h5"), "--steps", "1"]
    command = [COMMBENCH, "train", "--width", "0.0625", *output, *options]
    result = mpirun(2, command, timeout_s=TIMEOUT_S, check=False)
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []
