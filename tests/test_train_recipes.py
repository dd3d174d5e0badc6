"""Recipes, micro-batches, precision and growing batches in `mpirun -n P commbench train`."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from commbench.workloads.models import model_names
from commbench.workloads.recipes import recipe_names
from mpirun import mpirun

COMMBENCH = str(Path(sys.executable).parent / "commbench")
SCRIPT = str(Path(__file__).parent / "train_recipes.py")
TIMEOUT_S = 500
SMALL = ["--data", "synthetic", "--width", "0.0625", "--classes", "10"]
MLP = ["--model", "speech-mlp", *SMALL, "--batch", "250"]
# At a rate this small rounding does not grow.
GROWING = [*MLP, "--epochs", "9", "--lr", "0.001"]
OWN = """
reference_batch = 250
reference_lr = 0.05
reference_epochs = 9
lr_scaling = "linear"
momentum = 0.5
weight_decay = 1e-4
[optimizer]
{optimizer}
[batch]
at = [3, 6]
factor = 2
[schedule]
kind = "constant"
"""
OPTIMIZERS = {
    "caffe-sgd": 'kind = "caffe-sgd"\nmomentum_correction = true',
    "sgd": 'kind = "sgd"\nnesterov = true',
    "lars": 'kind = "lars"\nskip = ["bias", "norm"]',
    "lars-clip": 'kind = "lars-clip"\ntrust = 1e-7',
    "rmsprop-sgd": 'kind = "rmsprop-sgd"\ncenter = 3\nperiod = 2',
    "adam": 'kind = "adam"',
}


def train_all(
    folder: Path, ranks: int, jobs: dict[str, list[str]], timeout_s: float = TIMEOUT_S
) -> dict[str, h5py.File]:
    """Each job's run file, of one MPI job for all of them."""
    folder.mkdir(exist_ok=True)
    listed = [(f"{name}.h5", options) for name, options in jobs.items()]
    (folder / "jobs.json").write_text(json.dumps(listed))
    mpirun(ranks, [sys.executable, SCRIPT, str(folder)], timeout_s=timeout_s)
    return {name: h5py.File(folder / f"{name}.h5") for name in jobs}


def own(folder: Path, kind: str) -> str:
    path = folder / f"{kind}.toml"
    text = OWN.format(optimizer=OPTIMIZERS[kind])
    path.write_text(text)
    return str(path)


@pytest.mark.slow
def test_every_model_takes_every_optimizer(tmp_path: Path) -> None:
    jobs = {}
    for kind, optimizer in OPTIMIZERS.items():
        text = OWN.format(optimizer=optimizer)
        head, rest = text.split("[batch]")
        (tmp_path / f"{kind}.toml").write_text(head + "[schedule]" + rest.split("[schedule]")[1])
        for model in model_names():
            options = ["--model", model, *SMALL, "--batch", "8", "--steps", "2"]
            recipe = ["--recipe", str(tmp_path / f"{kind}.toml"), "--lr", "1e-4"]
            jobs[f"{model}-{kind}"] = [*options, *recipe]
    files = train_all(tmp_path, 2, jobs)
    for name, file in files.items():
        assert file.attrs["status"] == "completed", name
        assert np.isfinite(file["steps/loss"][:]).all(), name
        assert file.attrs["optimizer"] in name
        assert file.attrs["skipped_steps"] == 0
    for model in model_names():
        digests = {files[f"{model}-{kind}"].attrs["weights_sha256"] for kind in OPTIMIZERS}
        assert len(digests) == len(OPTIMIZERS), model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def pair(folder: Path) -> dict[str, h5py.File]:
    """Runs on two ranks that several tests look at."""
    growing = own(folder, "sgd")
    jobs = {name: [*MLP, "--steps", "3", "--recipe", name] for name in recipe_names()}
    plain = [*MLP, "--steps", "4", "--recipe", "goyal-resnet50"]
    jobs |= {
        "plain": plain,
        "parts": [*plain, "--accumulate", "3"],
        "smooth": [*plain, "--label-smoothing", "0.1"],
        "bfloat16": [*plain, "--precision", "bfloat16"],
        "fixed": [*plain, "--precision", "float16", "--loss-scale", "1024"],
        "growing": [*GROWING, "--recipe", growing],
        "words": ["--model", "lstm-ptb", *SMALL, "--batch", "20", "--steps", "3"],
        "words-parts": [
            *["--model", "lstm-ptb", *SMALL, "--batch", "20", "--steps", "3"],
            *["--accumulate", "2"],
        ],
    }
    return train_all(folder / "pair", 2, jobs)


def losses(file: h5py.File) -> np.ndarray:
    return file["steps/loss"][:]


def test_every_recipe_trains(pair: dict[str, h5py.File]) -> None:
    for name in recipe_names():
        assert pair[name].attrs["recipe"] == name
        assert np.isfinite(pair[name]["eval/loss"][:]).all()
    assert pair["firecaffe-nin"].attrs["base_lr"] == 0.001
    assert pair["goyal-resnet50"].attrs["base_lr"] == pytest.approx(0.1 * 250 / 256)
    assert pair["jia-resnet50-64k"].attrs["precision"] == "float16"
    assert pair["lars-resnet50"].attrs["optimizer"] == "lars"


def test_micro_batches_change_rounding_only(pair: dict[str, h5py.File]) -> None:
    for whole, parts in (("plain", "parts"), ("words", "words-parts")):
        np.testing.assert_allclose(losses(pair[parts]), losses(pair[whole]), rtol=2e-5)
        np.testing.assert_allclose(
            pair[parts]["eval/loss"][:], pair[whole]["eval/loss"][:], rtol=2e-5
        )
    assert pair["parts"].attrs["option_accumulate"] == 3


def test_sixteen_bits_follow_the_curve_of_float32(pair: dict[str, h5py.File]) -> None:
    for name in ("bfloat16", "fixed"):
        np.testing.assert_allclose(losses(pair[name]), losses(pair["plain"]), rtol=0.02)
        assert (losses(pair[name]) != losses(pair["plain"])).any()
    assert pair["fixed"].attrs["loss_scale"] == 1024
    assert pair["bfloat16"].attrs["loss_scale"] == 1
    assert (losses(pair["smooth"])[0]) != losses(pair["plain"])[0]


def test_the_run_file_tells_the_batch_of_each_step(pair: dict[str, h5py.File]) -> None:
    file = pair["growing"]
    images = file.attrs["train_images"]
    epochs = [images // 250] * 3, [images // 500] * 3, [images // 1000] * 3
    sizes = np.concatenate(
        [np.full(sum(steps), batch) for steps, batch in zip(epochs, (250, 500, 1000), strict=True)]
    )
    np.testing.assert_array_equal(file["steps/batch"][:], sizes)
    assert file["steps/epoch"][-1] == 9
    assert file["steps/lr"][:] == pytest.approx(np.full(len(sizes), 0.001))
    np.testing.assert_array_equal(file["eval/epoch"][:], np.arange(1, 10))
    assert np.isfinite(losses(file)).all()
    assert file["eval/loss"][-1] < file["eval/loss"][0]


def test_a_growing_batch_is_the_same_on_any_number_of_ranks(
    folder: Path, pair: dict[str, h5py.File]
) -> None:
    jobs = {"growing": [*GROWING, "--recipe", own(folder, "sgd")]}
    served = [*jobs["growing"], "--exchange", "parameter-server", "--server", "dedicated"]
    alone = train_all(folder / "alone", 1, jobs)["growing"]
    three = train_all(folder / "three", 3, {"growing": served})["growing"]
    for file in (alone, three):
        np.testing.assert_allclose(losses(file), losses(pair["growing"]), rtol=1e-3)
        np.testing.assert_array_equal(file["steps/batch"][:], pair["growing"]["steps/batch"][:])


def test_an_overflow_on_any_rank_leaves_the_step_out_on_all(folder: Path) -> None:
    """A fixed scale of 2^40 makes infinities in every step: the weights stay as they were."""
    options = [*MLP, "--precision", "float16", "--recipe", "goyal-resnet50"]
    jobs = {
        "skips": [*options, "--steps", "3", "--loss-scale", "1e12"],
        "starts": [*options, "--steps", "1", "--loss-scale", "1e12", "--exchange", "ring"],
    }
    files = train_all(folder / "overflow", 2, jobs)
    assert files["skips"].attrs["skipped_steps"] == 3
    assert files["starts"].attrs["skipped_steps"] == 1
    digests = {file.attrs["weights_sha256"] for file in files.values()}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--loss-scale", "8"], "--loss-scale is for --precision float16"),
        (["--accumulate", "126"], "2 workers x 126 micro-batches: each needs a sample; use 252"),
        (["--exchange", "ps-async", "--recipe", "lars-resnet50"], "norms of whole gradients"),
        (["--exchange", "ps-async", "--recipe", "legw-lstm-ptb"], "norm of the whole gradient"),
        (["--exchange", "ps-async", "--precision", "float16"], "needs a loss scale"),
        (["--wire", "topk:0.1", "--precision", "float16"], "use --precision bfloat16"),
        (["--recipe", "smith-resnet50", "--batch", "8000"], "grows the batch from 8000"),
        (["--recipe", "legw-resnet50", "--batch", "2000", "--lr", "0"], "--lr"),
        (["--recipe", "mine.toml"], "cannot read recipe mine.toml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, options: list[str], told: str) -> None:
    output = tmp_path / "run.h5"
    command = [COMMBENCH, "train", *MLP, "--output", str(output), *options]
    result = mpirun(2, command, timeout_s=120, check=False)
    assert result.returncode == 2, result.stdout + result.stderr
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_text_does_not_take_a_growing_batch(tmp_path: Path) -> None:
    model = ["--model", "lstm-ptb", *SMALL, "--batch", "20", "--epochs", "9"]
    recipe = ["--recipe", own(tmp_path, "sgd"), "--output", str(tmp_path / "run.h5")]
    result = mpirun(1, [COMMBENCH, "train", *model, *recipe], timeout_s=120, check=False)
    assert result.returncode == 2
    assert "streams" in result.stderr
