"""Pictures in folders, LMDB and HDF5: the same pixels from all, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from commbench.cli import commands
from commbench.errors import UserError
from commbench.workloads.data import load_data, pack
from commbench.workloads.data.dataset import Dataset
from commbench.workloads.data.files import open_named, open_pictures
from commbench.workloads.data.order import worker_share
from commbench.workloads.models.dropout import sample_keys
from commbench.workloads.task import Task
from pictures import CLASSES, image_net, picture

FORMATS = ["lmdb", "h5"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_net(tmp_path / "imagenet")


def load(
    path: Path,
    max_corrupt: int = 20,
    classes: int = 3,
    augmentation: str = "goyal",
    size: int = 24,
) -> Dataset:
    task = Task("images", classes=classes, size=size)
    return load_data(
        str(path), folder=None, task=task, batch=8, seed=0, augmentation=augmentation,
        max_corrupt=max_corrupt,
    )  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["data", *map(str, arguments)])


def packed(folder: Path, name: str, *options: object) -> Path:
    destination = folder.parent / name
    result = run("pack", folder, destination, "--workers", 2, *options)
    assert result.exception is None, result.output
    assert not Path(f"{destination}.parts").exists()
    return destination


def everything(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    return data.train.batch(np.arange(len(data.train)), np.arange(len(data.train)))


def test_a_folder_has_its_classes_in_order(folder: Path) -> None:
    data = load(folder)
    assert (len(data.train), len(data.test), data.classes) == (24, 6, 3)
    assert everything(data)[1].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert data.test.batch(np.arange(6))[1].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("form", ["names", "numbers", "kaggle"])
def test_val_may_be_flat_with_a_list(folder: Path, form: str) -> None:
    lines = []
    for number, label in enumerate(CLASSES):
        for path in sorted((folder / "val" / label).iterdir()):
            name = f"ILSVRC_{7 * len(lines) % 6}"
            path.rename(folder / "val" / f"{name}.JPEG")
            told = {"names": f"{name}.JPEG {label}", "numbers": f"{name}.JPEG {number}"}
            lines.append(told.get(form, f"{name},{label} 1 2 3 4 {label} 5 6 7 8"))
        (folder / "val" / label).rmdir()
    file = folder / ("LOC_val_solution.csv" if form == "kaggle" else "val.txt")
    file.write_text("\n".join(["ImageId,PredictionString"] * (form == "kaggle") + lines) + "\n")
    labels = load(folder).test.batch(np.arange(6))[1].tolist()
    assert labels == [0, 0, 1, 1, 2, 2]
    file.write_text("\n".join([*lines[:-1], "x.JPEG n9"]))
    with pytest.raises(UserError, match="is of class n9, which train has not"):
        load(folder)


@pytest.mark.parametrize("kind", FORMATS)
def test_packed_pictures_are_the_same_to_the_last_bit(folder: Path, kind: str) -> None:
    # Of this size no JPEG is decoded smaller than it is, which raw pixels never are.
    images, labels = everything(load(folder, size=40))
    for name, options in (("plain", []), ("raw", ["--raw"])):
        path = packed(folder, f"{name}.{kind}", *options)
        again, same = everything(load(path, size=40))
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    repacked = packed(path, f"repacked.{kind}")
    assert torch.equal(images, everything(load(repacked, size=40))[0])
    small, smaller = (everything(load(one, size=16))[0] for one in (folder, repacked))
    assert not torch.equal(small, smaller)
    assert (small - smaller).abs().mean() < 0.05  # of a standard deviation
    assert run("check", path).exit_code == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_are_scaled_down_but_never_up(folder: Path, kind: str) -> None:
    from commbench.workloads.data.decoding import decode

    _, whole = open_pictures(folder)
    for size in (30, 500):
        _, small = open_pictures(packed(folder, f"size{size}.{kind}", "--size", size))
        before, after = (decode(source["train"].read(5)) for source in (whole, small))
        assert min(after.size) == min(size, *before.size)
    assert small["train"].read(5) == whole["train"].read(5)


def test_fashion_mnist_can_be_packed_without_loss(tmp_path: Path) -> None:
    from commbench.workloads.data.decoding import decode

    _, sources = open_named("fashion-mnist-subset")
    gray = sources["val"]
    decoded = np.asarray(decode(gray.read(7)))
    assert (decoded == gray.split.images[7][..., None]).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("augmentation", ["caffe", "fb-resnet"])
def test_any_number_of_workers_sees_the_same_inputs(folder: Path, augmentation: str) -> None:
    batch = np.array([3, 17, 0, 23, 9, 4])
    inputs = {}
    for workers in (1, 2, 4):
        parts = []
        for worker in range(workers):
            share = worker_share(batch, worker, workers)
            keys = sample_keys(5, 2, share).numpy()
            parts.append(load(folder, augmentation=augmentation).train.batch(share, keys)[0])
        inputs[workers] = torch.cat(parts)
    assert torch.equal(inputs[1], inputs[2])
    assert torch.equal(inputs[1], inputs[4])
    keys = sample_keys(5, 3, batch).numpy()
    another = load(folder, augmentation=augmentation).train.batch(batch, keys)[0]
    assert not torch.equal(inputs[1], another)


def spoil(folder: Path, *numbers: int) -> list[str]:
    """Cut short pictures of the second class."""
    names = []
    for number in numbers:
        path = folder / "train" / CLASSES[1] / f"{CLASSES[1]}_{number}.JPEG"
        path.write_bytes(path.read_bytes()[:200])
        names.append(f"{CLASSES[1]}/{path.name}")
    return names


def test_the_next_picture_stands_in_for_a_corrupt_one(folder: Path) -> None:
    names = spoil(folder, 2, 7)
    data = load(folder, max_corrupt=2)
    keys = np.array([1, 1, 2, 2], np.int64)
    images, labels = data.train.batch(np.array([10, 11, 15, 16]), keys)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[2], images[3])
    assert labels.tolist() == [1, 1, 2, 2]
    assert data.corrupt is not None
    assert list(data.corrupt.names) == [f"train/{name}" for name in names]
    with pytest.raises(UserError, match=rf"2 corrupt pictures, the last train/{names[1]}.*--max-c"):
        everything(load(folder, max_corrupt=1))
    shutil.rmtree(folder / "train" / CLASSES[0])
    (folder / "train" / CLASSES[0]).mkdir()
    for path in (folder / "train").rglob("*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="not one of 16 pictures can be read"):
        everything(load(folder, max_corrupt=100))


@pytest.mark.parametrize("kind", FORMATS)
def test_check_names_the_corrupt(folder: Path, kind: str) -> None:
    (name,) = spoil(folder, 4)
    result = run("pack", folder, folder.parent / f"all.{kind}", "--size", "30")
    assert result.exit_code == 0
    assert f"1 cannot be decoded and were copied as they are: train/{name}" in result.output
    for path in (folder, folder.parent / f"all.{kind}"):
        result = run("check", path)
        assert result.exit_code == 1
        assert "train: 24 pictures, 3 of 3 classes, 1 corrupt" in result.output
        assert f"  train/{name}: " in result.output
        assert "val: 6 pictures, 3 of 3 classes, 0 corrupt" in result.output


def test_check_sees_a_changed_byte(folder: Path) -> None:
    path = packed(folder, "raw.h5", "--raw")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    result = run("check", path)
    assert "its bytes have changed since it was packed" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_files_cut_short_or_not_ours_are_refused(folder: Path, kind: str) -> None:
    path = packed(folder, f"all.{kind}")
    file = path / "data.mdb" if path.is_dir() else path
    whole = file.read_bytes()
    for length in (len(whole) - 5000, 5000, 0):
        cut = folder.parent / f"cut{length}.{kind}"
        target = cut / "data.mdb" if path.is_dir() else cut
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cannot read|incomplete"):
            load(cut)


@pytest.mark.parametrize("kind", FORMATS)
def test_packing_goes_on_after_a_kill(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.parent / f"all.{kind}"
    parts = Path(f"{path}.parts")
    # Small parts, and a second one that takes for ever.
    code = (
        "import sys, time\n"
        "from commbench.workloads.data import pack\n"
        "from commbench.cli import main\n"
        "pack.PART = 4\n"
        "make = pack.Work.make\n"
        "def slow(self, split, start, stop):\n"
        "    if start == 8: time.sleep(600)\n"
        "    make(self, split, start, stop)\n"
        "pack.Work.make = slow\n"
        f"sys.argv = ['commbench', 'data', 'pack', {str(folder)!r}, {str(path)!r}, "
        "'--workers', '1']\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    limit = time.monotonic() + 60
    while not (parts / "train-00000004.npz").exists():
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    with pytest.raises(UserError, match="is incomplete, its packing was interrupted"):
        load(path)
    monkeypatch.setattr(pack, "PART", 4)
    result = run("pack", folder, path, "--raw")
    assert "was begun with other pictures or options" in str(result.exception)
    stamp = (parts / "train-00000004.npz").stat().st_mtime_ns
    put_together = pack._put_together

    def look(*arguments: object) -> list[str]:
        assert (parts / "train-00000004.npz").stat().st_mtime_ns == stamp
        return put_together(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pack, "_put_together", look)
    packed(folder, path.name)
    assert torch.equal(everything(load(folder))[0], everything(load(path))[0])


def test_handles_are_opened_by_each_process(folder: Path) -> None:
    for kind in FORMATS:
        _, sources = open_pictures(packed(folder, f"all.{kind}"))
        expected = sources["train"].read(7)
        # Only reads: torch's threads do not survive a fork.
        child = os.fork()
        if child == 0:
            try:
                os._exit(sources["train"].read(7) != expected)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert sources["train"].read(8) != expected


def test_what_cannot_be_trained_on_is_refused_in_a_line(folder: Path) -> None:
    for path, told in (
        (folder / "nowhere", "no such folder"),
        (folder / "train", "no folder train in it"),
        (folder / "nowhere.lmdb", "no such file"),
    ):
        with pytest.raises(UserError, match=told):
            load(path)
    with pytest.raises(UserError, match="has 3, use --classes 3 or more"):
        load(folder, classes=2)
    with pytest.raises(UserError, match="unknown augmentation 'more': choose from caffe"):
        load(folder, augmentation="more")
    (folder / "train" / "n2").mkdir()
    with pytest.raises(UserError, match="n2 is only in train"):
        load(folder)
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(UserError, match="no classes"):
        load(folder)


def test_what_cannot_be_packed_is_refused_in_a_line(folder: Path) -> None:
    for arguments, told in (
        ((folder, folder / "x.zip"), "must end in .lmdb"),
        ((folder, folder / "x.h5", "--format", "lmdb"), "needs a name that ends in .lmdb"),
        ((folder, folder / "none" / "x.h5"), "no such folder"),
        ((folder / "none", folder / "x.h5"), "no such folder"),
    ):
        result = run("pack", *arguments)
        assert isinstance(result.exception, UserError)
        assert told in str(result.exception)
    path = packed(folder, "all.h5")
    assert "exists" in str(run("pack", folder, path).exception)


def test_a_header_of_another_version_is_refused(folder: Path) -> None:
    import h5py

    path = packed(folder, "all.h5")
    with h5py.File(path, "r+") as file:
        header = json.loads(file["commbench"][:].tobytes())
        del file["commbench"]
        file["commbench"] = np.frombuffer(json.dumps({**header, "version": 9}).encode(), np.uint8)
    with pytest.raises(UserError, match="has version 9"):
        load(path)


def test_large_pictures_are_no_matter(tmp_path: Path) -> None:
    root = image_net(tmp_path / "large", train=1, val=1)
    picture(1, 900, 700).save(root / "train" / CLASSES[0] / "large.png")
    assert everything(load(root))[0].shape == (4, 3, 24, 24)
