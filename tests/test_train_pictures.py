"""Training on pictures in files, from every format, on one rank and two."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpirun import mpirun, run
from pictures import CLASSES, image_net

COMMBENCH = str(Path(sys.executable).parent / "commbench")
TIMEOUT_S = 120
SMALL = ["--image-size", "39", "--classes", "3", "--width", "0.25", "--batch", "6", "--steps", "6"]


def train(ranks: int, data: Path, output: Path, *options: str) -> h5py.File:
    arguments = ["train", "--data", str(data), "--output", str(output), *SMALL, *options]
    mpirun(ranks, [COMMBENCH, *arguments], timeout_s=TIMEOUT_S)
    return h5py.File(output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = image_net(tmp_path_factory.mktemp("pictures") / "imagenet")
    broken = root / "train" / CLASSES[1] / f"{CLASSES[1]}_3.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    return root


def test_every_format_trains_alike(folder: Path) -> None:
    alone = train(1, folder, folder.parent / "alone.h5", "--augment", "fb-resnet")
    digests = set()
    for name, loaders in (("imagenet", 0), ("all.lmdb", 1), ("all.hdf5", 3)):
        path = folder.parent / name
        if not path.exists():
            run([COMMBENCH, "data", "pack", str(folder), str(path)], TIMEOUT_S)
        options = ["--augment", "fb-resnet", "--loaders", str(loaders)]
        file = train(2, path, folder.parent / f"{name}-run.h5", *options)
        assert file.attrs["option_loaders"] == loaders
        np.testing.assert_allclose(file["steps/loss"][:], alone["steps/loss"][:], rtol=2e-5)
        assert file.attrs["data"] == str(path)
        # All 24 training pictures were met, the corrupt one by one of the ranks.
        assert file.attrs["corrupt_samples"] == 1
        names = file.attrs["corrupt_names"]
        names = json.loads(names) if isinstance(names, str) else list(names)
        assert names == [f"train/{CLASSES[1]}/{CLASSES[1]}_3.JPEG"]
        digests.add(file.attrs["weights_sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ("nowhere.lmdb", [], "no such file"),
        ("imagenet", ["--batch", "25"], "exceeds the 24 training samples"),
        ("imagenet", ["--augment", "more"], "unknown augmentation 'more'"),
        ("imagenet", ["--classes", "2"], "use --classes 3 or more"),
        # One rank alone meets it in a step, and waits half a minute for the other to say the same.
        pytest.param(
            "imagenet",
            ["--max-corrupt", "0"],
            "1 corrupt pictures, the last train/",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_refusals_are_one_line_on_all_ranks(
    folder: Path, tmp_path: Path, data: str, options: list[str], told: str
) -> None:
    output = str(tmp_path / "run.h5")
    path = str(folder.parent / data)
    arguments = ["train", "--data", path, "--output", output, *SMALL, *options]
    result = mpirun(2, [COMMBENCH, *arguments], timeout_s=TIMEOUT_S, check=False)
    lines = [line for line in result.stderr.splitlines() if line.startswith("commbench: error:")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in result.stderr
